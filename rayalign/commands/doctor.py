"""`rayalign doctor`: looks at installation, GPU, cluster, hub, weights and room, and says what to do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayalign.doctor.finding import Finding

LABELS = {"ok": "OK", "warning": "warning", "problem": "PROBLEM"}


EXAMPLES = """examples:
  rayalign doctor
  rayalign doctor --output /data/runs --start-ray     # would runs fit there, and does a cluster start here
  rayalign doctor --json > doctor.json                # to show somebody else
"""


def main(arguments: list[str]) -> int:
    """1 where there is a problem, else 0."""
    options = _parser().parse_args(arguments)
    findings = diagnose(options.output, options.start_ray)
    if options.json:
        print(json.dumps([finding._asdict() for finding in findings], indent=1))
    else:
        print("\n".join(_line(finding) for finding in findings))
    return int(any(finding.status == "problem" for finding in findings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign doctor",
        description="Looks at what a run needs and says what to do where something is wrong. Changes nothing, starts\n"
        "no cluster unless asked, and takes a few seconds. Exit code 1 where there is a problem.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", default="runs", help="folder of runs to look at [runs]")
    parser.add_argument("--start-ray", action="store_true", help="without RAY_ADDRESS: start a cluster, and end it")
    parser.add_argument("--json", action="store_true", help="for programs: name, status, text, fix of each finding")
    return parser


def diagnose(output: str, start_ray: bool = False) -> list[Finding]:
    """All findings, in the order of what depends on what."""
    from rayalign.doctor import machine, reach, software, weights
    from rayalign.doctor.finding import run_check

    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("packages", software.check_packages),
        ("torch", software.check_torch),
        ("ray", lambda: reach.check_cluster(start_ray)),
        ("hub", reach.check_hub),
        ("toy models", weights.check_toys),
        ("scorers", weights.check_scorers),
        ("output", lambda: machine.check_output(output)),
        ("disks", machine.check_caches),
        ("memory", machine.check_memory),
        ("open files", machine.check_limits),
    ]
    return [finding for name, check in checks for finding in run_check(name, check)]


def _line(finding: Finding) -> str:
    fix = f"\n{'':9}-> {finding.fix}" if finding.fix else ""
    return f"{LABELS[finding.status]:<9}{finding.name}: {finding.text}{fix}"
