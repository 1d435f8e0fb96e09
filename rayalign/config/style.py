"""A style alignment: the run that every method shares, the style, and what its success is measured by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayalign.config.pairs import DatasetPairs
from rayalign.config.run import RunConfig
from rayalign.objectives.dpo import DPO
from rayalign.objectives.rpo import RPO
from rayalign.objectives.sft import SFT
from rayalign.settings import AboveZero, Positive, Settings

if TYPE_CHECKING:
    from rayalign.objectives.base import Objective

PAIRS_FILE, LATENTS = "pairs.parquet", "latents"
Method = Literal["sft", "dpo", "rpo"]


class DrawnStyle(Settings):
    """An image operation on the base's pictures, which needs no weights: for toys and tests."""

    kind: Literal["drawn"] = "drawn"
    name: Literal["outlines", "hatching"] = Field("outlines", description="what the pictures are redrawn as")


class ImageToImageStyle(Settings):
    """The base model's own image-to-image pipeline, which is told the style that the pairs' prompts leave out."""

    kind: Literal["img2img"] = "img2img"
    suffix: str = Field(", a painting by Van Gogh", min_length=1, description="words of the style, after the prompt")
    strength: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="share of the noise schedule that is drawn anew; 1 leaves nothing of the base's picture"
    )


class LoraStyle(Settings):
    """A style LoRA over the base, which draws the same prompts from the same noise."""

    kind: Literal["lora"] = "lora"
    path: str = Field("", description="a .safetensors file that diffusers loads, or a folder with one")
    suffix: str = Field("", description="words that call the style up, after the prompt, where the LoRA needs some")
    scale: AboveZero = Field(1.0, description="strength of the LoRA")


class FolderStyle(Settings):
    """Pictures made elsewhere: `training/` and `heldout/`, matched to the base's by number or by prompt.

    `prompts.json` in either, {"cat.png": "a cat"}, matches by prompt; without one, a file's name begins with the
    number of the base's picture, as the names do that `export` gives them.
    """

    kind: Literal["folder"] = "folder"
    path: str = Field("", description="folder with training/ and heldout/")
    export: bool = Field(False, description="only write the base's pictures there, to be restyled in their places")


Style = Annotated[DrawnStyle | ImageToImageStyle | LoraStyle | FolderStyle, Field(discriminator="kind")]


class FeaturesConfig(Settings):
    extractor: str = Field(
        "clip", description="what FID and KID look with: clip, toy-clip, inception or my_package.my_module:MyExtractor"
    )
    options: dict[str, Any] = Field({}, description="passed to the extractor")


class RatesConfig(Settings):
    """Methods differ in the size of step that suits them; everything else they share."""

    sft: AboveZero | None = Field(None, description="learning rate of SFT; train.lr where null")
    dpo: AboveZero | None = Field(None, description="learning rate of DPO; train.lr where null")
    rpo: AboveZero | None = Field(None, description="learning rate of RPO; train.lr where null")


class StyleConfig(RunConfig):
    """What is above these is of each method's run. `objective` is RPO's: DPO takes its beta, SFT nothing."""

    pairs: DatasetPairs = DatasetPairs()
    objective: RPO = RPO()
    style: Style = DrawnStyle()
    methods: tuple[Method, ...] = Field(("sft", "dpo", "rpo"), min_length=1, description="methods to compare")
    num_pairs: Positive = Field(1000, description="pictures of the training prompts, each a pair with its restyled one")
    features: FeaturesConfig = FeaturesConfig()
    rates: RatesConfig = RatesConfig()

    @model_validator(mode="before")
    @classmethod
    def _own_pairs(cls, values: Any) -> Any:
        """The job writes the set that it trains on, in its own folder; all methods share one cache of its latents."""
        pairs = values.get("pairs", {}) if isinstance(values, dict) else None
        if not isinstance(pairs, dict):
            return values
        folder = [values.get(name, cls.model_fields[name].default) for name in ("output", "name")]
        if not all(isinstance(part, str) for part in folder):
            return values  # refused by its own name
        own = Path(*folder).expanduser()
        if pairs.get("path") not in (None, "", str(own / PAIRS_FILE)):
            raise ValueError(f"pairs.path = {pairs['path']!r}: the job makes its own pairs; leave it empty")
        return {**values, "pairs": {"cache": str(own / LATENTS), **pairs, "path": str(own / PAIRS_FILE)}}

    @field_validator("resume")
    @classmethod
    def _resumes_itself(cls, resume: str | None) -> str | None:
        if resume is not None:
            raise ValueError("a style alignment is several runs; the same command again goes on with each of its own")
        return resume

    @field_validator("methods")
    @classmethod
    def _each_once(cls, methods: tuple[Method, ...]) -> tuple[Method, ...]:
        if len(set(methods)) != len(methods):
            raise ValueError("a method stands twice; name each once")
        return methods

    def shared(self) -> dict[str, Any]:
        """The settings of a run that every method has."""
        return {name: value for name, value in self.model_dump().items() if name in RunConfig.model_fields}

    def given(self) -> RunConfig:
        """The pairs are not there yet."""
        return RunConfig.model_validate(self.shared() | {"pairs": {"kind": "final"}})

    def run_of(self, method: Method) -> RunConfig:
        """One method's run, in a folder of its own within this job's."""
        objectives: dict[Method, Objective] = {
            "sft": SFT(),
            "dpo": DPO(beta=self.objective.beta),
            "rpo": self.objective,
        }
        tree = self.shared() | {"name": method, "output": str(self.folder)}
        if self.checkpoints is not None:
            tree["checkpoints"] = self.checkpoint_root
        tree["objective"] = objectives[method].model_dump()
        tree["train"]["lr"] = getattr(self.rates, method) or self.train.lr
        return RunConfig.model_validate(tree)

    def decides_pictures(self) -> dict[str, Any]:
        """What the job's pairs and held-out pictures follow from, beside the evaluation's rows."""
        tree = self.model_dump(mode="json")
        tree["model"].pop("tuning")
        names = ("model", "sampler", "style", "num_pairs", "seed")
        return {name: tree[name] for name in names} | {"prompts": {"source": tree["prompts"]["source"]}}
