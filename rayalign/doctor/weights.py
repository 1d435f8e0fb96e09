"""The toys that ship with the package, and the scorers' weights and environments."""

from __future__ import annotations

import json
from collections.abc import Iterator

from rayalign.doctor.finding import Finding, ok, problem, warning
from rayalign.errors import ConfigError
from rayalign.toy import TOY_MODELS, toy_path
from rayalign.weight_files import weights_problem


def check_toys() -> Iterator[Finding]:
    """Whole as far as headers and small files say: a clone without Git's large files has pointers in their place."""
    damaged = []
    for toy in TOY_MODELS:
        folder = toy_path(toy)
        files = sorted(folder.rglob("*.safetensors"))
        if not files:
            damaged.append(f"{folder} holds no weights")
        damaged += [f"{toy}: {said}" for file in files if (said := weights_problem(file))]
        damaged += [f"{toy}: {said}" for said in _small_files(toy)]
    if damaged:
        yield problem("toy models", "; ".join(damaged[:3]), "install the package again, from a whole clone")
    else:
        yield ok("toy models", f"{', '.join(TOY_MODELS)} are whole")


def _small_files(toy: str) -> list[str]:
    from rayalign.models.families import find_family, read_index
    from rayalign.models.folder_check import check_folder

    try:
        for file in toy_path(toy).rglob("*.json"):
            json.loads(file.read_text(encoding="utf-8"))
        if (toy_path(toy) / "model_index.json").is_file():
            check_folder(toy_path(toy), find_family(toy), read_index(toy))
        elif toy != "toy-clip":
            return ["no model_index.json"]
    except (OSError, ValueError, ConfigError) as error:
        return [str(error)]
    return []


def check_scorers() -> Iterator[Finding]:
    """What a run with each scorer would still have to fetch or to install."""
    from rayalign.rewards.environments import ENVIRONMENTS, is_installed
    from rayalign.rewards.table import SCORERS
    from rayalign.rewards.weights import is_present

    ready = [name for name, facts in SCORERS.items() if all(map(is_present, facts.weights))]
    fetched = [name for name in SCORERS if name not in ready]
    later = f"; fetched at the first run with them: {', '.join(fetched)}" if fetched else ""
    yield ok("scorers", f"{', '.join(ready)} are ready{later}")
    for name in ENVIRONMENTS:
        if is_installed(name):
            yield ok(f"environment of {name}", "is installed")
        else:
            fix = f"only runs with it need one: rayalign scorers install {name}"
            yield warning(f"environment of {name}", "is not installed", fix)
