"""Export the modalities of a space as files of ONNX or torch.export."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from unialign._checks import check_choice
from unialign._version import __version__
from unialign.config import ExportFormat
from unialign.errors import CheckpointError, ConfigError
from unialign.io import atomic_directory, checked_path, digest, write_durably
from unialign.space._evaluating import evaluating
from unialign.space._export_files import read_onnx, read_torch, write_onnx, write_torch
from unialign.space._exported import CHECKED_BATCHES, Exported, exported_encoder, exported_head
from unialign.space._validation import check_names

if TYPE_CHECKING:
    from unialign.space._space import Space

DESCRIPTION = "io.json"
# Largest difference of a coordinate of unit vectors between the space and the exported file.
_TOLERANCE = 1e-5
_Reader = Callable[[Path], Callable[..., Tensor]]
_FORMATS: dict[str, tuple[str, Callable[[Exported, Path], None], _Reader]] = {
    "onnx": (".onnx", write_onnx, read_onnx),
    "torch": (".pt2", write_torch, read_torch),
}


def export(
    space: "Space",
    path: str | os.PathLike[str],
    *,
    format: ExportFormat,
    modalities: Sequence[str] | None,
    encoders: bool,
) -> None:
    check_choice("format", format, get_args(ExportFormat))
    folder = checked_path(path, "the folder to export to", error=CheckpointError)
    names = _chosen(space, modalities, encoders=encoders)
    if folder.is_dir():
        _check_replaced(folder)
    suffix, write, read = _FORMATS[format]
    described: dict[str, Any] = {}
    try:
        with atomic_directory(folder, check_replaced=_check_replaced) as partial:
            for place, name in enumerate(names):
                exported = _exported(space, name, encoders=encoders)
                file = partial / f"{place}-{_slug(name)}{suffix}"
                with evaluating(exported.module), torch.no_grad():
                    write(exported, file)
                    difference = _difference(exported, read(file))
                if not difference <= _TOLERANCE:
                    raise CheckpointError(
                        f"the exported file of {name!r} computes embeddings that differ by {difference:.2g} from those "
                        f"of the space, more than {_TOLERANCE:g}; nothing was written"
                    )
                _sync(file)
                described[name] = _described(space, name, exported, file, difference, encoders=encoders)
            body = {
                "library": "unialign",
                "version": __version__,
                "format": format,
                "dim": space.dim,
                "checked_batches": list(CHECKED_BATCHES),
                "modalities": described,
            }
            write_durably(partial / DESCRIPTION, (json.dumps(body, indent=2) + "\n").encode("ascii"))
    except OSError as error:
        raise CheckpointError(f"cannot export to {folder}: {error.strerror or error}") from error


def _chosen(space: "Space", modalities: Sequence[str] | None, *, encoders: bool) -> list[str]:
    if isinstance(modalities, str) or not isinstance(modalities, Sequence | None):
        raise ConfigError(f"modalities must be a list of modalities, got {modalities!r}")
    names = list(dict.fromkeys(modalities if modalities is not None else space.encoders if encoders else space.dims))
    check_names(names, space.dims, "modalities")
    if encoders and (lacking := [name for name in names if name not in space.encoders]):
        raise ConfigError(
            f"the space has no encoder of {lacking[0]!r}; set one with with_encoders, or leave {lacking[0]!r} out of "
            f"modalities"
        )
    if not names:
        what = "the space has no encoders; export without encoders" if encoders else "name at least one modality"
        raise ConfigError(f"there is nothing to export: {what}")
    return names


def _exported(space: "Space", name: str, *, encoders: bool) -> Exported:
    if not encoders:
        return exported_head(space, name)
    loaded = space._loaded_encoders.get(name, space.encoders[name], torch.device("cpu"))
    return exported_encoder(space, name, loaded)


def _difference(exported: Exported, run: Callable[..., Tensor]) -> float:
    differences = [(run(*inputs) - exported.module(*inputs)).abs().max() for inputs in exported.checks]
    return max(float(difference.nan_to_num(float("inf"))) for difference in differences)


def _described(
    space: "Space", name: str, exported: Exported, file: Path, difference: float, *, encoders: bool
) -> dict[str, Any]:
    inputs = [
        {
            "name": key,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": [axes.get(axis, size) for axis, size in enumerate(tensor.shape)],
        }
        for key, tensor, axes in zip(exported.inputs, exported.example, exported.dynamic, strict=True)
    ]
    reference = space.encoders.get(name)
    preprocessing = {} if reference is None else {key: reference[key] for key in ("decoding", "prepare")}
    return {
        "file": file.name,
        "sha256": digest(file.read_bytes()),
        "inputs": inputs,
        "output": {"name": "embedding", "dtype": "float32", "shape": ["batch", space.dim], "norm": 1},
        "contains_encoder": encoders,
        "encoder": reference,
        **({"preprocessing": preprocessing} if encoders else {}),
        "largest_difference": difference,
    }


def _check_replaced(folder: Path) -> None:
    """Raise CheckpointError unless the folder is empty or holds an earlier export, which are replaced."""
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    try:
        body = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        files = {entry["file"] for entry in body["modalities"].values()} if body["library"] == "unialign" else set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        files = set()
    if other := sorted(names - files - {DESCRIPTION}) or ([] if files else [DESCRIPTION]):
        raise CheckpointError(
            f"{folder} holds {other[0]}, which is not from an earlier export; export to another folder"
        )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:64]


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
