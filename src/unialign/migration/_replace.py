"""Replace the encoder of one modality of a space, so that its new embeddings match those of an existing index.

Shapes: `n` items with features of both encoders, `N` items of the index, `Q` queries, `V` dimension of the old
features, `W` dimension of the new features, `D` dimension of the space.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign._checks import check_integer, check_seed
from unialign._plain_text import count
from unialign.data import EmbeddingStore
from unialign.encoders import references_of
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.migration._identity import joined_rows
from unialign.migration._inputs import FIT_PAIRS, LEAST_PAIRS, as_array
from unialign.migration._interval import OverlapInterval, estimate_overlap
from unialign.migration._maps import FittedMap, fit_ridge
from unialign.migration._overlap import measure_overlap
from unialign.migration._pair_queries import pair_scores
from unialign.space import (
    Space,
    Standardize,
    check_encoders,
    described,
    normalization_of,
    normalize_rows,
    set_linear_head,
    with_new_modalities,
)

Array = NDArray[Any]

# Maximum number of queries that are ranked; more queries do not narrow the interval.
_MOST_QUERIES = 2000
# Up to this number of items, each query is compared with each item by a map that was fitted without either of them.
# With more items, the map hardly depends on a single one.
_PAIRED = 4000


@dataclass(frozen=True, eq=False)
class ReplacedEncoder:
    """A space with a new encoder of one modality, and the expected agreement with the old index.

    Attributes:
        space: the new space; all other modalities are bitwise equal to those of the given space.
        modality: name of the modality.
        overlap: interval of overlap@10: the fraction of the first ten rows of the old index for a query by the old
            encoder that are also among the first ten for the same query by the new encoder.
        cosine: mean cosine between held-out new embeddings and the old embeddings of the same items, in [-1, 1].
        pairs: n, the number of items with features of both encoders that the new head was fitted to.
        items: N, the number of rows of the old index.
        penalty: the ridge penalty, chosen by leave-one-out error.
    """

    space: Space
    modality: str
    overlap: OverlapInterval
    cosine: float
    pairs: int
    items: int
    penalty: float

    def __repr__(self) -> str:
        found = self.overlap
        return (
            f"ReplacedEncoder({self.modality!r}, pairs={self.pairs}, items={self.items}, "
            f"overlap={found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}])"
        )

    def text(self) -> str:
        """Return the expected agreement as lines."""
        found = self.overlap
        return (
            f"The new encoder of {self.modality!r} was fitted to {count(self.pairs, 'item')} with features of both "
            f"encoders.\n"
            f"Of the first 10 results in an index of {self.items:,} old rows, a query by the new encoder is expected "
            f"to share {found.estimate:.0%} [{found.low:.0%}, {found.high:.0%}] with a query by the old encoder."
        )


def replace_encoder(
    space: Space,
    modality: str,
    *,
    old: Any,
    new: Any,
    items: int | None = None,
    seed: int = 0,
) -> ReplacedEncoder:
    """Replace the encoder of one modality of a space, so that vectors in an existing index stay valid.

    A linear head maps the new features x, standardized by column, to the embeddings y of the old encoder: ridge
    regression predicts the offset d of y from the mean of y, and the new embedding is unit(mean + rho d / |d|), where
    rho is the mean length of the offsets, as in `bridge`. The penalty minimizes the leave-one-out error (Allen 1974).
    New embeddings can therefore be compared with the old embeddings of this modality and with those of all others.

    The estimate ranks the old embeddings of the items for each held-out item by the new encoder, and extrapolates to
    the size of the index as in `bridge`. It assumes that the items are a random sample of the index. If there are more
    than 20,000 items with both features, 20,000 random ones are used.

    Args:
        space: a space that has the modality.
        modality: name of the modality.
        old: features of items by the old encoder: a store with a column `modality`, or an array (n, V).
        new: features of the same items by the new encoder: a store with a column `modality`, or an array (n, W). Stores
            are joined by the values of their ids or, for stores that were embedded from item tables, by the keys of the
            items if there are no ids or they repeat. Only arrays, and two stores without ids and keys, are paired by
            row, so they must list the same items in the same order. Absent rows are left out.
        items: N, the number of rows of the old index; None: the number of rows of `old`.
        seed: seed of the choice of items and queries.

    Returns:
        The new space, with the encoder of the store `new` if it records one, and the expected agreement.

    Raises:
        ConfigError: the space has no such modality, or an option is out of range.
        DataError: fewer than 16 items have both features, the ids of a store repeat, no id is in both stores, only one
            of the stores has text ids, sources without ids have different numbers of rows, or the column in `old` is
            from a different encoder than that of the space.
        ShapeError: the features have a wrong shape.
        NonFiniteError: a present row is not finite, or has no direction in the space.
    """
    if modality not in space.dims:
        raise ConfigError(f"the space has no modality {modality!r}; it has {', '.join(space.dims)}")
    check_seed(seed)
    before, after = _open(old, modality, "old"), _open(new, modality, "new")
    if isinstance(old, EmbeddingStore):
        check_encoders(space, old)
    rows_n, new_rows_n = _joined(before, after)
    total = before.present if items is None else items
    check_integer("items", total, low=len(rows_n))
    if len(rows_n) > FIT_PAIRS:
        chosen_n = np.sort(np.random.default_rng(seed).permutation(len(rows_n))[:FIT_PAIRS])
        rows_n, new_rows_n = rows_n[chosen_n], new_rows_n[chosen_n]
    y_nD = space.encode({modality: before.array[rows_n]})[modality].cpu().double().numpy()
    replaced, x_nW = _with_statistics(space, modality, after, new_rows_n)
    fitted = fit_ridge(x_nW, y_nD)
    overlap = _estimate(fitted, x_nW, y_nD, total, seed=seed)
    _set_head(replaced, modality, fitted)
    found = ReplacedEncoder(
        space=replaced,
        modality=modality,
        overlap=overlap,
        cosine=float((fitted.left_out * y_nD).sum(1).mean()),
        pairs=len(rows_n),
        items=total,
        penalty=fitted.map.settings["penalty"],
    )
    replaced.metadata = _metadata(space, found)
    return found


@dataclass(frozen=True)
class _Features:
    """Features of a source; `mask_N` is its presence, and `references` identifies its encoder."""

    name: str
    array: Array
    mask_N: NDArray[np.bool_]
    store: EmbeddingStore | None
    references: Mapping[str, Mapping[str, Any]]

    @property
    def present(self) -> int:
        return int(self.mask_N.sum())


def _open(source: Any, modality: str, name: str) -> _Features:
    if isinstance(source, EmbeddingStore):
        if modality not in source.columns:
            raise DataError(f"{name!r} has no column {modality!r}; it has {', '.join(source.columns)}")
        references = references_of(source, [modality])
        return _Features(name, source.array(modality), source.present(modality), source, references)
    array = as_array(source)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise ShapeError(
            f"{name!r} must be a store or an array of features of shape (items, dim), got {array.dtype} of shape "
            f"{array.shape}"
        )
    return _Features(name, array, np.ones(len(array), bool), None, {})


def _joined(old: _Features, new: _Features) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of the items with both features."""
    if old.store is None or new.store is None:
        found = None
    else:
        found = joined_rows(old.store, new.store, old.mask_N, new.mask_N)
    if found is not None:
        rows_n, new_rows_n = found
    elif len(old.array) == len(new.array):
        rows_n = new_rows_n = np.flatnonzero(old.mask_N & new.mask_N)
    else:
        raise DataError(
            f"'old' has {len(old.array):,} items and 'new' {len(new.array):,}; without ids, both must list the same "
            f"items in the same order"
        )
    if len(rows_n) < LEAST_PAIRS:
        raise DataError(
            f"{count(len(rows_n), 'item')} with features of both encoders, expected at least {LEAST_PAIRS}; 240 or "
            f"more give useful intervals"
        )
    return rows_n, new_rows_n


def _with_statistics(space: Space, modality: str, new: _Features, rows_n: NDArray[np.int64]) -> tuple[Space, Array]:
    """Return the space with a new head, whose statistics are fitted, and the (n, W) standardized features."""
    with torch.random.fork_rng(devices=[]):
        replaced = with_new_modalities(
            space, {modality: new.array.shape[1]}, linear=[modality], encoders=new.references
        )
    norm = normalization_of(replaced.features[replaced.modalities.index(modality)])
    assert isinstance(norm, Standardize)
    norm.fit(new.array, rows_n, name=modality)
    # Raises an error with the number of a row that is not finite.
    replaced.encode({modality: new.array[rows_n]})
    x_nW = normalize_rows(copy.deepcopy(norm).cpu(), torch.from_numpy(np.array(new.array[rows_n])))
    return replaced, x_nW.numpy()


def _estimate(fitted: FittedMap, x_nW: Array, y_nD: Array, items: int, *, seed: int) -> OverlapInterval:
    own_Q = np.sort(np.random.default_rng(seed).permutation(len(y_nD))[:_MOST_QUERIES])
    true_Qn = y_nD[own_Q] @ y_nD.T
    if len(y_nD) <= _PAIRED:
        # Row i, column j: y_i with the mapped row of j, by a map that was fitted without i and j.
        mapped_Qn = pair_scores(fitted, x_nW, y_nD, np.arange(len(y_nD)))[:, own_Q].T.copy()
    else:
        mapped_Qn = fitted.left_out[own_Q] @ y_nD.T
    for scores_Qn in (true_Qn, mapped_Qn):
        scores_Qn[np.arange(len(own_Q)), own_Q] = -np.inf
    curve = measure_overlap(true_Qn, mapped_Qn, width=1, seed=seed)
    return estimate_overlap(curve, curve.overlap, items)


@torch.no_grad()
def _set_head(space: Space, modality: str, fitted: FittedMap) -> None:
    """Set head and output so that an embedding is unit(mean + rho d / |d|)."""
    tensors, length = fitted.map.tensors, fitted.map.settings["length"]
    set_linear_head(space, modality, torch.from_numpy(tensors["weight"].T.copy()))
    mean_D = torch.from_numpy(tensors["mean_new"])
    extended = space.with_output_affine({modality: (length * torch.eye(space.dim), mean_D)})
    place = space.modalities.index(modality)
    space.outputs[place], space.output_affine = extended.outputs[place], extended.output_affine


def _metadata(space: Space, found: ReplacedEncoder) -> dict[str, Any]:
    after = found.space.encoders.get(found.modality)
    before = space.encoders.get(found.modality)
    entry = {
        "modality": found.modality,
        "old": None if before is None else described(before),
        "new": None if after is None else described(after),
        "pairs": found.pairs,
        "items": found.items,
        "penalty": found.penalty,
        "cosine": found.cosine,
        "overlap": found.overlap.to_dict(),
    }
    # The evaluation of the space was made with the old encoder.
    kept = {key: value for key, value in space.metadata.items() if key != "evaluation"}
    earlier: Any = kept.get("replaced", [])
    return kept | {"replaced": [*(earlier if isinstance(earlier, list) else []), entry]}
