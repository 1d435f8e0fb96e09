"""Train the toy models from nothing: `python -m rayalign.toy.train`, or one stage of it with `--stage`.

The stages in order: `vae`, `clip` (with the text encoders), `sd15`, which needs both, `sdxl`, which starts from the
UNet of `sd15`, and `sd3`, which takes autoencoder and CLIP text encoders from the finished toy-sdxl. Two stages side
by side with `--threads 1` use two cores better than one stage with two threads.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rayalign.toy import WEIGHTS

MINUTES = {"vae": 40.0, "clip": 15.0, "sd15": 40.0, "sdxl": 25.0, "sd3": 40.0}
"""An estimate for one idle core. The committed weights came in several shorter runs: see weights/train.log."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=[*MINUTES, "all"], default="all")
    parser.add_argument("--minutes", type=float, help="training time of each stage; its usual time if not given")
    parser.add_argument(
        "--parts", type=Path, default=Path("runs/toy-parts"), help="where parts are kept between stages"
    )
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the finished models go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the weights of an earlier run")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def run_stage(stage: str, minutes: float, parts: Path, weights: Path, seed: int, resume: bool) -> None:
    """Run one stage; its lines are added to `train.log` beside the weights."""
    from rayalign.toy import autoencoder, contrastive, denoiser, transformer

    log = weights / "train.log"
    if stage == "vae":
        autoencoder.train(parts / "vae", minutes, seed=seed, log_path=log, resume=resume)
    elif stage == "clip":
        contrastive.train(parts, weights / "toy-clip", minutes, seed=seed + 1, log_path=log, resume=resume)
    elif stage == "sd3":
        lender = weights / "toy-sdxl"
        transformer.train(lender, parts, weights / "toy-sd3", minutes, seed + 3, log_path=log, resume=resume)
    else:
        name = f"toy-{stage}"
        unet = weights / "toy-sd15" if stage == "sdxl" else None
        denoiser.train(name, parts, weights / name, minutes, seed + 2, log_path=log, resume=resume, lender=unet)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    import torch

    options = parse(arguments)
    torch.set_num_threads(options.threads)
    options.parts.mkdir(parents=True, exist_ok=True)
    options.weights.mkdir(parents=True, exist_ok=True)
    for stage in MINUTES if options.stage == "all" else [options.stage]:
        minutes = options.minutes or MINUTES[stage]
        run_stage(stage, minutes, options.parts, options.weights, options.seed, options.resume)


if __name__ == "__main__":
    main()
