"""`rayalign report`: a run's page written again, or several runs on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLES = """examples:
  rayalign report runs/first                     # writes runs/first/report.html again, while the run goes too
  rayalign report runs/first runs/second         # compares them in runs.html
  rayalign report runs/* --output compared.html
"""
SEVERAL = "runs.html"


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    from rayalign.errors import ConfigError

    # `runs/*` names files beside the runs too, such as a page written before.
    folders = [run for run in options.runs if len(options.runs) == 1 or run.is_dir() or not run.exists()]
    for folder in folders:
        if not _is_run(folder):
            raise ConfigError("RUN", str(folder), "is no run's folder; give one such as runs/first")
    # Now, not above: --help must not wait for numpy.
    if len(folders) == 1:
        from rayalign.evaluation.report import write_report

        print(write_report(folders[0], options.output))
        return 0
    from rayalign.evaluation.runs_page import MAX_SERIES, write_runs_page

    if len(folders) > MAX_SERIES:
        raise ConfigError("RUN", len(folders), f"give {MAX_SERIES} runs at most")
    print(write_runs_page(folders, options.output or SEVERAL))
    return 0


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.yaml", "history.jsonl", "summary.json", "images"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign report",
        description="Writes a run's report again, whatever the run has left so far; or compares several runs on one "
        "page: results, curves in one drawing, settings that differ, the same prompts' pictures side by side. "
        "A page is one file that opens without a network.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, such as runs/first")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=f"where to [RUN/report.html; of several runs {SEVERAL}, here]"
    )
    return parser
