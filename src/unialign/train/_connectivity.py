"""Check, before a run starts, that its training rows can align all modalities.

Shapes: `N` training rows, `M` modalities, `C` combinations of present modalities, `R` rows of a probe, `D` dimension.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, UniAlignError
from unialign.losses import Objective

__all__ = ["check_connected", "check_pairs"]

Masks = NDArray[np.bool_]

# Rows of each combination of a probe, and how many of the most frequent combinations it has.
_PROBE_ROWS = 4
_PROBE_COMBINATIONS = 64
_CHUNK_ROWS = 1 << 20
# Difference of losses in float64 that is not due to rounding.
_DIFFERENCE = 1e-6
# Names of terms that only spread embeddings; uniformity of centroids changes with the pairing, but aligns no pair.
_REPULSION = {"uniformity", "centroid", "partition"}


def check_connected(store: EmbeddingStore, modalities: Sequence[str], rows_N: NDArray[np.int64]) -> None:
    """Raise ConfigError unless modalities that share a training row, directly or through others, are all modalities."""
    if _is_complete(store, modalities, rows_N):
        return
    components = _components(combinations(store, modalities, rows_N), modalities)
    if len(components) > 1:
        first, second = components[0], components[1]
        what = f"no training row of {store.name!r}" if store.sampling is None else "no source"
        raise ConfigError(
            f"{what} ties {second[0]!r} to {first[0]!r}, directly or through another modality, so nothing would align "
            f"them; components: {'; '.join(', '.join(names) for names in components)}; add items that have modalities "
            "of both components, or choose one component with `modalities`"
        )


def check_pairs(
    store: EmbeddingStore,
    modalities: Sequence[str],
    rows_N: NDArray[np.int64],
    objective: Callable[[], Objective],
    *,
    name: str,
    dim: int,
    anchor: object,
) -> None:
    """Raise ConfigError if the objective would not align a modality of a mixture, or any item of one of its sources.

    For a single source, a modality that would not be aligned gives a warning.

    An objective with an anchor aligns only pairs that contain it. Without such pairs, the others have no loss, or are
    only spread. Whether an objective uses the pairing of a modality is measured: its terms, without those that only
    spread embeddings, change if the rows of the modality are exchanged between items with the same modalities.
    """
    if _is_complete(store, modalities, rows_N):
        return
    present = [combinations(store, modalities, rows_N)]
    sources = [] if store.sampling is None else [name for name, size in store.sampling.sizes(rows_N).items() if size]
    for source in sources:
        own = store.sampling.rows(source)  # type: ignore[union-attr]
        low, high = np.searchsorted(rows_N, (own.start, own.stop))
        present.append(combinations(store, modalities, rows_N[low:high]))
    if all(bool(present_CM.all(1).any()) for present_CM in present):
        return  # every objective aligns the modalities of a complete item
    try:
        expected = _paired(np.ones((1, len(modalities)), np.bool_), modalities, objective, dim)
        found, *of_sources = [_paired(present_CM, modalities, objective, dim) for present_CM in present]
    except UniAlignError:
        return  # raised again, with the rows of the data, in the first step
    # The anchor itself comes last: if it has no pair, the messages about the others say why.
    if missing := sorted((one for one in modalities if one in expected - found), key=lambda one: one == anchor):
        has_none = _lacks_anchor(present[0], modalities, anchor, (missing[0],))
        lacking = f"the anchor {anchor!r}" if has_none else f"all modalities that {name!r} compares with it"
        message = (
            f"no training row of {missing[0]!r} has {lacking}, so the objective {name!r} would not align "
            f"{missing[0]!r}; choose another anchor or objective, add rows with both, or omit {missing[0]!r} with "
            "`modalities`"
        )
        if store.sampling is None:
            # The modalities are connected, so that an InfoNCE warmup or a closed form may still align them.
            warnings.warn(message, stacklevel=2)
            return
        raise ConfigError(message)
    for source, present_CM, paired in zip(sources, present[1:], of_sources, strict=True):
        if expected and not paired:
            has_none = _lacks_anchor(present_CM, modalities, anchor, [one for one in modalities if one != anchor])
            lacking = f"the anchor {anchor!r} and another modality" if has_none else f"all modalities of {name!r}"
            raise ConfigError(
                f"no training row of the source {source!r} has {lacking}, so the objective {name!r} would align none "
                f"of its items; choose another anchor or objective, or omit the source {source!r}"
            )


def _lacks_anchor(present_CM: Masks, modalities: Sequence[str], anchor: object, others: Sequence[str]) -> bool:
    """Return whether there is an anchor, but no combination of it with one of the others."""
    if anchor not in modalities:
        return False
    has_others_C = present_CM[:, [modalities.index(one) for one in others]].any(1)
    return not bool((present_CM[:, modalities.index(str(anchor))] & has_others_C).any())


def combinations(store: EmbeddingStore, modalities: Sequence[str], rows_N: NDArray[np.int64]) -> Masks:
    """Return the (C, M) distinct combinations of present modalities, the most frequent first."""
    counts: dict[bytes, int] = {}
    for start in range(0, len(rows_N), _CHUNK_ROWS):
        rows_n = rows_N[start : start + _CHUNK_ROWS]
        packed = np.packbits(np.stack([store.present(name)[rows_n] for name in modalities], axis=1), axis=1)
        codes_n = packed.view(f"V{packed.shape[1]}")[:, 0] if packed.shape[1] > 1 else packed[:, 0]
        found, places = np.unique(codes_n, return_counts=True)
        for code, count in zip(found, places.tolist(), strict=True):
            counts[code.tobytes()] = counts.get(code.tobytes(), 0) + count
    ordered = sorted(counts, key=lambda code: -counts[code])
    packed_CB = np.frombuffer(b"".join(ordered), np.uint8).reshape(len(ordered), -1)
    return np.unpackbits(packed_CB, axis=1, count=len(modalities)).astype(np.bool_)


def _is_complete(store: EmbeddingStore, modalities: Sequence[str], rows_N: NDArray[np.int64]) -> bool:
    return all(bool(store.present(name)[rows_N].all()) for name in modalities)


def _components(present_CM: Masks, modalities: Sequence[str]) -> list[list[str]]:
    """Return the connected components, in the order of the modalities."""
    component = {name: {name} for name in modalities}
    for present_M in present_CM:
        merged = set().union(*(component[name] for name, has in zip(modalities, present_M, strict=True) if has))
        for name in merged:
            component[name] = merged
    found: dict[int, list[str]] = {}
    for name in modalities:
        found.setdefault(id(component[name]), []).append(name)
    return list(found.values())


def _paired(present_CM: Masks, modalities: Sequence[str], objective: Callable[[], Objective], dim: int) -> set[str]:
    """Return the modalities whose pairing with others affects the objective on rows of these combinations."""
    chosen_RM = present_CM[:_PROBE_COMBINATIONS].repeat(_PROBE_ROWS, axis=0)
    present = {name: torch.from_numpy(chosen_RM[:, m].copy()) for m, name in enumerate(modalities)}
    generator = torch.Generator().manual_seed(0)
    z_RD = {name: torch.randn(len(chosen_RM), dim, generator=generator, dtype=torch.float64) for name in modalities}
    original = _value(objective, z_RD, present)
    return {
        name
        for name in modalities
        if abs(_value(objective, z_RD | {name: _exchanged(z_RD[name])}, present) - original) > _DIFFERENCE
    }


def _exchanged(z_RD: Tensor) -> Tensor:
    """Exchange the rows of items with the same modalities."""
    return z_RD.view(-1, _PROBE_ROWS, z_RD.shape[1]).roll(1, dims=1).reshape(z_RD.shape)


@torch.no_grad()
def _value(objective: Callable[[], Objective], z_RD: dict[str, Tensor], present: dict[str, Tensor]) -> float:
    # Objectives that draw negatives have their own generators, so equal calls of new objectives are equal.
    probe = objective()
    similarity = z_RD if probe.needs_similarity() else None
    _, terms = probe.compute(z_RD, present=present, group=None, similarity=similarity)
    return sum(
        float(term.value) * float(term.weight) for name, term in terms.items() if not _REPULSION & set(name.split("/"))
    )
