"""Write and read checkpoints: folders `step-00000123`, written atomically with checksums.

A run resumes from the newest folder with a manifest; folders without a manifest were left by a crash and are deleted
when a run starts. If files do not match the manifest, reading raises an error rather than silently falling back to an
older checkpoint.
"""

import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unialign.errors import CheckpointError
from unialign.io import (
    atomic_directory,
    discard_leftovers,
    read_json,
    read_tensors,
    reject_pickles,
    write_json,
    write_tensors,
)

SCHEMA = 1
MANIFEST, STATE = "manifest.json", "state.json"
_FOLDER = re.compile(r"step-(\d{8,})")
_TENSOR_FILE = re.compile(r"[a-z_]+\.safetensors")


@dataclass(frozen=True)
class Snapshot:
    """State of a run: `tensors` maps group (`space`, `optimizer`, ...) -> name -> tensor, `facts` is a JSON object."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Then delete all but the newest `keep` checkpoints; on errors, delete nothing."""
    path = folder / f"step-{snapshot.step:08d}"
    try:
        if not (path / MANIFEST).exists():
            shutil.rmtree(path, ignore_errors=True)
            with atomic_directory(path) as partial:
                _write(partial, snapshot)
    except OSError as error:
        newest = newest_checkpoint(folder)
        intact = "there is no earlier checkpoint" if newest is None else f"{newest.name} is intact"
        raise CheckpointError(
            f"cannot write the checkpoint {path}: {error.strerror or error}; {intact}. "
            f"Free disk space or choose another folder, then continue with resume='auto'"
        ) from error
    for old in _complete(folder)[:-keep]:
        _remove(old)
    return path


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the complete checkpoint with the most steps, or None."""
    return next(reversed(_complete(folder)), None)


def load_checkpoint(path: Path) -> Snapshot:
    try:
        return _read(path)
    except CheckpointError as error:
        advice = f"Nothing was loaded; to continue from an earlier checkpoint, remove {path.name}"
        raise CheckpointError(f"{error}. {advice}") from None


def discard_incomplete(folder: Path) -> None:
    """A killed process leaves temporary files and checkpoints without a manifest."""
    discard_leftovers(folder)
    for entry in folder.iterdir():
        if _FOLDER.fullmatch(entry.name) and not (entry / MANIFEST).exists():
            shutil.rmtree(entry, ignore_errors=True)


def _write(folder: Path, snapshot: Snapshot) -> None:
    files = {f"{group}.safetensors": tensors for group, tensors in snapshot.tensors.items()}
    hashes = {file: write_tensors(folder / file, tensors) for file, tensors in files.items()}
    hashes[STATE] = write_json(folder / STATE, {"schema": SCHEMA, "step": snapshot.step, **snapshot.facts})
    write_json(folder / MANIFEST, {"schema": SCHEMA, "files": hashes})


def _read(path: Path) -> Snapshot:
    _check_plain_file(path, MANIFEST)
    manifest = read_json(path / MANIFEST)
    hashes = manifest.get("files")
    if manifest.get("schema") != SCHEMA or not isinstance(hashes, dict) or STATE not in hashes:
        raise CheckpointError(
            f"{path / MANIFEST} has schema {manifest.get('schema')!r}, but this version of unialign reads schema "
            f"{SCHEMA}; continue with the version that wrote the checkpoint"
        )
    files = [file for file in hashes if file != STATE]
    for file in files:
        # Do not let a forged manifest refer to files outside the folder.
        if not _TENSOR_FILE.fullmatch(file):
            raise CheckpointError(f"{path / MANIFEST} lists the file {file!r}; expected `<group>.safetensors`")
    for file in (STATE, *files):
        _check_plain_file(path, file)
    facts = read_json(path / STATE, sha256=hashes[STATE])
    tensors = {file.removesuffix(".safetensors"): read_tensors(path / file, sha256=hashes[file]) for file in files}
    step = facts.pop("step", None)
    if facts.pop("schema", None) != SCHEMA or not isinstance(step, int) or f"step-{step:08d}" != path.name:
        raise CheckpointError(f"{path / STATE} is not the state of {path.name}")
    return Snapshot(step, tensors, facts)


def _check_plain_file(path: Path, file: str) -> None:
    if (path / file).is_symlink():
        raise CheckpointError(f"{path / file} is a link, but a checkpoint must consist of regular files")
    if not (path / file).exists():
        reject_pickles(path, file)
        raise CheckpointError(f"{path / file} is missing")


def _complete(folder: Path) -> list[Path]:
    found = [file.parent for file in folder.glob(f"step-*/{MANIFEST}") if _FOLDER.fullmatch(file.parent.name)]
    return sorted(found, key=lambda entry: int(entry.name.removeprefix("step-")))


def _remove(path: Path) -> None:
    # A failure to delete an old checkpoint must not stop a run.
    with suppress(OSError):
        # Delete the manifest first: after a crash, the rest is an incomplete checkpoint, which is ignored.
        (path / MANIFEST).unlink()
        shutil.rmtree(path)
