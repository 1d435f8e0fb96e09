"""How fast one process samples pairs and trains on them, against the same done naively, in the same run. No Ray.

  python benchmarks/throughput.py                                             # toy SDXL on the CPU, a minute
  python benchmarks/throughput.py --model stub:denoise_s=0.01,train_s=0.02    # known costs: shows the calls alone
  python benchmarks/throughput.py --model sdxl-random --device cuda --batch 4 --json sdxl.json
  python benchmarks/throughput.py --model sdxl-random --device cuda --resolution 512 --checkpointing

A call is one guided evaluation of one latent (classifier-free guidance makes that two evaluations of the network).
Naive sampling denoises the winner again after it was scored; naive training asks policy and reference for winner and
loser apart (see naive.py). Repeats of both alternate; a ratio is the median of (naive / ours) taken side by side, so
above 1 is a gain. Exits with 1 if the two do not give the same pairs and the same gradient: then it compares nothing.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

# Of pairs: share that must be the same. Of the gradient: largest relative difference (Euclidean norm).
LIMITS = {"float32": (1.0, 1e-3), "bfloat16": (0.9, 0.05), "float16": (0.9, 0.05)}
LORA_B_STD = 0.01  # a fresh LoRA is zero, and then half of its gradient is


def main() -> None:
    arguments = parse(sys.argv[1:])
    # After parsing: torch and diffusers take seconds to import, and --help must not.
    from output import write_json

    result = measure(arguments)
    print(report(result))
    write_json(arguments.json, result)
    sys.exit(0 if result["agreement"]["agrees"] else 1)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="toy-sdxl", help="sdxl-random, toy-sdxl, toy-sd15, stub:..., folder, hub id")
    parser.add_argument("--reward", default="jpeg", choices=("jpeg", "stub"), help="scorer, in this process [jpeg]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--dtype", choices=sorted(LIMITS), help="of the base [bfloat16 on a GPU, else float32]")
    parser.add_argument("--batch", type=int, default=4, help="trajectories drawn together, pairs in a forward [4]")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps; every fourth is tuned [20]")
    parser.add_argument("--resolution", type=int, help="pixels a side [the model's own]")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in training")
    parser.add_argument("--repeats", type=int, default=5, help="of each, after one to warm up [5]")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU [1]")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    given = parser.parse_args(arguments)
    given.dtype = given.dtype or ("float32" if given.device == "cpu" else "bfloat16")
    return given


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All numbers, as the JSON has them."""
    import torch
    from workload import Workload

    torch.set_num_threads(given.threads)
    work = Workload(given, LORA_B_STD)
    stopwatch = Stopwatch(given.repeats, torch.device(given.device))
    alone = stopwatch.side_by_side({"fast": work.denoise_once})["fast"]["seconds"]
    sampling = stopwatch.side_by_side({"fast": work.sample, "naive": work.sample_naively})
    sampled_calls = work.count_calls({"fast": work.sample, "naive": work.sample_naively}, given.batch)
    for name, calls in sampled_calls.items():
        seconds = sampling[name]["seconds"]
        sampling[name] |= {
            "calls_per_trajectory": calls["policy"],
            "denoiser_calls_per_s": calls["policy"] * given.batch / seconds,
            "pairs_per_s": work.num_pairs / seconds,
        }
    same_pairs = work.same_pairs()
    work.start_training()
    training = stopwatch.side_by_side({"fast": work.train, "naive": work.train_naively})
    trained_calls = work.count_calls({"fast": work.train, "naive": work.train_naively}, work.num_pairs)
    for name, calls in trained_calls.items():
        training[name] |= {
            "policy_calls_per_pair": calls["policy"],
            "reference_calls_per_pair": calls["reference"],
            "pairs_per_s": work.num_pairs / training[name]["seconds"],
        }
    gradient = work.gradient_difference()
    least, most = LIMITS[given.dtype]
    settings = {name: value for name, value in vars(given).items() if name != "json"}
    return {
        "benchmark": "throughput",
        "settings": settings | {"resolution": work.model.resolution},
        "device_name": torch.cuda.get_device_name(given.device) if given.device != "cpu" else "cpu",
        "parameters": work.num_parameters,
        "denoiser_alone": {"seconds": alone, "calls_per_s": given.batch / alone},
        "sampling": sampling,
        "training": training,
        "agreement": {
            "same_pairs": same_pairs,
            "gradient_difference": gradient,
            "agrees": same_pairs >= least and gradient <= most,
        },
    }


class Stopwatch:
    """Wall times and peak memory of things done in turn, so that a machine's moods meet them alike."""

    def __init__(self, repeats: int, device: Any) -> None:
        self._repeats, self._device = repeats, device

    def side_by_side(self, jobs: dict[str, Callable[[], object]]) -> dict[str, Any]:
        """Name -> medians; and `ratio`, naive over fast, where there are two."""
        taken: dict[str, list[float]] = {name: [] for name in jobs}
        peak: dict[str, float] = {}
        for repeat in range(-1, self._repeats):  # -1 warms up
            for name in list(jobs)[:: -1 if repeat % 2 else 1]:
                seconds, peak[name] = self._once(jobs[name])
                if repeat >= 0:
                    taken[name].append(seconds)
        result: dict[str, Any] = {
            name: {"seconds": statistics.median(taken[name]), "peak_memory_gib": peak[name]} for name in jobs
        }
        if "naive" in jobs:
            pairs = zip(taken["naive"], taken["fast"], strict=True)
            result["ratio"] = statistics.median(naive / fast for naive, fast in pairs)
        return result

    def _once(self, job: Callable[[], object]) -> tuple[float, float]:
        """(seconds, peak GiB): of the job on a GPU, of the process so far on a CPU."""
        import torch

        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        started = time.perf_counter()
        job()
        if on_gpu:
            torch.cuda.synchronize(self._device)
        seconds = time.perf_counter() - started
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = torch.cuda.max_memory_allocated(self._device) / 2**30 if on_gpu else kib / 2**20
        return seconds, peak


def report(result: dict[str, Any]) -> str:
    """The table."""
    from output import table

    sampling, training, settings = result["sampling"], result["training"], result["settings"]

    def row(label: str, stage: dict[str, Any], key: str) -> list[object]:
        fast, naive = stage["fast"][key], stage["naive"][key]
        return [label, fast, naive]

    rows = [
        [*row("sampling: calls a trajectory", sampling, "calls_per_trajectory"), None],
        [*row("sampling: denoiser calls/s", sampling, "denoiser_calls_per_s"), None],
        [*row("sampling: pairs/s", sampling, "pairs_per_s"), sampling["ratio"]],
        [*row("sampling: peak memory, GiB", sampling, "peak_memory_gib"), None],
        [*row("training: policy calls a pair", training, "policy_calls_per_pair"), None],
        [*row("training: reference calls a pair", training, "reference_calls_per_pair"), None],
        [*row("training: pairs/s", training, "pairs_per_s"), training["ratio"]],
        [*row("training: peak memory, GiB", training, "peak_memory_gib"), None],
    ]
    agreement = result["agreement"]
    return "\n".join(
        [
            f"{settings['model']} ({result['parameters']:,} parameters) on {result['device_name']}, "
            f"{settings['dtype']}, batch {settings['batch']}, {settings['steps']} steps, {settings['resolution']} px",
            f"denoiser alone: {result['denoiser_alone']['calls_per_s']:.4g} calls/s",
            table(("", "rayalign", "naive", "gain"), rows),
            f"same pairs: {agreement['same_pairs']:.1%}; gradient differs by {agreement['gradient_difference']:.1e} "
            f"of its norm: {'the same result' if agreement['agrees'] else 'NOT THE SAME RESULT'}",
        ]
    )


if __name__ == "__main__":
    main()
