"""`rayalign`: one sub-command a file of this folder, one line each in `COMMANDS`.

A command's module has `main(arguments: list[str]) -> int`, which parses for itself and answers the exit code. It is
imported once its name was read, and imports what is heavy once its own arguments were: `--help` must be instant.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from rayalign.errors import ConfigError, RayalignError

COMMANDS = {
    "train": ("rayalign.commands.train", "tune a model; jobs/ has a paper's settings each"),
    "evaluate": ("rayalign.commands.evaluate", "compare tuned models with their base"),
    "report": ("rayalign.commands.report", "write a run's page again, or compare several runs on one"),
    "score": ("rayalign.commands.score", "score a folder or parquet of images by any reward models"),
    "export": ("rayalign.commands.export", "write a run's weights for another program"),
    "scorers": ("rayalign.commands.scorers", "list the reward models, install what one needs, check yours"),
    "models": ("rayalign.commands.models", "list the models that --model takes by name"),
    "doctor": ("rayalign.commands.doctor", "see what a run needs that is not here"),
    "schema": ("rayalign.commands.schema", "write the settings as a JSON schema, for editors"),
    "completion": ("rayalign.commands.completion", "print a script that makes a shell complete commands"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command that `arguments` (the command line where null) names; its exit code, 2 for a bad setting."""
    given = sys.argv[1:] if arguments is None else arguments
    name = _parser().parse_args(given[:1]).command
    module, _ = COMMANDS[name]
    if not os.environ.get("RAY_ADDRESS"):
        # An embedded Ray warns at every start unless this is explicit; read when Ray is imported.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        return importlib.import_module(module).main(given[1:])
    except ConfigError as error:
        return _complain(error, 2)
    except RayalignError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("stopped", 130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign",
        description="Aligns text-to-image diffusion models with human preference, online, on Ray.",
        epilog="`rayalign COMMAND --help` explains a command.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


def _complain(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
