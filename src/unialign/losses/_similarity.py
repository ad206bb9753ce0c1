"""Features whose similarity weights the negatives of a call, and the scale of the weights.

Shapes: `B` items, `n` items of this process, `W` features.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_number, suggestion
from unialign._invalid_rows import first_bad_row, has_direction
from unialign._unit_rows import largest_entries, normalize_rows
from unialign.batch import Batch, check_dense
from unialign.distributed import Shard, gather_integers
from unialign.errors import ConfigError, NonFiniteError, ShapeError

SimilarityScale = float | Mapping[str, float]


def check_similarity_scale(scale: object) -> None:
    def check(name: str, value: object) -> None:
        check_number(name, value, "a number from 0 to 1e3", lambda x: 0 <= x <= 1e3)

    if not isinstance(scale, Mapping):
        check("similarity_scale", scale)
        return
    if not all(isinstance(name, str) for name in scale):
        raise ConfigError(
            f"similarity_scale must be a number, or a mapping such as {{'image': 5, 'text': 10}}, got {scale!r}"
        )
    for name, value in scale.items():
        check(f"similarity_scale[{name!r}]", value)


def uses_similarity(scale: SimilarityScale) -> bool:
    return any(value > 0 for value in (scale.values() if isinstance(scale, Mapping) else [scale]))


def weighted_modalities(scale: SimilarityScale, names: Sequence[str]) -> tuple[str, ...]:
    """Return the modalities with a positive scale."""
    return tuple(name for name in names if (scale.get(name, 0.0) if isinstance(scale, Mapping) else scale) > 0)


def scaled_rows(batch: Batch, similarity: Mapping[str, Tensor], scale: SimilarityScale) -> dict[str, Tensor]:
    """Return the unit features of the modalities with a positive scale s, times sqrt(s / 2)."""
    for name in scale if isinstance(scale, Mapping) else ():
        if name not in batch.names:
            raise ConfigError(
                f"similarity_scale has {name!r}, which is not a modality; expected some of "
                f"{', '.join(map(repr, batch.names))}{suggestion(name, batch.names)}"
            )
    result = {}
    for name in batch.names:
        s = scale.get(name, 0.0) if isinstance(scale, Mapping) else scale
        if s == 0:
            continue
        if name not in similarity:
            given = f"only for {', '.join(map(repr, similarity))}" if similarity else "not in this call"
            raise ConfigError(
                f"similarity_scale={s:g} needs similarity= of {name!r}, given {given}; pass "
                f"similarity={{{name!r}: features of shape (B, W), ...}}, or a mapping as similarity_scale that has "
                "only the modalities with features"
            )
        result[name] = similarity[name] * math.sqrt(s / 2)
    return result


def check_similarity(similarity: Any, batch: Batch | None) -> dict[str, Tensor]:
    """Return unit rows by modality; rows of absent items and rows of norm zero are 0."""
    if not isinstance(similarity, Mapping):
        raise ShapeError(
            f"similarity must be a mapping of modality name to tensor of shape (B, W), got {type(similarity).__name__}"
        )
    return {name: _check_rows(name, rows, batch) for name, rows in similarity.items()}


def check_similarity_names(similarity: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in similarity:
        if name not in names:
            known = ", ".join(map(repr, names))
            raise ConfigError(
                f"`similarity` has {name!r}, which is not a modality; expected some of {known}{suggestion(name, names)}"
            )


def gather_similarity(similarity: Mapping[str, Tensor], shard: Shard, like: Tensor) -> dict[str, Tensor]:
    """Every process must have features of the same modalities."""
    result = {}
    for name in sorted(similarity):
        x_nW = similarity[name]
        widths = [width for (width,) in gather_integers((x_nW.shape[1],), shard.group)]
        if len(set(widths)) > 1:
            raise ShapeError(f"similarity[{name!r}] has {widths} columns on processes 0 to {len(widths) - 1}")
        result[name] = shard.gather_rows(x_nW.to(like))
    return result


def _check_rows(name: Any, rows: Any, batch: Batch | None) -> Tensor:
    what, expected = f"similarity[{name!r}]", "(B, W), one row of features per item"
    if not isinstance(rows, Tensor):
        raise ShapeError(f"{what} must be a torch tensor of shape {expected}, got {type(rows).__name__}")
    check_dense(rows, what, f"a tensor of shape {expected}")
    items = 0 if batch is None else batch.z_MBD.shape[1]
    if rows.ndim != 2 or not rows.is_floating_point() or rows.shape[1] == 0 or len(rows) != items:
        raise ShapeError(
            f"{what} has shape {tuple(rows.shape)} and dtype {rows.dtype}, but the batch has {items} items; expected a "
            f"floating-point tensor of shape {expected}"
        )
    # Float64 features of a float32 batch may exceed the range of float32.
    dtype = torch.promote_types(rows.dtype, torch.float32)
    if batch is None:
        return rows.detach().to(dtype)
    x_BW = rows.detach().to(batch.z_MBD.device)
    # A modality that only other processes have is absent here.
    present_B = batch.present_MB[batch.index(name)] if name in batch.names else batch.present_MB.new_zeros(items)
    largest_1B = largest_entries([x_BW], dtype)
    bad = first_bad_row(x_BW.to(dtype), ~(largest_1B[0] < torch.inf) & present_B)
    if bad is not None:
        raise NonFiniteError(f"{what} row {bad.row} {bad.what}{bad.more}; remove this row, or mark it as absent")
    return normalize_rows([x_BW], largest_1B, has_direction(largest_1B) & present_B)[0].to(batch.z_MBD.dtype)
