"""`rayalign schema`: the settings as a JSON schema, which editors check and complete YAML by."""

from __future__ import annotations

import argparse
from pathlib import Path

EPILOG = """examples:
  rayalign schema --output rayalign.schema.json
  # then, as the first line of a run.yaml, for editors with the YAML language server:
  # yaml-language-server: $schema=rayalign.schema.json
"""
GROUPS = {
    "run": ("rayalign.config", "RunConfig"),
    "style": ("rayalign.config.style", "StyleConfig"),
    "evaluate": ("rayalign.config.evaluate", "EvaluateConfig"),
    "score": ("rayalign.config.score", "ScoreConfig"),
}


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    import importlib
    import json

    module, name = GROUPS[options.settings]
    schema = getattr(importlib.import_module(module), name).model_json_schema()
    text = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1)
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign schema",
        description="Writes the JSON schema of the settings that --config files hold.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--settings", choices=GROUPS, default="run", help="of a run, or of another command [run]")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to [the terminal]")
    return parser
