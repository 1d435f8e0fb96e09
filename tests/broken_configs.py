"""Valid configs of every job, each broken in one way that is drawn: what a user could get wrong in a file or a line.

Every breakage is wrong by construction, whatever the config it is put into.
"""

from __future__ import annotations

import copy
import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic.fields import FieldInfo

from rayalign.cli import parse, settings
from rayalign.config import RunConfig
from rayalign.trees import Tree, merged, put

ROOT = Path(__file__).parents[1]


class Job(NamedTuple):
    name: str
    description: str
    defaults: Tree
    group: type[RunConfig]
    toy: Tree | None

    def parse(self, arguments: list[str]) -> RunConfig:
        return parse(self.description, self.defaults, arguments, self.group, self.toy)


class Broken(NamedTuple):
    """A config that must be refused, as arguments of its job; `says`: words of which one must be in the error."""

    job: Job
    arguments: list[str]
    says: tuple[str, ...]
    how: str


def jobs() -> list[Job]:
    found = []
    for path in sorted((ROOT / "jobs").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"job_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, "DEFAULTS"):
            continue  # no run: jobs/score.py
        group = getattr(module, "StyleConfig", RunConfig)
        found.append(Job(path.stem, str(module.__doc__), module.DEFAULTS, group, getattr(module, "TOY", None)))
    return found


def broken_configs(folder: Path, count: int, seed: int = 0) -> list[Broken]:
    """`count` of them; files go to `folder`. The jobs and the ways take turns, all else is drawn."""
    draw, known = random.Random(seed), jobs()
    return [WAYS[i % len(WAYS)](known[i % len(known)], folder / f"{i}.yaml", draw) for i in range(count)]


def valid_tree(job: Job, draw: random.Random) -> Tree:
    """All settings of a valid run of the job, on a toy or on the real model."""
    on_toy = draw.random() < 0.5
    if (job.name, on_toy) not in _VALID:
        family = {"sd15": "toy-sd15", "sd3": "toy-sd3"}.get(job.name.rpartition("_")[2], "toy-sdxl")
        _VALID[job.name, on_toy] = yaml.safe_load(job.parse(["--model", family] if on_toy else _pairs(job)).to_yaml())
    return copy.deepcopy(_VALID[job.name, on_toy])


_VALID: dict[tuple[str, bool], Tree] = {}


def in_file(job: Job, file: Path, tree: Tree, says: tuple[str, ...], how: str) -> Broken:
    file.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return Broken(job, ["--config", str(file)], says, how)


def leaves(job: Job, tree: Tree) -> dict[str, FieldInfo]:
    """The settings that this tree has, in the kinds that it chose."""

    def has(field: str) -> bool:
        group: Any = tree
        for part in field.split("."):
            if not isinstance(group, dict) or part not in group:
                return False
            group = group[part]
        return True

    return {field: info for field, info in settings(job.group) if has(field) and not field.endswith(".kind")}


def wrong_type(job: Job, file: Path, draw: random.Random) -> Broken:
    """A value that no type of settings takes, but for the free options and lists of scorers."""
    tree = valid_tree(job, draw)
    field = draw.choice([name for name in leaves(job, tree) if not name.endswith("options")])
    put(tree, field, draw.choice([{"a": 1}, {"": None}, [{"deep": [1]}], [[], [None]]]))
    return in_file(job, file, tree, (field,), f"wrong type for {field}")


def not_a_number(job: Job, file: Path, draw: random.Random) -> Broken:
    tree = valid_tree(job, draw)
    numbers = [name for name, info in leaves(job, tree).items() if info.annotation in (int, float)]
    words = ["many", True, False, ".nan", ".inf", "-.inf", "1,5", "0x", "1 000"]
    field, word = draw.choice(numbers), draw.choice(words)
    if draw.random() < 0.5:
        return Broken(job, [f"--{field}={word}", *_pairs(job)], (field,), f"{field} from the line")
    put(tree, field, float(word.replace(".", "")) if isinstance(word, str) and word[-3:] in ("nan", "inf") else word)
    return in_file(job, file, tree, (field,), f"{field} = {word}")


def out_of_range(job: Job, file: Path, draw: random.Random) -> Broken:
    """Beyond a bound that the setting itself declares."""
    tree = valid_tree(job, draw)
    beyond = [(name, value) for name, info in leaves(job, tree).items() if (value := _beyond(info, draw)) is not None]
    field, value = draw.choice(beyond)
    put(tree, field, value)
    return in_file(job, file, tree, (field,), f"{field} = {value}")


def _beyond(info: FieldInfo, draw: random.Random) -> Any:
    bounds = {}
    for rule in info.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if getattr(rule, name, None) is not None:
                bounds[name] = getattr(rule, name)
    far = 10 ** draw.randint(0, 12)
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    options = ([low - far] if low is not None else []) + ([high + far] if high is not None else [])
    options += [bounds[name] for name in ("gt", "lt") if name in bounds]
    return draw.choice(options) if options else None


def no_such_choice(job: Job, file: Path, draw: random.Random) -> Broken:
    tree = valid_tree(job, draw)
    words = [name for name, info in leaves(job, tree).items() if get_args(info.annotation) and _is_choice(info)]
    kinds = [name for name, _ in settings(job.group) if name.endswith(".kind")]
    field, value = draw.choice(words + kinds), draw.choice(["none of these", "", "LORA", "null", "42"])
    put(tree, field, value)
    return in_file(job, file, tree, (field,), f"{field} = {value}")


def _is_choice(info: FieldInfo) -> bool:
    return all(isinstance(option, str) for option in get_args(info.annotation))


def no_such_setting(job: Job, file: Path, draw: random.Random) -> Broken:
    """A name with a letter changed, left out or doubled, in the file or on the line."""
    tree = valid_tree(job, draw)
    field = draw.choice([name for name in leaves(job, tree) if name != "rewards"])
    *path, name = field.split(".")
    place = draw.randrange(len(name))
    wrong = draw.choice([name[:place] + name[place + 1 :], name[:place] + "x" + name[place:], name + "s", name.upper()])
    wrong = wrong if wrong.strip() and ".".join([*path, wrong]) not in dict(settings(job.group)) else f"{name}_x"
    wrong_field = ".".join([*path, wrong])
    if draw.random() < 0.5:
        return Broken(job, [f"--{wrong_field}", "1", *_pairs(job)], (wrong_field,), f"--{wrong_field}")
    put(tree, wrong_field, draw.choice([1, None, "a", []]))
    return in_file(job, file, tree, (wrong_field,), wrong_field)


def of_another_kind(job: Job, file: Path, draw: random.Random) -> Broken:
    """A setting that belongs to a kind which was not chosen."""
    kinds = [
        ("timesteps", {"kind": "uniform", "gamma": 0.5}, "gamma"),
        ("timesteps", {"kind": "early", "values": [1.0]}, "values"),
        ("reference", {"kind": "fixed", "every": 3}, "every"),
        ("model", {"path": "toy-sdxl", "tuning": {"kind": "full", "rank": 8}}, "rank"),
    ]
    if job.group is RunConfig:
        kinds += [
            ("objective", {"kind": "sft", "beta": 1.0}, "beta"),
            ("objective", {"kind": "dpo", "tau": 1.0}, "tau"),
            ("pairs", {"kind": "trajectory", "draws": 2}, "draws"),
            ("pairs", {"kind": "final", "guidance": {"enabled": True}}, "guidance"),
        ]
    tree = valid_tree(job, draw)
    group, values, name = draw.choice(kinds)
    tree[group] = values
    return in_file(job, file, tree, (name,), f"{group}.{name}")


def not_together(job: Job, file: Path, draw: random.Random) -> Broken:
    """Settings that are valid one by one."""
    odd, steps = 2 * draw.randint(1, 500) + 1, draw.randint(2, 30)
    ways: list[tuple[Tree, str]] = [
        ({"rollout": {"tickets_per_iteration": odd}, "train": {"optimizer_steps": 2}}, "tickets_per_iteration"),
        ({"placement": {"train": {"num": odd + 1}}, "rollout": {"tickets_per_iteration": odd}}, "placement.train.num"),
        ({"placement": {draw.choice(["rollout", "scorer", "annotate"]): {"min": odd, "max": odd - 1}}}, "below min"),
        ({"rewards": [{"scorer": "jpeg"}], "evaluation": {"scorers": ["jpeg"]}}, "stands twice"),
        ({"rewards": [{"scorer": "stub"}, {"scorer": "stub", "weight": odd}]}, "stands twice"),
        ({"rewards": []}, "rewards"),
        ({"model": {"tuning": {"kind": "lora", "targets": []}}}, "targets"),
    ]
    if job.group is RunConfig:
        step = {"sampler": {"num_steps": steps}}
        # Of one ticket and one worker, so that only what is meant is wrong.
        plain = {"rollout": {"tickets_per_iteration": 8, "samples_per_ticket": 2}, "train": {"optimizer_steps": 1}}
        far = {"kind": "stepwise", "tuned_steps": [1, steps + odd]}
        ways += [
            (plain | step | {"pairs": far, "objective": {"kind": "dpo"}, "timesteps": {"kind": "uniform"}}, "outside"),
            (plain | {"pairs": {"kind": "stepwise", "tuned_steps": [3, 3]}}, "stands twice"),
            (plain | {"pairs": {"kind": "dataset", "path": ""}, "objective": {"kind": "dpo"}}, "pairs.path is empty"),
            (plain | {"pairs": {"kind": "stepwise"}, "objective": {"kind": "ddpo"}}, "does not train on"),
            (plain | {"pairs": {"kind": "sample"}, "objective": {"kind": "dpo"}}, "pairs.group"),
            (
                plain | {"pairs": {"kind": "stepwise"}, "timesteps": {"kind": "listed"}, "objective": {"kind": "dpo"}},
                "timesteps.kind = listed",
            ),
        ]
    else:
        ways += [({"methods": ["dpo", "dpo"]}, "stands twice"), ({"pairs": {"path": "mine.parquet"}}, "its own pairs")]
    tree = valid_tree(job, draw)
    tree["placement"]["train"]["num"] = 1
    changes, word = draw.choice(ways)
    for group, values in copy.deepcopy(changes).items():
        merges = isinstance(values, dict) and "kind" not in values
        tree[group] = merged([tree[group], values]) if merges else values
    return in_file(job, file, tree, (word,), word)


def broken_yaml(job: Job, file: Path, draw: random.Random) -> Broken:
    """A file that is no YAML, no text, or means something else than it seems to."""
    text = yaml.safe_dump(valid_tree(job, draw), sort_keys=False)
    lines = text.splitlines()
    at = draw.randrange(len(lines))
    copied = next(line for line in lines if not line.startswith((" ", "-")) and not line.endswith(":"))
    damaged: list[bytes] = [
        "\n".join([*lines[:at], "\tlr: 1", *lines[at:]]).encode(),
        "\n".join([*lines[:at], "key: [1, 2", *lines[at:]]).encode(),
        "\n".join([*lines, copied]).encode(),  # the same name twice
        text.encode()[:-1] + b"\xff\xfe",
        text.encode("utf-16"),
        text.replace("\n", "\0", 1).encode(),
        b"",
        b"# nothing\n",
        "\n".join(f"- {line}" for line in range(at)).encode(),
        (text + "iterations: !!python/object/apply:os.system ['true']\n").encode(),
        (text + "---\n" + text).encode(),
        (text + "1: 2\n").encode(),
        ("x: " + "[" * draw.randint(60, 400)).encode(),
        ("x: " + "[" * 60 + "]" * 60).encode(),
        _bomb().encode(),
        (text + "&a x: 1\n*a : 2\n*b : 3\n").encode(),
        b"train: &a {lr: *a}\n",
        bytes(draw.randrange(256) for _ in range(200)),
        ("name: " + "9" * 5000 + "\n").encode(),
        b"name: 2024-13-45\n",
        b" " * 1_000_001,
    ]
    file.write_bytes(draw.choice(damaged))
    return Broken(job, ["--config", str(file)], ("--config", "no such setting", "name ="), "broken YAML")


def _bomb() -> str:
    """Ten to the eighth values in a few lines."""
    text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for last, name in zip("abcdefg", "bcdefgh", strict=True):
        text += f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n"
    return text + "iterations: *h\n"


def wrong_line(job: Job, file: Path, draw: random.Random) -> Broken:
    """Options without a value, files that are not there, rewards that are none."""
    ways: list[tuple[list[str], str]] = [
        (["--iterations"], "--iterations"),
        (["iterations=3"], "iterations=3"),
        (["--config", str(file.with_suffix(".none"))], "--config"),
        (["--config", str(file.parent)], "--config"),
        (["--config", ""], "--config"),
        (["--reward", f"jpeg={draw.choice(['much', '1,5', '-', '1e'])}"], "--reward"),
        (["--reward", f"jpeg={draw.choice(['nan', 'inf', '-inf'])}"], "weight"),
        (["--reward", ""], "scorer"),
        (["--reward", "jpeg", "--reward", "jpeg"], "stands twice"),
        (["--model", ""], "model.path"),
        (["--name", draw.choice(["../up", "a/b", "", ".hidden", "a b", "-x", "a\n"])], "name"),
        (["--output", ""], "output"),
        (["--evaluation.scorers", "2024-13-01,,jpeg,jpeg"], "stands twice"),
        (["--pairs", "stepwise"], "--pairs"),
        (["--rewards.0.scorer", "jpeg"], "--rewards.0.scorer"),
        (["--model.resolution", str(8 * draw.randint(1, 99) + draw.randint(1, 7))], "model.resolution"),
        (["--train.betas", "0.9"], "train.betas"),
    ]
    arguments, word = draw.choice(ways)
    return Broken(job, [*arguments, *_pairs(job)], (word,), " ".join(arguments))


def missing_input(job: Job, file: Path, draw: random.Random) -> Broken:
    """Valid settings that name what is not there."""
    nowhere = str(file.with_suffix(draw.choice([".txt", ".parquet", ".none"])))
    ways: list[tuple[list[str], str]] = [
        (["--reward", draw.choice(["jpg", "pick score", "my_module:Mine", "os:path", ":"])], "rewards.scorer"),
        (["--evaluation.scorers", f"jpeg-large,{draw.choice(['clipp', 'a:b'])}"], "rewards.scorer"),
    ]
    if job.group is RunConfig and job.defaults["pairs"]["kind"] == "dataset":
        ways += [(["--pairs.path", nowhere], "pairs.path")]
    elif job.group is RunConfig:
        ways += [
            (["--prompts", draw.choice([nowhere, str(file.parent), "a" * 5000, "animal"])], "prompts.source"),
            (["--prompts.heldout", nowhere], "prompts.heldout"),
        ]
    arguments, word = draw.choice(ways)
    if "--evaluation.scorers" in arguments or word != "rewards.scorer":
        arguments += ["--reward", "stub"]  # which suits every job
    return Broken(job, [*_pairs(job), *arguments], (word,), " ".join(arguments)[:200])


def _pairs(job: Job) -> list[str]:
    """An offline job has no valid line without them."""
    return [] if job.group is not RunConfig or job.defaults["pairs"]["kind"] != "dataset" else ["--pairs.path", "x"]


Way = Callable[[Job, Path, random.Random], Broken]
WAYS: tuple[Way, ...] = (
    wrong_type,
    not_a_number,
    out_of_range,
    no_such_choice,
    no_such_setting,
    of_another_kind,
    not_together,
    broken_yaml,
    wrong_line,
    missing_input,
)
