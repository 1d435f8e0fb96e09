"""Python, packages against the ranges that this package asks for, torch's build and the GPUs it sees."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterator

from rayalign import __version__
from rayalign.doctor.finding import Finding, ok, problem, warning

PACKAGE = "rayalign"
QUERY_S = 5.0


def check_packages() -> Iterator[Finding]:
    """Against the metadata of the installed package, which is pyproject.toml's."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        metadata = importlib.metadata.metadata(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        yield problem("rayalign", f"{__version__} is not installed, only found", "pip install -e . in its folder")
        return
    yield ok("rayalign", f"{__version__}, Python {platform.python_version()} on {platform.system()}")
    wanted = SpecifierSet(metadata["Requires-Python"] or "")
    if platform.python_version() not in wanted:
        fix = f"make an environment with Python {wanted}"
        yield problem("python", f"{platform.python_version()} is outside {wanted}", fix)
    right = []
    for line in metadata.get_all("Requires-Dist") or []:
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            yield problem(needed.name, "is not installed", f"pip install '{needed.name}{needed.specifier}'")
            continue
        if not needed.specifier.contains(found, prereleases=True):
            text = f"{found} is outside {needed.specifier}"
            yield problem(needed.name, text, f"pip install '{needed.name}{needed.specifier}'")
        else:
            right.append(f"{needed.name} {found}")
    yield ok("packages", ", ".join(right))


def check_torch() -> Iterator[Finding]:
    """torch itself, and whether it sees the GPUs that the driver sees."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield ok("torch", f"{torch.__version__}, built for {build}")
    driver = _driver()
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            text = f"{number}: {facts.name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
            yield ok("gpu", f"{text}, driver {driver[0] if driver else 'unknown'}")
    elif driver:
        fix = "install the torch build for this driver (pytorch.org/get-started), or a newer driver"
        yield problem("gpu", f"the driver ({driver[0]}) sees {len(driver)}, torch none", fix)
    else:
        yield warning("gpu", "none here", "toys run on CPUs; for SD 1.5, SDXL or SD 3 join a cluster with GPUs")


def _driver() -> list[str]:
    """The NVIDIA driver's version, once for each GPU; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_S)
    except (OSError, subprocess.SubprocessError):
        return []
    return said.stdout.split() if said.returncode == 0 else []
