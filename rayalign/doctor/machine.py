"""Room and limits of this machine: disks, shared memory, memory, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rayalign.doctor.finding import Finding, ok, problem, warning

GIB = 2**30
FEW_GIB, ENOUGH_GIB = 1, 20  # a toy run leaves 50 MB; SDXL's weights alone are 7 GB, a checkpoint of its LoRA 0.1
RAY_FULL = 0.95  # share of a disk in use at which Ray stops putting objects there
STORE_SHARE = 0.3  # of memory that Ray gives to its object store, if /dev/shm holds as much
OPEN_FILES = 65_536  # what Ray recommends; it raises the soft limit itself, as far as the hard one goes
MIN_OPEN_FILES = 8_192
MIN_MEMORY_GIB = 4  # a toy run's processes take 3 to 4


def check_output(folder: str) -> Iterator[Finding]:
    """The folder of runs, or the nearest one above it that is there."""
    path = Path(folder).expanduser().absolute()
    if path.exists() and not path.is_dir():
        yield problem("output", f"{path} is a file", "set another --output")
        return
    there = next(place for place in (path, *path.parents) if place.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there) as probe:
            probe.write(bytes(1 << 20))
            probe.flush()
    except OSError as error:
        fix = "make room or give yourself the right to write, or set another --output"
        yield problem("output", f"{there} cannot be written to ({error.strerror or error})", fix)
        return
    yield _room("output", there, "runs are written there")


def check_caches() -> Iterator[Finding]:
    """Where Ray and the hub put gigabytes."""
    yield _room("ray's disk", Path(os.environ.get("RAY_TMPDIR") or "/tmp"), "Ray spills objects there", is_rays=True)
    cache = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    there = next(place for place in (cache, *cache.parents) if place.is_dir())
    yield _room("hub's cache", there, "models are fetched there")


def _room(name: str, place: Path, what: str, is_rays: bool = False) -> Finding:
    usage = shutil.disk_usage(place)
    free = usage.free / GIB
    text = f"{place}: {free:.0f} GiB free; {what}"
    if free < FEW_GIB:
        return problem(name, text, f"free some, {ENOUGH_GIB} GiB for a real model")
    if is_rays and 1 - usage.free / usage.total > RAY_FULL:
        full = f"{place} is more than {RAY_FULL:.0%} full"
        return problem(name, full, "free some, or set RAY_TMPDIR to another disk: Ray stops spilling there")
    if free < ENOUGH_GIB:
        return warning(name, text, f"enough for toys; have {ENOUGH_GIB} GiB for a real model")
    return ok(name, text)


def check_memory() -> Iterator[Finding]:
    """Memory, and whether /dev/shm holds the object store that Ray makes of it."""
    total, free = _memory()
    text = f"{free / GIB:.0f} of {total / GIB:.0f} GiB free, {os.cpu_count()} CPUs"
    if free < MIN_MEMORY_GIB * GIB:
        yield warning("memory", text, f"a toy run takes {MIN_MEMORY_GIB} GiB; end other programs")
    else:
        yield ok("memory", text)
    shared = Path("/dev/shm")
    if not shared.is_dir():
        yield warning("/dev/shm", "is not there", "Ray puts its object store on disk, which is slow")
        return
    size, wanted = shutil.disk_usage(shared).total, STORE_SHARE * total
    text = f"{size / GIB:.1f} GiB for an object store of {wanted / GIB:.1f}"
    if size < 0.95 * wanted:
        fix = f"in a container start it with --shm-size={wanted / GIB:.0f}g: on a disk the object store is slow"
        yield warning("/dev/shm", text, fix)
    else:
        yield ok("/dev/shm", text)


def check_limits() -> Iterator[Finding]:
    """Every actor and connection takes open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else OPEN_FILES
    text = f"{soft} now, {most} at most"
    if most < MIN_OPEN_FILES:
        fix = f"raise it to {OPEN_FILES}: ulimit -Hn, or nofile in /etc/security/limits.conf; many actors need them"
        yield warning("open files", text, fix)
    else:
        yield ok("open files", text)


def _memory() -> tuple[int, int]:
    """(total, free) bytes, those of this container where it has a limit."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(facts[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, int(text)), min(free, int(text) - used)
    return total, free
