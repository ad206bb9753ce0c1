"""Save and load models as folders of `config.json`, `model.safetensors` and `README.md`.

The folder may contain user files, so it is not replaced as a whole. New files are written to the subfolder `.saving`;
then the weights are moved into the folder, and then the configuration. After a crash between the two moves, the
configuration of the new weights is read from `.saving`.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unialign._version import __version__
from unialign.errors import CheckpointError, ConfigError
from unialign.io._atomic import commit_files
from unialign.io._card import updated_card
from unialign.io._checksummed import read_tensors, write_tensors
from unialign.io._files import checked_path, digest, open_regular, reject_links_out, sync_folder, write_durably
from unialign.io._hub import local_folder
from unialign.io._json import canonical_json
from unialign.io._json_files import read_json, reject_pickles, write_json
from unialign.io._lock import wait_for_folder

M = TypeVar("M", bound=nn.Module)

SCHEMA = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
STAGING = ".saving"
_COMMON = {"schema", "library", "version", "metadata", "weights"}
# Names of the files of a bridge, and the entry of its configuration with the sha256 of the weights.
BRIDGE_FILES = {"weights": "bridge.safetensors", "config": "bridge.json", "key": "tensors"}


def save_folder(
    kind: str,
    directory: str | os.PathLike[str],
    *,
    settings: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    card: str,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model into a folder; replace a previously saved model, but keep other files.

    `kind` is also the key of the settings in `config.json`. The names of `files` must depend on their contents, since
    the previous model may have files of the same names.
    """
    folder = checked_path(directory, "the folder to save in", error=CheckpointError)
    with staged_files(kind, folder) as staging:
        for name, content in (files or {}).items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            write_durably(staging / name, content)
        weights = write_tensors(staging / WEIGHTS, tensors)
        body = {
            "schema": SCHEMA,
            "library": "unialign",
            "version": __version__,
            kind: dict(settings),
            "metadata": dict(metadata),
            "weights": weights,
        }
        write_json(staging / CONFIG, body)
        if (text := _new_card(folder / CARD, card)) is not None:
            write_durably(staging / CARD, text.encode("utf-8", errors="replace"))


@contextmanager
def staged_files(
    kind: str, folder: Path, *, weights: str = WEIGHTS, config: str = CONFIG, key: str = "weights"
) -> Iterator[Path]:
    """Yield an empty staging folder, and then move its files to `folder`: first the weights, then the configuration."""
    staging = folder / STAGING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with wait_for_folder(folder):
            _reject_other_kinds(kind, folder)
            _finish_interrupted(folder, weights=weights, config=config, key=key)
            try:
                staging.mkdir()
                yield staging
                sync_folder(staging)
                commit_files(staging, folder, last=(weights, config, CARD))
            finally:
                # `.saving` may contain the only configuration that matches the weights.
                if not is_interrupted(folder, weights=weights, config=config, key=key):
                    shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"cannot save the {kind} in {folder}: {error.strerror or error}; existing files are intact"
        ) from error


def load_folder(
    kind: str,
    source: str | os.PathLike[str],
    build: Callable[[dict[str, Any], dict[str, Any]], M],
    *,
    revision: str | None = None,
) -> M:
    """Load a model from a folder. `build` is called on the meta device, so it allocates no memory and draws no random
    numbers.
    """
    folder = local_folder(source, f"a saved {kind}", revision=revision, allow_patterns=[CONFIG, WEIGHTS])
    config = _find_config(kind, folder)
    for file in (config, folder / WEIGHTS):
        reject_links_out(file, folder, error=CheckpointError)
    body = read_json(config)
    _check_body(kind, body, config)
    tensors = read_tensors(folder / WEIGHTS, sha256=body["weights"])
    try:
        with torch.device("meta"):
            model = build(body[kind], body["metadata"])
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{config} does not describe a {kind}: {error}") from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        name = min(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise CheckpointError(
            f"{name} has shape {found.get(name)} in {folder / WEIGHTS}, but {expected.get(name)} in {CONFIG}; "
            f"the two files belong to different models"
        )
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise CheckpointError(f"{folder / WEIGHTS} contains weights that are not floating-point numbers")
    model.load_state_dict(tensors, assign=True)
    return model.eval()


def _new_card(path: Path, card: str) -> str | None:
    if not os.path.lexists(path):
        return card
    try:
        with open_regular(path) as file:
            existing = file.read().decode("utf-8")
    except (OSError, UnicodeDecodeError):  # not a card of this library
        return None
    text = updated_card(existing, card)
    return None if text == existing else text


def check_json_object(kind: str, metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, dict):
        raise ConfigError(f"metadata of a {kind} must be a JSON object, got {metadata!r}")
    try:
        found: dict[str, Any] = json.loads(canonical_json(metadata, sort_keys=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"metadata of a {kind} must be a JSON object: {error}") from None
    return found


def _find_config(kind: str, folder: Path) -> Path:
    if is_interrupted(folder):
        return folder / STAGING / CONFIG
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).exists():
            reject_pickles(folder, WEIGHTS)
            raise CheckpointError(f"{folder} is not a saved {kind}: it has no {name}")
    return folder / CONFIG


def is_interrupted(folder: Path, *, weights: str = WEIGHTS, config: str = CONFIG, key: str = "weights") -> bool:
    """Return whether a save was interrupted after the weights were moved. `key` is the entry of the configuration with
    the sha256 of the weights.
    """
    pending = folder / STAGING / config
    if not pending.is_file() or (folder / STAGING / weights).exists() or not (folder / weights).is_file():
        return False
    try:
        return read_json(pending).get(key) == digest((folder / weights).read_bytes())
    except CheckpointError:
        return False


def _finish_interrupted(folder: Path, *, weights: str = WEIGHTS, config: str = CONFIG, key: str = "weights") -> None:
    """Move a configuration that remained in the staging folder after a crash."""
    if is_interrupted(folder, weights=weights, config=config, key=key):
        os.replace(folder / STAGING / config, folder / config)
        sync_folder(folder)
    shutil.rmtree(folder / STAGING, ignore_errors=True)


def _reject_other_kinds(kind: str, folder: Path) -> None:
    body = _readable(folder)
    held = set(body) - _COMMON if body.get("library") == "unialign" else set()
    if _readable(folder, **BRIDGE_FILES).get("library") == "unialign":
        held.add("bridge")
    if others := sorted(held - {kind}):
        raise CheckpointError(
            f"{folder} holds a {others[0]}, which is not overwritten; save the {kind} in another folder"
        )


def _readable(folder: Path, *, weights: str = WEIGHTS, config: str = CONFIG, key: str = "weights") -> dict[str, Any]:
    pending = is_interrupted(folder, weights=weights, config=config, key=key)
    path = folder / STAGING / config if pending else folder / config
    try:
        return read_json(path) if path.is_file() else {}
    except CheckpointError:
        return {}


def _check_body(kind: str, body: dict[str, Any], config: Path) -> None:
    if body.get("library") != "unialign" or body.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{config} has library {body.get('library')!r} and schema {body.get('schema')!r}, but this version of "
            f"unialign reads library 'unialign' and schema {SCHEMA}; update unialign, or save the {kind} again"
        )
    if odd := sorted(set(body) ^ (_COMMON | {kind})):
        raise CheckpointError(f"{config} has unknown or missing entries: {', '.join(odd)}")
    if not (isinstance(body[kind], dict) and isinstance(body["metadata"], dict) and isinstance(body["weights"], str)):
        raise CheckpointError(f"{config} does not describe a {kind}: an entry has the wrong type")
