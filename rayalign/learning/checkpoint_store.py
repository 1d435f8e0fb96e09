"""A run's checkpoints in one place: written whole or not at all, verified, and all but a few removed again.

    <root>/
      iteration-000003/   policy.safetensors, optimizer.safetensors, state.json, history.jsonl, manifest.json
      shared/             reference-<checksum>.safetensors: written when the reference changes, named by manifests

A kill at any byte leaves the checkpoint before usable: the manifest, which has size and checksum of every file, is put
last and removed first, so that without it a folder does not count; and nothing old goes before the new one is whole.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors.numpy import load_file

from rayalign.errors import CheckpointError
from rayalign.learning.checkpoint import NEEDED, REFERENCE, Arrays, Checkpoint, read_files, write_files
from rayalign.learning.checkpoint_place import Place, open_place
from rayalign.learning.manifest import MANIFEST, Manifest, Part, part_of
from rayalign.models.average import without_steps

SHARED = "shared"
_FOLDER = re.compile(r"iteration-(\d{6,})")


@dataclass(frozen=True)
class Newest:
    """The newest whole checkpoint: how many iterations it has behind it (0: there is none); what was passed over."""

    done: int = 0
    problems: list[str] = field(default_factory=list)  # a sentence for each that is newer and not whole
    damaged: bool = False  # these are more than the one that a kill cut off while it was written


class CheckpointStore:
    """`keep` counts the newest checkpoints that stay; the best by held-out measurement stays besides."""

    def __init__(self, place: Place, keep: int = 3) -> None:
        self.place, self._keep = place, keep
        self._verified: dict[int, Manifest] = {}  # by iterations done; reading gigabytes once is enough

    @classmethod
    def at(cls, uri: str, keep: int = 3) -> CheckpointStore:
        """Of a folder or URI. Raises ValueError or ImportError if nothing can open it."""
        return cls(open_place(uri), keep)

    def _all(self) -> list[int]:
        """Iterations done of every folder, whole or not, ascending."""
        found = (_FOLDER.fullmatch(name) for name in self.place.names())
        return sorted(int(match[1]) for match in found if match)

    # Writing

    def save(self, state: Checkpoint) -> Part:
        """Writes `state`, then removes what need not stay; returns where the reference is, for the next one.

        Later checkpoints go too: they are of a future that was given up. Raises CheckpointError if the place refuses.
        """
        try:
            return self._save(state)
        except OSError as error:
            fix = f"({error}); free some space, or set `checkpoints` to another folder or URI"
            raise CheckpointError(f"the checkpoint could not be written to {self.place.name} {fix}") from error

    def _save(self, state: Checkpoint) -> Part:
        folder = _folder(state.iterations_done)
        self._remove(state.iterations_done)  # cut off, or damaged: a run goes on from the newest that is whole
        parts: dict[str, Part] = {} if isinstance(state.reference, dict) else {REFERENCE: state.reference}
        with self.place.scratch() as scratch:
            for name in write_files(state, scratch):
                part = part_of(scratch / name, f"{folder}/{name}")
                if name == REFERENCE:
                    part = replace(part, path=f"{SHARED}/reference-{part.blake2b}.safetensors")
                parts[name] = part
                self.place.put(scratch / name, part.path)
            self._seal(state.iterations_done, Manifest(parts, state.held_out, state.held_out_by), scratch)
        self._tidy(state.iterations_done)
        return parts[REFERENCE]

    def _seal(self, done: int, manifest: Manifest, scratch: Path) -> None:
        (scratch / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        self.place.put(scratch / MANIFEST, f"{_folder(done)}/{MANIFEST}")
        self._verified[done] = manifest

    def copy_from(self, other: CheckpointStore, done: int) -> None:
        """One checkpoint of another store, files as they are."""
        manifest = other.manifest(done)
        with self.place.scratch() as scratch:
            for name, part in manifest.parts.items():
                with other.place.local(part.path) as file:
                    shutil.copyfile(file, scratch / name)
                self.place.put(scratch / name, part.path)
            self._seal(done, manifest, scratch)

    def discard_after(self, done: int) -> None:
        """Goes back: the checkpoint of `done` iterations becomes the newest."""
        for later in reversed(self._all()):
            if later > done:
                self._remove(later)

    def _remove(self, done: int) -> None:
        self._verified.pop(done, None)
        self.place.remove(f"{_folder(done)}/{MANIFEST}")
        self.place.remove(_folder(done))

    def _tidy(self, newest: int) -> None:
        """Removes all but the newest few and the best, then references that nobody names."""
        self.discard_after(newest)
        manifests = {done: found for done in self._all() if (found := self._readable(done)) is not None}
        kept = set(sorted(manifests)[-self._keep :]) | {done for done in (_best(manifests),) if done is not None}
        for done in self._all():
            if done not in kept:
                self._remove(done)
        named = {part.path for done in kept for part in manifests[done].parts.values()}
        for name in self.place.names(SHARED):
            if f"{SHARED}/{name}" not in named:
                self.place.remove(f"{SHARED}/{name}")

    # Reading

    def is_used(self) -> bool:
        """Whether anything was ever begun to be written here."""
        return bool(self._all())

    def newest(self) -> Newest:
        """The newest checkpoint whose every file is what was written."""
        problems: list[str] = []
        once_whole = False
        for done in reversed(self._all()):
            try:
                self.manifest(done)
            except CheckpointError as error:
                problems.append(str(error))
                once_whole = once_whole or self._readable(done) is not None
            else:
                return Newest(done, problems, once_whole or len(problems) > 1)
        return Newest(0, problems, once_whole or len(problems) > 1)

    def best(self) -> int | None:
        """Iterations done of the checkpoint with the highest held-out measurement; None if none was measured."""
        return _best({done: found for done in self._all() if (found := self._readable(done)) is not None})

    def manifest(self, done: int) -> Manifest:
        """Raises CheckpointError, saying what is wrong, unless every file of that checkpoint is what was written."""
        with self._files(done) as (manifest, _):
            return manifest

    def load(self, done: int) -> Checkpoint:
        """Raises CheckpointError if it is not whole."""
        with self._files(done, again=True) as (_, files):
            return read_files(files)

    @contextmanager
    def _files(self, done: int, again: bool = False) -> Iterator[tuple[Manifest, dict[str, Path]]]:
        """The manifest and its files by name, verified; no files of a manifest verified before, but `again`."""
        manifest, files = self._read_manifest(done), {}
        known = self._verified.get(done) == manifest
        with ExitStack() as opened:
            for name, part in manifest.parts.items() if again or not known else ():
                try:
                    files[name] = opened.enter_context(self.place.local(part.path))
                except FileNotFoundError:
                    raise self._damaged(done, f"{name} is missing") from None
                problem = None if known else part.problem(files[name])
                if problem is not None:
                    raise self._damaged(done, problem)
            self._verified[done] = manifest
            yield manifest, files

    def policy(self, done: int) -> Arrays:
        """Its policy alone. Raises as `load`."""
        with self.place.local(self.manifest(done).parts["policy.safetensors"].path) as file:
            return load_file(file)

    def ema(self, done: int) -> Arrays | None:
        """Its averaged policy; null where the run kept none. Raises as `load`."""
        part = self.manifest(done).parts.get("ema.safetensors")
        if part is None:
            return None
        with self.place.local(part.path) as file:
            return without_steps(load_file(file))

    def text(self, done: int, name: str) -> str:
        """Its state.json or history.jsonl. Raises as `load`."""
        return self.place.read(self.manifest(done).parts[name].path).decode("utf-8")

    def _readable(self, done: int) -> Manifest | None:
        try:
            return self._read_manifest(done)
        except CheckpointError:
            return None

    def _read_manifest(self, done: int) -> Manifest:
        try:
            text = self.place.read(f"{_folder(done)}/{MANIFEST}")
        except FileNotFoundError:
            raise self._damaged(done, f"{MANIFEST} is missing, so its writing was cut off") from None
        try:
            return Manifest.from_json(text, NEEDED)
        except CheckpointError as error:
            raise self._damaged(done, str(error)) from error

    def _damaged(self, done: int, problem: str) -> CheckpointError:
        return CheckpointError(f"checkpoint {self.place.name}/{_folder(done)} is damaged: {problem}")


def _folder(done: int) -> str:
    return f"iteration-{done:06d}"


def _best(manifests: dict[int, Manifest]) -> int | None:
    """The first of the highest, among those measured as the newest of them was."""
    measured = [(done, found) for done, found in sorted(manifests.items()) if found.held_out is not None]
    alike = [(found.held_out, -done) for done, found in measured if found.held_out_by == measured[-1][1].held_out_by]
    return -max(alike)[1] if alike else None  # type: ignore[type-var]
