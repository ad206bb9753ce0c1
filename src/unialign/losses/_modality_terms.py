"""Loss terms of single modalities and pairs of modalities, shared by several objectives.

Shapes: `M` modalities, `B` items.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor

from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.functional import block_contrasts, block_uniformities, cosine_contrast, log_potential
from unialign.ops import select_items

Pair = tuple[int, int]
# One temperature for all pairs, or one for each pair.
PairTemperatures = Tensor | float | list[Tensor | float]
T = TypeVar("T")


def modality_pairs(batch: Batch, anchor: str) -> list[Pair]:
    """Return the pairs with the anchor; all pairs for `"all"` and `"leave_one_out"`."""
    modalities = range(len(batch.names))
    if anchor in ("all", "leave_one_out"):
        return [(m, n) for m in modalities for n in modalities if m < n]
    a = batch.index(anchor)
    return [(a, n) for n in modalities if n != a]


def pair_values(
    function: Callable[..., T], batch: Batch, pairs: Iterable[Pair], term: str, **options: Any
) -> dict[str, T]:
    """Apply `function` to the items with both modalities of each pair; empty pairs are omitted."""
    values = {}
    for m, n in pairs:
        present_B = batch.present_MB[m] & batch.present_MB[n]
        if bool(present_B.any()):
            values[f"{term}/{pair_name(batch.names[m], batch.names[n])}"] = function(
                batch.rows(m), batch.rows(n), select_items(batch, present_B), **options
            )
    return values


def name_pairs(batch: Batch, pairs: Iterable[Pair], term: str, values: Iterable[Tensor]) -> dict[str, Tensor]:
    names = batch.names
    return {f"{term}/{pair_name(names[m], names[n])}": value for (m, n), value in zip(pairs, values, strict=True)}


def pair_contrasts(
    batch: Batch, pairs: list[Pair], *, temperature: PairTemperatures, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    if isinstance(temperature, list):
        parts = [
            pair_contrasts(batch, [pair], temperature=tau, label_smoothing=label_smoothing)
            for pair, tau in zip(pairs, temperature, strict=True)
        ]
        return {name: value for part in parts for name, value in part.items()}
    values = block_contrasts(batch, pairs, temperature=temperature, label_smoothing=label_smoothing)
    if values is not None:
        return name_pairs(batch, pairs, "contrast", values)
    options = {"temperature": temperature, "label_smoothing": label_smoothing}
    return pair_values(cosine_contrast, batch, pairs, "contrast", **options)


def modality_log_potentials(batch: Batch, *, t: float) -> dict[str, Tensor]:
    """log mean_{i != j} exp(-t |z_i - z_j|^2) of each modality where it is defined."""
    values = block_uniformities(
        batch, range(len(batch.names)), kernel="clip", temperature=1 / (2 * t), reduction="outer_log"
    )
    if values is not None:
        return dict(zip(batch.names, values, strict=True))
    return defined_values(
        {
            name: log_potential(batch.rows(m), select_items(batch, batch.present_MB[m]), t=t)
            for m, name in enumerate(batch.names)
        }
    )


def defined_values(values: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {name: value for name, (value, defined) in values.items() if bool(defined)}
