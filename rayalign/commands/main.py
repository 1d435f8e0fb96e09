"""`rayalign`: one sub-command a file of this folder, one line each in `COMMANDS`.

A command's module has `main(arguments: list[str]) -> int`, which parses for itself and answers the exit code. It is
imported once its name was read, and imports what is heavy once its own arguments were: `--help` must be instant.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from rayalign.entry import exit_code, settle_ray

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
    settle_ray()
    return exit_code(lambda: importlib.import_module(module).main(given[1:]), "stopped")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign",
        description="Aligns text-to-image diffusion models with human preference, online, on Ray.",
        epilog="`rayalign COMMAND --help` explains a command.\n\n"
        "example:\n  rayalign train --model toy-sdxl --reward jpeg --name first",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
