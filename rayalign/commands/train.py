"""`rayalign train`: one run by the settings given, as a job file does with defaults of its own."""

from __future__ import annotations

DESCRIPTION = """Runs, or resumes, one alignment: TailorPO unless settings say otherwise. The files in jobs/ do
the same with the defaults of a paper each; `--config` takes a run's own config.yaml, which repeats it.

examples:
  rayalign train --model toy-sdxl --reward jpeg --name first
  rayalign train --config runs/first/config.yaml --seed 1 --name second
  rayalign train --model stabilityai/stable-diffusion-xl-base-1.0 --reward pickscore --dry-run 1x80
"""


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments) and "--all" not in arguments:
        print(_short_help())
        raise SystemExit(0)
    # Now, not above: the settings are pydantic's, and --help must be instant.
    from rayalign.cli import run_job

    run_job(DESCRIPTION, {}, [argument for argument in arguments if argument != "--all"])
    return 0


def _short_help() -> str:
    return (
        "usage: rayalign train [--model NAME] [--reward SCORER[=WEIGHT]] [--prompts NAME] [--config FILE]\n"
        "                      [--dry-run [GPUS]] [--any.setting VALUE]\n\n"
        f"{DESCRIPTION}\n"
        "Every setting is an option by its dotted name; `rayalign train --help --all` explains all of them, and\n"
        "`rayalign schema` writes them down for an editor."
    )
