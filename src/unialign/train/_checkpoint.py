"""Checkpoints: folders `step-00000123` that are complete or not there, and are read only if nothing in them changed.

A checkpoint is written to a hidden folder (`manifest.json`, the sha256 of every file, last), synced, then renamed. The
newest complete one counts. A folder without a manifest is the trace of a crash and is ignored; one with a manifest that
does not fit is a broken disk or a foreign hand, and is refused rather than skipped.
"""

import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unialign.errors import CheckpointError
from unialign.io import read_json, read_tensors, refuse_pickles, sync_folder, write_json, write_tensors

__all__ = ["Snapshot", "discard_partial", "load_checkpoint", "newest_checkpoint", "save_checkpoint"]

SCHEMA = 1
MANIFEST, STATE = "manifest.json", "state.json"
TENSORS = {"space": "model.safetensors", "objective": "objective.safetensors", "optimizer": "optimizer.safetensors"}
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Snapshot:
    """Everything that continuing needs; `facts` is JSON about config, data and environment."""

    step: int
    space: dict[str, Tensor]
    objective: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write a checkpoint below `folder`, then delete all but the newest `keep`.

    Raises:
        CheckpointError: the file system refuses (full, read-only); earlier checkpoints are intact.
    """
    final = folder / f"step-{snapshot.step:08d}"
    partial = folder / f".{final.name}.{secrets.token_hex(6)}.partial"
    try:
        if not (final / MANIFEST).exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(final, ignore_errors=True)
            _write(partial, snapshot)
            partial.rename(final)
            sync_folder(folder)
    except OSError as error:
        newest = newest_checkpoint(folder)
        intact = f"{newest.name} is intact" if newest is not None else "there was none before"
        raise CheckpointError(
            f"cannot write the checkpoint {final}: {error.strerror or error}; {intact}. "
            f"Make room or choose another folder, then continue with resume='auto'"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in _complete(folder)[:-keep]:
        _remove(old)
    return final


def newest_checkpoint(folder: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    complete = _complete(folder)
    return complete[-1] if complete else None


def load_checkpoint(path: Path) -> Snapshot:
    """Read a checkpoint.

    Raises:
        CheckpointError: a file is missing, altered, a link or a pickle; the message names it.
    """
    try:
        return _read(path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Nothing was loaded; to continue from an earlier checkpoint, remove {path.name}"
        ) from None


def discard_partial(folder: Path) -> None:
    """Remove what a crash left half written: hidden folders of checkpoints, hidden files."""
    for entry in folder.glob(".*.partial"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _write(partial: Path, snapshot: Snapshot) -> None:
    partial.mkdir()
    hashes = {file: write_tensors(partial / file, getattr(snapshot, part)) for part, file in TENSORS.items()}
    hashes[STATE] = write_json(partial / STATE, {"schema": SCHEMA, "step": snapshot.step, **snapshot.facts})
    write_json(partial / MANIFEST, {"schema": SCHEMA, "files": hashes})
    sync_folder(partial)


def _read(path: Path) -> Snapshot:
    for file in (MANIFEST, STATE, *TENSORS.values()):
        if (path / file).is_symlink():
            raise CheckpointError(f"{path / file} is a link; checkpoints hold plain files only")
        if not (path / file).exists():
            refuse_pickles(path, file)
            raise CheckpointError(f"{path / file} is missing")
    manifest = read_json(path / MANIFEST)
    hashes = manifest.get("files")
    if manifest.get("schema") != SCHEMA or not isinstance(hashes, dict) or set(hashes) != {STATE, *TENSORS.values()}:
        raise CheckpointError(
            f"{path / MANIFEST} has schema {manifest.get('schema')!r}; this version of unialign reads {SCHEMA}: "
            f"continue with the version that wrote it"
        )
    facts = read_json(path / STATE, sha256=hashes[STATE])
    tensors = {part: read_tensors(path / file, sha256=hashes[file]) for part, file in TENSORS.items()}
    step = facts.pop("step", None)
    if facts.pop("schema", None) != SCHEMA or not isinstance(step, int) or f"step-{step:08d}" != path.name:
        raise CheckpointError(f"{path / STATE} is not the state of {path.name}")
    return Snapshot(step=step, facts=facts, **tensors)


def _complete(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name) and (entry / MANIFEST).exists()]
    return sorted(found, key=lambda entry: int(entry.name.removeprefix("step-")))


def _remove(path: Path) -> None:
    # The manifest goes first: what a crash leaves then is ignored, not taken for an altered checkpoint.
    try:
        (path / MANIFEST).unlink()
        shutil.rmtree(path)
    except OSError:
        # An old checkpoint too many is no reason to stop a run.
        return
