"""Validate the inputs of measurements: embeddings in float64, and two sets of rows in the same space.

Shapes: `M` modalities, `N` rows, `D` dimension.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from unialign.batch import Batch, as_tensors, make_batch
from unialign.errors import ShapeError
from unialign.ops import unit_rows


def double_batch(embeddings: Mapping[str, Any], present: Mapping[str, Any] | None = None, *, minimum: int = 2) -> Batch:
    """Use float64, since measurements are differences of nearly equal numbers."""
    found = as_tensors(embeddings)
    embeddings_64 = {name: _double(z) for name, z in found.items()} if isinstance(found, Mapping) else found
    return make_batch(embeddings_64, present=present, minimum=minimum)


def present_rows(batch: Batch, what: str, *, least: int = 1) -> tuple[list[Tensor], list[Tensor]]:
    items = [present_B.nonzero().flatten() for present_B in batch.present_MB]
    for name, index in zip(batch.names, items, strict=True):
        if len(index) < least:
            wanted = "a present row" if least == 1 else f"{least} present rows"
            raise ShapeError(
                f"{name!r} has {len(index)} present rows of {batch.z_MBD.shape[1]}, but {what} needs at least {wanted} "
                f"of every modality; omit {name!r}"
            )
    return [z_BD[index] for z_BD, index in zip(batch.z_MBD, items, strict=True)], items


def unit_pair(x: Any, y: Any, *, paired: bool) -> tuple[Tensor, Tensor]:
    x_ND, y_ND = unit_rows(x, "x"), unit_rows(y, "y")
    if x_ND.shape[1] != y_ND.shape[1]:
        raise ShapeError(
            f"'x' has dim {x_ND.shape[1]}, but 'y' has dim {y_ND.shape[1]}; both must be embeddings in the same space"
        )
    if paired and len(x_ND) != len(y_ND):
        raise ShapeError(f"'x' has {len(x_ND)} rows, but 'y' has {len(y_ND)}; row i of both must be the same item")
    return x_ND, y_ND.to(x_ND.device)


def _double(z: Tensor) -> Tensor:
    if not z.is_floating_point():
        return z  # make_batch raises the error
    return (z.cpu() if z.device.type == "mps" else z).double()  # mps has no float64
