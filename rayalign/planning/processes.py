"""GPU memory of each kind of process, term by term, so that a reader can check the sum."""

from __future__ import annotations

from dataclasses import dataclass

from rayalign.config import RunConfig
from rayalign.planning.costs import WITH_REFERENCE, Costs

CONTEXT = 500_000_000  # what CUDA and its libraries take in a process before any tensor (assumed)
SLACK = 0.1  # of the tensors: fragments, and work space of convolutions (assumed)
# Parameters of the default towers: CLIP ViT-H/14, CLIP ViT-L/14, BLIP with a ViT-L.
VIT_H, VIT_L, BLIP_L = 986_109_441, 427_616_513, 477_000_000
SCORER_PARAMETERS = {
    **dict.fromkeys(("pickscore", "hpsv2", "hpsv2.1", "clip"), VIT_H),
    "aesthetic": VIT_L,
    "imagereward": BLIP_L,
    **dict.fromkeys(("jpeg", "jpeg-large", "stub", "toy-clip"), 0),
}
SCORER_WORKSPACE = 1_000_000_000  # a batch of 32 pictures of 224 pixels through a ViT-H (assumed)


HELD_OUT = "held-out pictures"  # how the trainer's term begins where they take more than a micro-batch
COMPARISON = "drawing for the comparison"


@dataclass(frozen=True)
class Process:
    """One kind of process that holds a share of a GPU: how many, the share, and what it holds, in bytes."""

    name: str  # its group in `placement`
    count: int
    share: float  # of a GPU, as placement says
    terms: tuple[tuple[str, float], ...]

    @property
    def memory(self) -> float:
        return sum(value for _, value in self.terms)


def processes(config: RunConfig, costs: Costs) -> list[Process]:
    """Those that placement gives a GPU to; all others live in the machine's memory."""
    place = config.placement
    drawing = _whole(_drawing(config, costs, config.rollout.samples_per_ticket))
    found = [
        Process("train", place.train.num, place.train.gpus, _whole(_trainer(config, costs))),
        Process("rollout", place.rollout.min, place.rollout.gpus, drawing),
    ]
    if config.objective.embeds_with is not None:
        annotating = _whole(_annotate(config, costs, config.objective.embeds_with[0]))
        found.append(Process("annotate", place.annotate.min, place.annotate.gpus, annotating))
    for reward in config.all_rewards:
        pool = reward.pool(place.scorer)
        found.append(Process(f"scorer {reward.scorer}", pool.min, pool.gpus, _whole(_scorer(reward.scorer))))
    return [one for one in found if one.share > 0]


def comparing(config: RunConfig, costs: Costs) -> Process:
    """What is in a rollout actor's place before and after training: it draws evaluation.batch pictures together."""
    place = config.placement.rollout
    return Process(COMPARISON, place.min, place.gpus, _whole(_drawing(config, costs, config.evaluation.batch)))


def _trainer(config: RunConfig, costs: Costs) -> list[tuple[str, float]]:
    tuned = costs.tuned_parameters
    if config.model.tuning.kind == "lora":
        weights = [("base: denoiser and VAE", costs.base_weights), ("LoRA: policy and reference", 2 * 4 * tuned)]
    else:
        copies = 2 if config.objective.kind in WITH_REFERENCE else 1
        on_gpu = copies if config.model.tuning.copies_on == "device" else 0
        weights = [
            ("policy in float32, VAE", 4 * tuned + costs.vae_parameters * costs.bytes_per_weight),
            ("reference and initial", on_gpu * costs.denoiser_parameters * costs.bytes_per_weight),
        ]
    training = [(f"gradients and {config.train.optimizer}, float32", float(4 * tuned + costs.optimizer_bytes))]
    if config.train.ema_decay is not None:
        training.append(("average of the policy, float32", 4.0 * tuned))
    peak = ("micro-batch at its peak", float(costs.train.peak))
    if config.evaluation.every:  # the worker draws the held-out pictures itself, between its steps
        name, held_out = _peak(config, costs, config.evaluation.batch)
        peak = max(peak, (f"{HELD_OUT}: {name}", held_out), key=lambda term: term[1])
    return [*weights, *training, peak]


def _peak(config: RunConfig, costs: Costs, pictures: int) -> tuple[str, float]:
    """What takes most while so many pictures are drawn together, after one another: denoiser, VAE, text encoders."""
    share = pictures / config.rollout.samples_per_ticket  # as many as the calls were measured on
    peaks = {
        "denoiser call": costs.draw.peak * share,
        "VAE": costs.decode.peak * share,
        "text encoders, while they work": float(costs.text_weights),
    }
    largest = max(peaks, key=lambda name: peaks[name])
    return largest, peaks[largest]


def _annotate(config: RunConfig, costs: Costs, embedder: str) -> list[tuple[str, float]]:
    """The VAE decodes the winners of a ticket together, then its losers."""
    pictures = config.pairs_per_ticket / config.rollout.samples_per_ticket * costs.decode.peak
    return [
        ("VAE", costs.vae_parameters * costs.bytes_per_weight),
        *_scorer(embedder),
        ("a ticket's winners through the VAE", pictures),
    ]


def _drawing(config: RunConfig, costs: Costs, pictures: int) -> list[tuple[str, float]]:
    name, peak = _peak(config, costs, pictures)
    tuned = ("LoRA", 4 * costs.tuned_parameters) if config.model.tuning.kind == "lora" else ("canary's copy", 0)
    return [("base: denoiser and VAE", costs.base_weights), tuned, (f"peak: {name}", peak)]


def _scorer(name: str) -> list[tuple[str, float]]:
    if name not in SCORER_PARAMETERS:
        return [("a scorer of your own: taken as large as CLIP ViT-H", 4 * VIT_H), ("a batch", SCORER_WORKSPACE)]
    parameters = SCORER_PARAMETERS[name]
    return [("weights, float32", 4 * parameters), ("a batch", SCORER_WORKSPACE)] if parameters else []


def _whole(terms: list[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    kept = [(name, value) for name, value in terms if value]
    tensors = sum(value for _, value in kept)
    return (*kept, (f"slack, {SLACK:.0%}", SLACK * tensors), ("CUDA itself", CONTEXT))
