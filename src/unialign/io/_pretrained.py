"""A model as a folder: `config.json` (sealed, names the weights by their sha256), `model.safetensors`, `README.md`.

Saving over an older model goes through a folder `.saving` inside: weights are renamed into place first, then the
configuration. If a crash falls between the two, the reader finds the configuration that belongs to the new weights in
`.saving`; at every other moment the folder holds one complete model, the old or the new.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unialign._version import __version__
from unialign.errors import CheckpointError, ConfigError
from unialign.io._atomic import commit_files
from unialign.io._checksummed import read_json, read_tensors, refuse_pickles, write_json, write_tensors
from unialign.io._files import checked_path, digest, sync_folder, write_durably
from unialign.io._hub import local_folder
from unialign.io._json import canonical_json

__all__ = ["json_object", "load_folder", "save_folder"]

M = TypeVar("M", bound=nn.Module)

SCHEMA = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_SAVING = ".saving"
_COMMON = {"schema", "library", "version", "metadata", "weights"}


def save_folder(
    kind: str,
    directory: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    card: str,
) -> None:
    """Write a model of a kind (`space`, `decoder`), which is also the entry of `config.json` that holds its settings.

    Raises:
        CheckpointError: the file system refuses; what was there before is intact.
    """
    folder = checked_path(directory, "the folder to save in", error=CheckpointError)
    saving = folder / _SAVING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _finish_interrupted(folder)
        saving.mkdir()
        weights = write_tensors(saving / WEIGHTS, dict(tensors))
        body = {
            "schema": SCHEMA,
            "library": "unialign",
            "version": __version__,
            kind: dict(settings),
            "metadata": dict(metadata),
            "weights": weights,
        }
        write_json(saving / CONFIG, body)
        if not (folder / CARD).exists():
            write_durably(saving / CARD, card.encode("utf-8", errors="replace"))
        sync_folder(saving)
        commit_files(saving, folder, last=(WEIGHTS, CONFIG, CARD))
    except OSError as error:
        raise CheckpointError(
            f"cannot save the {kind} in {folder}: {error.strerror or error}; nothing there was damaged"
        ) from error
    finally:
        # Unless the only configuration of the weights in place is in it.
        if not _is_torn(folder):
            shutil.rmtree(saving, ignore_errors=True)


def load_folder(
    kind: str,
    source: str | os.PathLike[str],
    build: Callable[[dict[str, Any], dict[str, Any]], M],
    *,
    check: Callable[[Any], bool],
    revision: str | None = None,
) -> M:
    """Read a model of a kind, in eval mode.

    Args:
        kind: as in `save_folder`.
        source: the folder, or a hub id.
        build: (settings, metadata) -> the model without its weights. It runs on the meta device: nothing is allocated
            and no random number drawn, however large the file says it is.
        check: whether the settings are of the right types.

    Raises:
        CheckpointError: nothing there, another version, a pickle, or a file that is truncated or altered.
        MissingDependencyError: `source` is no folder and `huggingface_hub` is not installed.
    """
    folder = local_folder(source, f"a saved {kind}", revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    config = _pick_config(kind, folder)
    for file in (config, folder / WEIGHTS):
        _refuse_links_out(file, folder)
    body = read_json(config)
    _check_body(kind, body, config, check)
    tensors = read_tensors(folder / WEIGHTS, sha256=body["weights"])
    try:
        with torch.device("meta"):
            model = build(body[kind], body["metadata"])
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{config} does not describe a {kind}: {error}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        name = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))[0]
        raise CheckpointError(
            f"{folder / WEIGHTS} holds {name} as {found.get(name)}, {CONFIG} says {expected.get(name)}; "
            f"the two files do not belong together"
        )
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise CheckpointError(f"{folder / WEIGHTS} holds weights that are not floating numbers")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _pick_config(kind: str, folder: Path) -> Path:
    if _is_torn(folder):
        return folder / _SAVING / CONFIG
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).exists():
            refuse_pickles(folder, WEIGHTS)
            raise CheckpointError(f"{folder} is not a saved {kind}: it has no {name}")
    return folder / CONFIG


def _refuse_links_out(file: Path, folder: Path) -> None:
    """Refuse a file that lies elsewhere, as the hub's cache may have it: `snapshots/NAME/file` -> `blobs/HASH`."""
    try:
        root, place = folder.resolve(strict=True), file.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
    if not place.is_relative_to(root) and place.parent != blobs:
        raise CheckpointError(f"{file} is a link out of the folder, which is refused; copy the file into it")


def _is_torn(folder: Path) -> bool:
    """Whether a crash put new weights in place but not yet the configuration that belongs to them."""
    pending = folder / _SAVING / CONFIG
    if not pending.is_file() or (folder / _SAVING / WEIGHTS).exists() or not (folder / WEIGHTS).is_file():
        return False
    try:
        return read_json(pending).get("weights") == digest((folder / WEIGHTS).read_bytes())
    except CheckpointError:
        return False


def _finish_interrupted(folder: Path) -> None:
    if _is_torn(folder):
        os.replace(folder / _SAVING / CONFIG, folder / CONFIG)
        sync_folder(folder)
    shutil.rmtree(folder / _SAVING, ignore_errors=True)


def _check_body(kind: str, body: dict[str, Any], config: Path, check: Callable[[Any], bool]) -> None:
    if body.get("library") != "unialign" or body.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{config} is of {body.get('library')!r} with schema {body.get('schema')!r}; this version of unialign "
            f"reads its own schema {SCHEMA}: update unialign, or save the {kind} again"
        )
    if odd := sorted(set(body) ^ (_COMMON | {kind})):
        raise CheckpointError(f"{config} has unknown or missing entries: {', '.join(odd)}")
    if not (check(body[kind]) and isinstance(body["metadata"], dict) and isinstance(body["weights"], str)):
        raise CheckpointError(f"{config} does not describe a {kind}: an entry has the wrong type")


def json_object(kind: str, metadata: Any) -> dict[str, Any]:
    """Metadata as they will be read back; ConfigError for what JSON cannot hold."""
    if not isinstance(metadata, dict):
        raise ConfigError(f"metadata of a {kind} must be a JSON object, got {metadata!r}")
    try:
        found: dict[str, Any] = json.loads(canonical_json(metadata, sort_keys=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"metadata of a {kind} must be a JSON object: {error}") from None
    return found
