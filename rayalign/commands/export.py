"""`rayalign export`: what a run tuned, in the form that another program loads, with a model card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rayalign.config import RunConfig
    from rayalign.models.weight_sets import WeightArrays

FORMS = ("diffusers", "kohya", "fused")
DTYPES = ("float32", "bfloat16", "float16")
EXAMPLES = """examples:
  rayalign export runs/first                                   # the LoRA as diffusers loads it, and a model card
  rayalign export runs/first --to kohya --output ComfyUI/models/loras
  rayalign export runs/first --to fused --dtype float16        # a whole pipeline's folder
  rayalign export runs/first --weights ema                     # of a run with --train.ema_decay 0.999
  rayalign export runs/first --push me/my-lora --private       # the token is read from HF_TOKEN or the hub's login
"""


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    # Now, not above: --help must not wait for torch.
    from rayalign.evaluation.model_card import write_model_card

    config = _config(options.run)
    folder = options.output or options.run / "export" / options.to
    written = _write(options, config, folder)
    form = "model" if config.model.tuning.kind == "full" else options.to
    card = write_model_card(options.run, folder, form)
    print(f"weights {written}\ncard    {card}")
    if options.push:
        from rayalign.models.hub import push_folder

        print(f"pushed  {push_folder(folder, options.push, options.private)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rayalign export",
        description="Writes what a run tuned in the form that another program loads, with a model card beside it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run's folder, such as runs/first")
    parser.add_argument(
        "--to",
        choices=FORMS,
        default="diffusers",
        help="diffusers: load_lora_weights reads it; kohya: for ComfyUI and WebUI (SD 1.5, SDXL); fused: a whole "
        "pipeline with the LoRA in its weights. Of a full fine-tuning only diffusers, a whole pipeline [diffusers]",
    )
    parser.add_argument(
        "--weights", choices=("policy", "ema"), default="policy", help="ema: its average (train.ema_decay) [policy]"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to [RUN/export/FORM]")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of kohya and fused weights [float32]")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to this model repository on the hub")
    parser.add_argument("--private", action="store_true", help="make that repository private, if it is new")
    return parser


def _config(run: Path) -> RunConfig:
    from rayalign.cli import validate
    from rayalign.config.files import read_settings
    from rayalign.errors import ConfigError

    file = run / "config.yaml"
    if not file.is_file():
        raise ConfigError("RUN", str(run), "holds no config.yaml; give the folder of a run, such as runs/first")
    return validate(read_settings(file, "RUN"))


def _write(options: argparse.Namespace, config: RunConfig, folder: Path) -> Path:
    from rayalign.errors import ConfigError
    from rayalign.models.export import save_fused, save_lora, save_model
    from rayalign.models.families import find_family
    from rayalign.models.kohya import save_kohya
    from rayalign.models.load import DTYPES as TORCH_DTYPES

    family, dtype = find_family(config.model.path, config.model.family), TORCH_DTYPES[options.dtype]
    if family.name == "stub":
        raise ConfigError("RUN", str(options.run), "tuned a stub, which is no model that anything loads")
    if config.model.tuning.kind == "full" and options.to != "diffusers":
        raise ConfigError("--to", options.to, "the run tuned all weights: there is no LoRA; set --to diffusers")
    arrays = _chosen(options, config)
    if config.model.tuning.kind == "full":
        return save_model(folder, config.model.path, family, arrays)
    if options.to == "kohya":
        return save_kohya(folder / f"{config.name}.safetensors", family, arrays, dtype)
    if options.to == "fused":
        return save_fused(folder, config.model.path, family, arrays, dtype)
    return save_lora(folder, family, arrays)


def _chosen(options: argparse.Namespace, config: RunConfig) -> WeightArrays:
    """The newest checkpoint's policy or average; of a run that went back, the good policy that it ended with."""
    from rayalign.errors import CheckpointError, ConfigError
    from rayalign.evaluation.history import read_history
    from rayalign.evaluation.wrong import rolled_back_to
    from rayalign.learning.checkpoint_store import CheckpointStore
    from rayalign.learning.good_policy import load_good
    from rayalign.pipeline.resume import store_of

    # The folder may have moved since its config.yaml was written.
    own = str(options.run / "checkpoints")
    store = store_of(config) if config.checkpoints else CheckpointStore.at(own)
    back = rolled_back_to(read_history(options.run))
    if back is not None:
        if options.weights == "ema":
            fix = f"the run went back to policy version {back}, and its average has what came after; set policy"
            raise ConfigError("--weights", "ema", fix)
        return load_good(store.place, back)
    newest = store.newest()
    if not newest.done:
        raise CheckpointError("; ".join([f"no whole checkpoint in {store.place.name}", *newest.problems]))
    if options.weights == "policy":
        return store.policy(newest.done)
    average = store.ema(newest.done)
    if average is None:
        raise ConfigError("--weights", "ema", "the run kept no average; train with --train.ema_decay 0.999")
    return average
