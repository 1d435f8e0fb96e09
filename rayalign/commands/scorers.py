"""`rayalign scorers`: the reward models and what a user must know of each.

`install` makes the environment of one, `check` tries one out.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

from rayalign.commands.options import named_option

if TYPE_CHECKING:
    from rayalign.rewards.table import ScorerFacts

HEADINGS = ("name", "unit and range", "prompt", "tokens", "gradient", "licence", "weights")
WIDTHS = (11, 30, 6, 6, 8, 15, 37)  # longer text goes on in the next line
GAP = "  "

EXAMPLES = """examples:
  rayalign scorers
  rayalign scorers install imagereward
  rayalign scorers check my_package.my_module:MyScorer
"""
INSTALL_EXAMPLES = "example:\n  rayalign scorers install imagereward"
CHECK_EXAMPLES = """examples:
  rayalign scorers check jpeg
  rayalign scorers check clip --option model=ViT-B-32 --option pretrained=openai
  rayalign scorers check my_package.my_module:MyScorer
"""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.action == "install":
        from rayalign.rewards.environments import install

        print(install(options.name))
        return 0
    if options.action == "check":
        return _check(options.name, options.option)
    print(listing())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign scorers",
        description="Lists the scorers that --reward takes by name, and whether their usual weights are on this\n"
        "machine (the network is not asked). Any other is --reward my_package.my_module:MyScorer.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="install | check")
    install = actions.add_parser(
        "install",
        help="make the environment that a scorer runs in",
        description="Makes the environment of a scorer whose packages cannot be installed beside the others. Runs do\n"
        "so by themselves where it is not there yet. Prints its folder.",
        epilog=INSTALL_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    install.add_argument("name", help="such as imagereward")
    check = actions.add_parser(
        "check",
        help="try a scorer out and say what is wrong with it",
        description="Calls a scorer, your own or one that ships, with a few small images, and says in words what a\n"
        "run would trip over. Your module is looked for in the working folder and on PYTHONPATH. Exit code 1 if\n"
        "anything was found.",
        epilog=CHECK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("name", help="my_package.my_module:MyScorer, or a name from the list")
    check.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="passed to the scorer; give again for more"
    )
    return parser


def _check(name: str, given: list[str]) -> int:
    """The conformance check, where the scorer would run: in this process unless it has an environment of its own."""
    from rayalign.config import RewardConfig
    from rayalign.rewards.environments import ENVIRONMENTS
    from rayalign.rewards.table import absolute_options, check_scorer, scorer_class, scorer_facts
    from rayalign.rewards.testing import find_problems

    options = dict(map(named_option, given))
    check_scorer(name, options)
    if scorer_facts(name).runtime_env or name in ENVIRONMENTS:
        from rayalign.pipeline.scoring.check import find_problems_there

        problems = find_problems_there(RewardConfig(scorer=name, options=absolute_options(name, options)))
    else:
        problems = find_problems(scorer_class(name), **options)
    for number, problem in enumerate(problems, 1):
        print(f"{number}. {problem}")
    if problems:
        print(f"\n{name} cannot be used yet; correct this and check again, there may be more behind it")
        return 1
    print(f"{name} can be used: --reward {name}")
    return 0


def listing() -> str:
    """The table as text."""
    from rayalign.rewards.table import SCORERS

    rows = [(name, *_cells(name, facts)) for name, facts in SCORERS.items()]
    rule = tuple("-" * width for width in WIDTHS)
    return "\n".join(line for row in (HEADINGS, rule, *rows) for line in _lines(row))


def _cells(name: str, facts: ScorerFacts) -> tuple[str, ...]:
    return (
        facts.unit,
        "needed" if facts.needs_prompt else "no",
        str(facts.num_tokens or "-"),
        "yes" if facts.differentiable else "no",
        facts.licence,
        _presence(name, facts),
    )


def _presence(name: str, facts: ScorerFacts) -> str:
    """Whether the default weights are here, and the environment where there is one."""
    from rayalign.rewards.environments import ENVIRONMENTS, is_installed
    from rayalign.rewards.weights import is_present, short_name

    missing = [short_name(weights.source) for weights in facts.weights if not is_present(weights)]
    said = f"missing: {', '.join(missing)}" if missing else "present" if facts.weights else "nothing to fetch"
    if name in ENVIRONMENTS and not is_installed(name):
        said += f"; no environment yet (rayalign scorers install {name})"
    return said


def _lines(row: tuple[str, ...]) -> list[str]:
    """One row of the table, wrapped to `WIDTHS`."""
    cells = [textwrap.wrap(cell, width, break_on_hyphens=False) for cell, width in zip(row, WIDTHS, strict=True)]
    height = max(map(len, cells))
    return [
        GAP.join(
            (cell[line] if line < len(cell) else "").ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)
        ).rstrip()
        for line in range(height)
    ]
