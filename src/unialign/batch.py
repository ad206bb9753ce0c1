"""Validate embeddings and convert a mapping of tensors to a `Batch` of unit rows.

Shapes: `M` modalities, `B` items, `D` dimension of the shared space.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_choice, suggestion
from unialign._invalid_rows import first_bad_row, has_direction
from unialign._stacked_rows import normalize_stacked
from unialign._unit_rows import largest_entries, normalize_rows
from unialign.distributed import Shard
from unialign.errors import ConfigError, NonFiniteError, ShapeError

__all__ = [
    "Batch",
    "ZeroRows",
    "as_dense",
    "as_tensors",
    "check_dense",
    "make_batch",
    "row_integers",
    "row_mask",
]


# Whether rows of norm zero raise an error or are treated as absent.
ZeroRows = Literal["error", "ignore"]


@dataclass(frozen=True)
class Batch:
    """Validated embeddings, normalized to unit length.

    Attributes:
        names: the M modalities, in the given order.
        z_MBD: unit rows, float64 if any input is float64, else float32. Absent rows are exactly 0 and have
            no gradient.
        present_MB: True where the item has the modality.
        ids_B: int64 ids, or None if all items differ. Items with the same id are never negatives of each other.
        shard: layout of the B items across processes; None if this process has all items.
    """

    names: tuple[str, ...]
    z_MBD: Tensor
    present_MB: Tensor
    ids_B: Tensor | None
    shard: Shard | None = None

    def rows(self, m: int) -> Tensor:
        """Return the (B, D) rows of modality m.

        The gradient is not padded with zeros to (M, B, D), unlike the gradient of `z_MBD[m]`.
        """
        if not torch.is_grad_enabled():
            return self.z_MBD[m]
        return self._unbound[m]

    @cached_property
    def complete(self) -> bool:
        """True if every item has every modality."""
        return bool(self.present_MB.all())

    @cached_property
    def _unbound(self) -> tuple[Tensor, ...]:
        return self.z_MBD.unbind(0)

    def index(self, name: str) -> int:
        """Return the index of a modality; for an unknown name, raise ConfigError with the known modalities."""
        if not isinstance(name, str) or name not in self.names:
            known = ", ".join(map(repr, self.names))
            raise ConfigError(
                f"anchor {name!r} is not a modality of this batch; expected one of {known}"
                f"{suggestion(name, self.names)}"
            )
        return self.names.index(name)


def make_batch(
    embeddings: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor] | None = None,
    ids: Tensor | None = None,
    minimum: int = 2,
    zero_rows: ZeroRows = "error",
) -> Batch:
    """Validate embeddings, presence and ids, and normalize rows to unit length.

    Args:
        embeddings: modality name -> (B, D) floating-point tensor; row i of every tensor belongs to item i.
        present: modality name -> (B,) bool tensor; all rows of unlisted modalities are present. Absent rows may
            contain any values, including NaN.
        ids: (B,) integers; items with the same id are never negatives of each other.
        minimum: minimum number of modalities.
        zero_rows: `error` raises for present rows without a direction (norm zero or denormal); `ignore` treats them as
            absent.

    Raises:
        ShapeError: too few modalities, a shape other than (B, D), unequal B or D, or a wrong dtype.
        NonFiniteError: a present row contains NaN or infinity, or has no direction (norm zero or denormal).
        ConfigError: `present` has an unknown modality, or `zero_rows` is unknown.
    """
    if not isinstance(embeddings, Mapping):
        raise ShapeError(
            f"embeddings must be a mapping of modality names to (B, D) tensors, got {type(embeddings).__name__}"
        )
    names = tuple(embeddings)
    if len(names) < minimum:
        raise ShapeError(f"expected at least {minimum} modalities, got {len(names)}: {list(names)}")
    _check_shapes(embeddings)
    raw = tuple(embeddings.values())
    items, device = raw[0].shape[0], raw[0].device
    dtype = torch.float64 if any(x_BD.dtype == torch.float64 for x_BD in raw) else torch.float32
    present_MB = _presence(names, items, present, device)
    if zero_rows == "error" and (not present or bool(present_MB.all())):
        z_MBD = normalize_stacked(raw, dtype)
        if z_MBD is not None:
            ids_B = None if ids is None else row_integers(ids, "ids", items).to(device)
            batch = Batch(names, z_MBD, present_MB, ids_B)
            batch.__dict__["complete"] = True  # avoid checking the mask again
            return batch
    largest_MB = largest_entries(raw, dtype)
    if zero_rows != "error":
        check_choice("zero_rows", zero_rows, get_args(ZeroRows))
        # NaN and infinite rows stay present, so that they raise an error below.
        present_MB &= has_direction(largest_MB) | ~(largest_MB < torch.inf)
    _check_rows(raw, largest_MB, present_MB, names)
    ids_B = None if ids is None else row_integers(ids, "ids", items).to(device)
    masked_MB = present_MB if present or zero_rows == "ignore" else None
    return Batch(names, normalize_rows(raw, largest_MB, masked_MB), present_MB, ids_B)


def as_dense(value: Any, what: str, expected: str) -> Tensor:
    """Convert an array-like to a dense tensor; error messages read "`what` ...; expected `expected`".

    Raises ShapeError for inputs that torch does not support (text, ragged lists, objects, integers beyond 64 bits) and
    for tensors without dense values (sparse, nested, meta). Arrays are converted to native byte order.
    """
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        # Copy read-only arrays, since torch has no read-only tensors.
        value = np.array(value, dtype=value.dtype.newbyteorder("="), copy=None if value.flags.writeable else True)
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ShapeError(
            f"{what} of type {type(value).__name__} cannot be converted to a tensor ({error}); expected {expected}"
        ) from None
    check_dense(tensor, what, expected)
    return tensor


def as_tensors(embeddings: Any) -> Any:
    """Convert each value of a mapping with `as_dense`; return other inputs unchanged, so that `make_batch` raises.

    Only measurements may accept arrays; losses require tensors, since a converted array would silently get no gradient.
    """
    if not isinstance(embeddings, Mapping):
        return embeddings
    return {name: as_dense(z, repr(name), "a tensor or array of shape (B, D)") for name, z in embeddings.items()}


def check_dense(tensor: Tensor, what: str, expected: str) -> None:
    """Raise ShapeError if a tensor is sparse, nested, or on the meta device."""
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta":
        problem = "sparse or nested, but must be dense (see `Tensor.to_dense`)"
        if tensor.device.type == "meta":
            problem = "on the meta device, which stores no values"
        raise ShapeError(f"{what} is {problem}; expected {expected}")


def row_mask(value: Any, what: str, rows: int) -> Tensor:
    """Convert a tensor, array or list of bools to a (rows,) bool tensor; raise ShapeError for other inputs."""
    mask_B = as_dense(value, what, f"bool of shape ({rows},)")
    if mask_B.dtype != torch.bool or tuple(mask_B.shape) != (rows,):
        raise ShapeError(
            f"{what} is {mask_B.dtype} of shape {tuple(mask_B.shape)}; expected torch.bool of shape ({rows},)"
        )
    return mask_B


def row_integers(value: Any, what: str, rows: int) -> Tensor:
    """Convert a tensor, array or list of integers to a (rows,) int64 tensor; raise ShapeError for other inputs."""
    if _holds_text(value):
        raise ShapeError(
            f"{what} are strings; expected integers of shape ({rows},); map strings to integers, for example with "
            f"`numpy.unique({what}, return_inverse=True)[1]`"
        )
    values_B = as_dense(value, what, f"integers of shape ({rows},)")
    not_integers = values_B.is_floating_point() or values_B.is_complex() or values_B.dtype == torch.bool
    if not_integers or tuple(values_B.shape) != (rows,):
        raise ShapeError(
            f"{what} is {values_B.dtype} of shape {tuple(values_B.shape)}; expected integers of shape ({rows},)"
        )
    return values_B.to(torch.int64)


def _holds_text(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "USTO" and value.size > 0 and isinstance(value.flat[0], str | bytes)
    return isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], str | bytes)


def _check_shapes(embeddings: Mapping[str, Tensor]) -> None:
    for name, z in embeddings.items():
        _check_matrix(name, z)
    first = next(iter(embeddings))
    items, dim = embeddings[first].shape
    for name, z in embeddings.items():
        if z.shape[0] != items:
            raise ShapeError(
                f"{name!r} has {z.shape[0]} rows, {first!r} has {items}; every modality needs one row "
                f"per item (use `present=` for items without {name!r})"
            )
        if z.shape[1] != dim:
            raise ShapeError(
                f"{name!r} has dim {z.shape[1]}, {first!r} has dim {dim}; all modalities must have the same dim "
                f"(use `unialign.Space` to map features of different dims into one space)"
            )


def _check_matrix(name: str, z: Tensor) -> None:
    if not isinstance(name, str):
        raise ShapeError(f"modality names must be strings, got {name!r}")
    if not isinstance(z, Tensor):
        raise ShapeError(
            f"{name!r} must be a torch tensor of shape (B, D), got {type(z).__name__}; convert arrays that "
            f"need no gradient with `torch.as_tensor`"
        )
    check_dense(z, repr(name), "a torch tensor of shape (B, D)")
    if z.ndim != 2:
        raise ShapeError(f"{name!r} has shape {tuple(z.shape)}; expected (B, D), one pooled embedding per item")
    if not z.is_floating_point():
        raise ShapeError(f"{name!r} has dtype {z.dtype}; expected a floating-point dtype")
    if z.shape[1] == 0:
        raise ShapeError(f"{name!r} has dim 0; expected (B, D) with D >= 1")


def _presence(names: tuple[str, ...], items: int, present: Mapping[str, Tensor] | None, device: torch.device) -> Tensor:
    if present is not None and not isinstance(present, Mapping):
        raise ShapeError(
            f"`present` must be a mapping of modality names to (B,) bool tensors, got {type(present).__name__}"
        )
    present_MB = torch.ones(len(names), items, dtype=torch.bool, device=device)
    for name, mask in (present or {}).items():
        if name not in names:
            raise ConfigError(f"`present` has {name!r}, which is not a modality; expected a subset of {list(names)}")
        present_MB[names.index(name)] = row_mask(mask, f"present[{name!r}]", items).to(device)
    return present_MB


def _check_rows(raw: tuple[Tensor, ...], largest_MB: Tensor, present_MB: Tensor, names: tuple[str, ...]) -> None:
    bad_MB = present_MB & ~has_direction(largest_MB)
    if not bool(bad_MB.any()):
        return
    m = int(bad_MB.any(1).nonzero()[0])
    bad = first_bad_row(raw[m].to(largest_MB.dtype), bad_MB[m])
    assert bad is not None
    bad = replace(bad, others=int(bad_MB.sum()) - 1)
    name = names[m]
    advice = "" if bad.column is not None else ", or pass zero_rows='ignore' to a loss to treat such rows as absent"
    raise NonFiniteError(
        f"{name!r} row {bad.row} {bad.what}{bad.more}; mark items without {name!r} as absent with `present=`, "
        f"or drop them{advice}. Fill absent encoder inputs with 0, since NaN inputs result in NaN gradients of the "
        "encoder's weights"
    )
