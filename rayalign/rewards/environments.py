"""Environments of their own for scorers whose packages cannot be installed beside ours.

    main environment: ray, torch, numpy, rayalign, transformers 5, timm 1, ...
            ^ seen through a .pth file, after the environment's own packages
    environment of a scorer: transformers 4, timm 0.6, ...

So the scorer runs with the main environment's Ray, torch and code, and only what clashes is installed a second time:
megabytes and seconds, where a second torch would be gigabytes and minutes. Ray starts the scorer's replicas with that
interpreter (`runtime_env`); the process that asks for scores never imports the scorer's package.

Every node that may run a replica needs the environment in the same place: install it into the nodes' image, or set
RAYALIGN_CACHE to a folder that they share.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import site
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rayalign.errors import ConfigError, RayalignError

Say = Callable[[str], object]  # takes one line for a person

SHARED = ("ray", "torch")  # an environment made beside other versions of these is made anew
IMAGE = "image:"  # how a container image is told from a path
DONE = "installed.json"  # written last: without it a folder does not count
PROBE_S = 120.0  # to start an interpreter and ask it for its versions
NUM_ERROR_LINES = 8


@dataclass(frozen=True)
class Recipe:
    """What an environment holds. `check` is run in it at the end: what cannot do that is not installed."""

    requirements: tuple[str, ...]  # exact, with all that clashes: dependencies are not followed
    check: str  # Python code
    cost: str  # disk and time, for the person who waits


ENVIRONMENTS: dict[str, Recipe] = {
    "imagereward": Recipe(
        requirements=(
            "image-reward==1.5",  # imports the next two as they were in 2023
            "timm==0.6.13",
            "fairscale==0.4.13",
            "transformers==4.49.0",  # 5 lacks what image-reward imports
            "tokenizers==0.21.4",  # these two as that transformers wants them
            "huggingface-hub==0.36.0",
        ),
        check="from rayalign.rewards.imagereward import import_package; import_package()",
        cost="130 MB, some 20 s on a quick network",
    ),
}


def install(name: str, say: Say = print) -> Path:
    """The folder of scorer `name`'s environment, made if it is not there yet.

    One process makes it while others wait. It counts once all is in place and was tried; a killed attempt is made anew.

    Args:
        name: scorer with an entry in `ENVIRONMENTS`.
        say: told what is installed, where, and how long it took.

    Raises:
        ConfigError: no such environment.
        RayalignError: it could not be made; says what to do.
    """
    recipe = _recipe(name)
    folder = folder_of(name)
    if is_installed(name):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, say):
            if not is_installed(name):  # another process may have made it meanwhile
                _make(name, recipe, folder, say)
    except OSError as error:
        fix = "set RAYALIGN_CACHE to a folder with room that you may write to"
        raise RayalignError(f"environment of {name} in {folder}: {error}; {fix}") from error
    return folder


def is_installed(name: str) -> bool:
    """Whether `install` has nothing to do."""
    return (folder_of(name) / DONE).exists()


def folder_of(name: str) -> Path:
    """Where the environment belongs: named by all that it was made from, so that an old one is never taken."""
    made_from = [_recipe(name).requirements, sys.version, sys.prefix, *(version(package) for package in SHARED)]
    fingerprint = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:12]
    return cache_folder() / "environments" / f"{name}-{fingerprint}"


def cache_folder() -> Path:
    """RAYALIGN_CACHE, else the user's usual cache. Nodes of a cluster share it, or each has its own."""
    if own := os.environ.get("RAYALIGN_CACHE"):
        return Path(own).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rayalign"


def python_of(name: str, say: Say = print) -> Path:
    """The interpreter of scorer `name`'s environment, installed first where needed. Raises what `install` does."""
    return _python_in(install(name, say))


def variable_of(name: str) -> str:
    """The environment variable by which a user names an environment of their own: RAYALIGN_ENV_IMAGEREWARD."""
    return "RAYALIGN_ENV_" + "".join(letter if letter.isalnum() else "_" for letter in name).upper()


def runtime_env_of(name: str, own: str | None = None, say: Say = print) -> dict[str, str]:
    """Ray's `runtime_env` for scorer `name`; empty for one that runs beside everything else.

    Args:
        name: any scorer.
        own: the user's environment: its folder, its interpreter, or `image:registry/name:tag` for a container; where
            null, what the variable `variable_of(name)` says. Nothing is installed then.
        say: as in `install`.

    Raises:
        ConfigError: the user's environment cannot run a replica.
        RayalignError: as `install`.
    """
    variable = variable_of(name)
    own, field = (own, f"environment of {name}") if own else (os.environ.get(variable), variable)
    if own and own.startswith(IMAGE):
        return {"image_uri": own.removeprefix(IMAGE)}
    if own:
        python = _users_python(own, field)
    elif name in ENVIRONMENTS:
        python = python_of(name, say)
    else:
        return {}
    return {"py_executable": shlex.quote(str(python))}  # Ray hands it to a shell


def _recipe(name: str) -> Recipe:
    if name not in ENVIRONMENTS:
        known = ", ".join(ENVIRONMENTS)
        raise ConfigError("scorer", name, f"has no environment to install; those that have one: {known}")
    return ENVIRONMENTS[name]


def _make(name: str, recipe: Recipe, folder: Path, say: Say) -> None:
    start = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
    say(f"installing {name}'s own environment, once: {', '.join(recipe.requirements)} ({recipe.cost}) in {folder}")
    venv.EnvBuilder(with_pip=not _has_pip(), symlinks=True).create(folder)
    python = _python_in(folder)
    pip = (sys.executable, "-m", "pip", "--python", python) if _has_pip() else (python, "-m", "pip")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps")
    _run(name, "is the package index reachable?", *pip, "install", *options, *recipe.requirements)
    # After pip, which would take what it sees of the main environment for its own.
    own_packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (own_packages / "main_environment.pth").write_text(
        "".join(f"import site; site.addsitedir({str(path)!r})\n" for path in _main_packages())
    )
    _run(name, "something on PYTHONPATH may hide them", python, "-c", _VERSIONS, *recipe.requirements)
    _run(name, f"they do not go with Python {sys.version.split()[0]} and {_shared()}", python, "-c", recipe.check)
    seconds = round(time.monotonic() - start, 1)
    done = {"requirements": recipe.requirements, "python": sys.version, "beside": _shared(), "seconds": seconds}
    (folder / "partial.json").write_text(json.dumps(done, indent=2))
    (folder / "partial.json").replace(folder / DONE)
    say(f"{name}'s environment is ready after {seconds:.0f} s; later starts take it from {folder}")


# Run in a new environment with the exact requirements as arguments: is what Python finds what was installed?
_VERSIONS = """
import sys
from importlib.metadata import version
for requirement in sys.argv[1:]:
    package, _, wanted = requirement.partition("==")
    if wanted and version(package) != wanted:
        sys.exit(f"{package} {version(package)} is found before {wanted}")
"""

# Run in an environment that the user named: its Python and Ray, and whether it has rayalign.
_FACTS = """
import importlib.metadata, importlib.util, json, sys
try:
    ray = importlib.metadata.version("ray")
except importlib.metadata.PackageNotFoundError:
    ray = None
print(json.dumps([list(sys.version_info[:2]), ray, importlib.util.find_spec("rayalign") is not None]))
"""


def _run(name: str, hint: str, *command: str | Path) -> None:
    """Raises RayalignError with the last lines of what was said."""
    # NVIDIA's images set this to keep the versions of the main environment; it would refuse those wanted here.
    variables = {key: value for key, value in os.environ.items() if key != "PIP_CONSTRAINT"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=variables)
    if done.returncode != 0:
        said = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-NUM_ERROR_LINES:])
        raise RayalignError(
            f"installing {name}'s environment failed ({hint}):\n  {said}\n"
            f"Try again with `rayalign scorers install {name}`, or name an environment or container of your own "
            f"that has its packages: {variable_of(name)}=/path/to/environment or {IMAGE}registry/name:tag"
        )


def _users_python(own: str, field: str) -> Path:
    """The interpreter, if Ray can start a replica with it.

    Raises:
        ConfigError: not an interpreter, or one with another Python or Ray than this, or without rayalign.
    """
    path = Path(own).expanduser().absolute()
    python = _python_in(path) if path.is_dir() else path
    try:
        said = subprocess.run([str(python), "-c", _FACTS], capture_output=True, text=True, check=True, timeout=PROBE_S)
        python_version, ray, has_rayalign = json.loads(said.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        fix = f"name an environment's folder, its interpreter, or {IMAGE}registry/name:tag"
        raise ConfigError(field, own, f"no Python could be started there ({error}); {fix}") from error
    if python_version != list(sys.version_info[:2]) or ray != version("ray"):
        theirs = f"Python {'.'.join(map(str, python_version))} and Ray {ray or 'missing'}"
        ours = f"Python {sys.version_info[0]}.{sys.version_info[1]} and Ray {version('ray')}"
        raise ConfigError(field, own, f"has {theirs}; a replica needs those that run here: {ours}")
    if not has_rayalign:
        raise ConfigError(field, own, "does not find rayalign; install it there without its dependencies")
    return python


def _python_in(folder: Path) -> Path:
    return folder / "bin" / "python"


def _has_pip() -> bool:
    """An environment made by uv has none; the new one then gets its own, for 20 MB and 3 s."""
    return importlib.util.find_spec("pip") is not None


def _main_packages() -> list[Path]:
    """Where this interpreter finds installed packages."""
    own = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return [Path(path) for path in own if Path(path).is_dir()]


def _shared() -> str:
    return ", ".join(f"{package} {version(package)}" for package in SHARED)


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Only one process at a time; a killed one lets go."""
    with (folder.parent / f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process installs into {folder}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
