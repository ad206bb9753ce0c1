"""Save and load a bridge."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign._version import __version__
from unialign.errors import CheckpointError
from unialign.io import (
    BRIDGE_FILES,
    STAGING,
    checked_path,
    is_interrupted,
    read_json,
    read_tensors,
    reject_links_out,
    reject_pickles,
    staged_files,
    write_json,
    write_tensors,
)
from unialign.migration._maps import METHODS, Map

SCHEMA = 1
TENSORS, SETTINGS = BRIDGE_FILES["weights"], BRIDGE_FILES["config"]
_PAIRS = "pairs"


def write_bridge(
    directory: str | os.PathLike[str], found: Map, pairs_n: NDArray[np.int64], body: Mapping[str, Any]
) -> None:
    """Write the files of a bridge; after a crash, either the old or the new bridge is complete."""
    folder = checked_path(directory, "the folder to save in", error=CheckpointError)
    tensors = {key: torch.from_numpy(np.array(value, np.float64)).float() for key, value in found.tensors.items()}
    with staged_files("bridge", folder, **BRIDGE_FILES) as staging:
        sha256 = write_tensors(staging / TENSORS, tensors | {_PAIRS: torch.from_numpy(pairs_n.copy())})
        settings = {"method": found.method, "dims": list(found.dims), "settings": dict(found.settings)}
        head = {"schema": SCHEMA, "library": "unialign", "version": __version__, "tensors": sha256}
        write_json(staging / SETTINGS, head | {"map": settings} | dict(body))


def read_bridge(directory: str | os.PathLike[str]) -> tuple[Map, NDArray[np.int64], dict[str, Any]]:
    folder = checked_path(directory, "the folder of the bridge", error=CheckpointError)
    path = folder / STAGING / SETTINGS if is_interrupted(folder, **BRIDGE_FILES) else folder / SETTINGS
    if not path.is_file():
        if folder.is_dir():
            reject_pickles(folder, TENSORS)
        raise CheckpointError(f"{folder} is not a saved bridge: it has no {SETTINGS}")
    for file in (path, folder / TENSORS):
        reject_links_out(file, folder, error=CheckpointError)
    body = read_json(path)
    if body.get("library") != "unialign" or body.get("schema") != SCHEMA or not isinstance(body.get("tensors"), str):
        raise CheckpointError(f"{path} does not describe a bridge of schema {SCHEMA}; save the bridge again")
    tensors = read_tensors(folder / TENSORS, sha256=body["tensors"])
    arrays = {key: np.asarray(tensor.double().numpy()) for key, tensor in tensors.items() if key != _PAIRS}
    try:
        described = body["map"]
        dims = (int(described["dims"][0]), int(described["dims"][1]))
        settings = {str(key): float(value) for key, value in described["settings"].items()}
        found = Map(str(described["method"]), arrays, settings, dims)
        pairs_n = tensors[_PAIRS].numpy().astype(np.int64)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise CheckpointError(f"{path} does not describe a bridge ({type(error).__name__}: {error})") from None
    _check_map(found, path)
    return found, pairs_n, {key: value for key, value in body.items() if key not in ("map", "tensors")}


def _check_map(found: Map, path: Path) -> None:
    old, new = found.dims
    expected: dict[str, tuple[int, ...]] = {}
    if found.method == "kernel" and "centers" in found.tensors:
        count = len(found.tensors["centers"])
        expected = {"mean_new": (new,), "centers": (count, old), "coefficients": (count, new), "offset": (new,)}
    elif found.method != "identity":
        expected = {"mean_old": (old,), "mean_new": (new,), "weight": (old, new)}
    shapes = {key: value.shape for key, value in found.tensors.items()}
    others = {"identity": (), "scaled_ridge": (), "kernel": ("length", "bandwidth", "median")}
    needed = others.get(found.method, ("length",))
    if found.method not in METHODS or shapes != expected or any(key not in found.settings for key in needed):
        raise CheckpointError(f"{path} describes the map {found.method!r} with tensors {shapes}, expected {expected}")
    numbers = [*found.settings.values(), *(float(np.abs(value).max(initial=0)) for value in found.tensors.values())]
    if not all(math.isfinite(number) for number in numbers):
        raise CheckpointError(f"{path}: the map holds values that are not finite; save the bridge again")
