"""`rayalign score`: scores of pictures that exist, by any scorers, to parquet."""

from __future__ import annotations

import argparse
from typing import Any

from rayalign.commands.options import Plain, named_option, read_plain, settings_parser

DESCRIPTION = """Scores the images of a folder, or of parquet, through Ray: here, or on the cluster of RAY_ADDRESS.
Prompts are in a metadata.jsonl, in cat.txt (or cat.caption) beside cat.png, or in a column of the parquet.
Killed and started again, it goes on. The result is parquet: id, prompt, a column a scorer (null where it has no
score), and the reason for that.
"""
EPILOG = """examples:
  rayalign score pictures/ --scorer jpeg --scorer toy-clip --output scores
  rayalign score 'data/train-*.parquet' --prompt-column caption --scorer hpsv2.1 --pool.gpus 1 --output scores
  rayalign score pictures/ --prompt "a cat" --scorer aesthetic --option aesthetic.head=head.pth
"""
PLAIN: Plain = {
    "--output": ("output", str, "folder of the result [scores]"),
    "--prompt": ("prompt", str, "one prompt for all images, in place of their own"),
    "--prompt-column": ("prompt_column", str, "of parquet or metadata.jsonl [the first of prompt, text, caption]"),
    "--image-column": (
        "image_column",
        str,
        "of parquet: encoded images, {bytes, path} or paths [image, jpg, path, ..]",
    ),
    "--id-column": ("id_column", str, "of parquet: what names a row in the result [file and number]"),
    "--resolution": ("resolution", int, "cut each image to a middle square of so many pixels [as they are]"),
    "--batch": ("batch", int, "images of one size that a scorer gets at once [32]"),
    "--rows-per-file": ("rows_per_file", int, "images of a folder that make one file of the result [256]"),
    "--pool.min": ("pool.min", int, "actors of each scorer [1]"),
    "--pool.max": ("pool.max", int, "the same, under load [1]"),
    "--pool.cpus": ("pool.cpus", float, "logical CPUs of an actor [1]"),
    "--pool.gpus": ("pool.gpus", float, "GPUs of an actor, fractions share one [0]"),
    "--cpu-threads": ("cpu_threads", int, "torch threads of an actor [1]"),
    "--stall-timeout-s": ("stall_timeout_s", float, "stop if no image gets done for so long [1800]"),
}


def main(arguments: list[str]) -> int:
    given = vars(_parser().parse_args(arguments))
    # Now, not above: pydantic, Ray and torch take seconds to import, and --help must not.
    from rayalign.cli import validate
    from rayalign.config.score import ScoreConfig
    from rayalign.trees import merged

    tree = merged(read_plain(given, PLAIN))
    if given["images"] is not None:
        tree["images"] = given["images"]
    if given["scorer"]:
        tree["scorers"] = [{"scorer": name} for name in given["scorer"]]
    _add_options(tree, given["option"])
    config = validate(tree, ScoreConfig)

    from rayalign.pipeline.score_pictures import score_images

    score_images(config)
    return 0


def _add_options(tree: dict[str, Any], given: list[str]) -> None:
    """ "jpeg.quality=50" into the options of that scorer, whose name may have dots as well."""
    from rayalign.errors import ConfigError

    scorers = {str(one.get("scorer")): one for one in tree.get("scorers", []) if isinstance(one, dict)}
    for text in given:
        path, value = named_option(text, "SCORER.NAME=VALUE")
        scorer, _, name = path.rpartition(".")
        if scorer not in scorers:
            raise ConfigError("--option", text, f"is of none of the scorers; begin with one of {', '.join(scorers)}")
        scorers[scorer].setdefault("options", {})[name] = value


def _parser() -> argparse.ArgumentParser:
    parser = settings_parser("score", DESCRIPTION, EPILOG, PLAIN)
    parser.add_argument("images", nargs="?", help="folder of images; .parquet file, folder or pattern of such")
    parser.add_argument(
        "--scorer",
        action="append",
        metavar="NAME",
        help="a name of `rayalign scorers`, or my_package.my_module:Mine; give it again for more",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="SCORER.NAME=VALUE", help="of a scorer: jpeg.quality=50"
    )
    return parser
