"""manifest.json of a checkpoint: which files it has, where, and what was written into them. Without one it has none."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rayalign.errors import CheckpointError

MANIFEST = "manifest.json"
_PLAIN, _WITHIN = re.compile(r"\w[\w.-]*"), re.compile(r"\w[\w.-]*/\w[\w.-]*")
CHUNK = 1 << 20  # bytes read at once: a whole model's file is gigabytes


@dataclass(frozen=True)
class Part:
    """One file: its path from the store's root, size in bytes, and checksum."""

    path: str
    bytes: int
    blake2b: str

    def problem(self, file: Path) -> str | None:
        """What is wrong with `file` as this part, None if nothing."""
        if self == part_of(file, self.path):
            return None
        return f"{Path(self.path).name} is not what was written (size or checksum)"


@dataclass(frozen=True)
class Manifest:
    parts: dict[str, Part]  # by name: policy.safetensors, ...
    held_out: float | None = None  # the held-out measurement by which the best checkpoint is kept
    held_out_by: str = ""  # what was measured: two of other scorers or prompts do not compare

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: bytes, needed: frozenset[str]) -> Manifest:
        """Raises CheckpointError unless it is one and names all of `needed`."""
        try:
            tree = json.loads(text)
            parts = {str(name): Part(**part) for name, part in tree["parts"].items()}
            measured = tree["held_out"], str(tree["held_out_by"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{MANIFEST} is not one ({type(error).__name__}: {error})") from error
        # It may come from elsewhere, and files are written by what it says.
        if not all(_PLAIN.fullmatch(name) and _WITHIN.fullmatch(part.path) for name, part in parts.items()):
            raise CheckpointError(f"{MANIFEST} names files outside the checkpoints")
        if not parts.keys() >= needed:
            raise CheckpointError(f"{MANIFEST} does not name all of {sorted(needed)}")
        return cls(parts, *measured)


def part_of(file: Path, path: str) -> Part:
    """The part that `file` is, stored as `path`."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Part(path, size, digest.hexdigest())
