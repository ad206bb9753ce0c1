"""Compare two versions of the same embeddings.

Shapes: `P` items that both versions have, `n` sampled items, `q` probed items, `D` dimension.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data import Sources, open_collection
from unialign.diagnostics._drift_pairs import MatchedItems, match_items, match_modalities, paired_blocks
from unialign.diagnostics._drift_report import DriftReport, describe_modality
from unialign.diagnostics._drift_sample import (
    MAX_REQUESTED,
    SampleDrift,
    drift_sample_size,
    measure_sample,
    nearest_old,
)
from unialign.diagnostics._drift_scan import RowDrift, are_valid, scan_rows, unit_rows
from unialign.diagnostics._drift_verdict import (
    ROUNDED_ERROR,
    changed_rows,
    decide,
    keeps_neighbors,
)
from unialign.diagnostics._drift_words import REORDERED, DriftFacts
from unialign.diagnostics._estimate import LEVEL
from unialign.errors import ConfigError
from unialign.readers import Modality

# Number of rows for which equal vectors are searched at other positions.
_PROBES = 256
# Maximum number of changed rows in the text.
_LISTED = 5
# A vector counts as moved if its error at the best other row is below this fraction of its error at its own row.
_MOVED_FRACTION = 0.1
# Vectors are near other rows by chance, rather than moved, if the median error at these rows exceeds this fraction of
# the median error between these rows and their nearest distinct rows. With 2 columns, almost all rows are near other
# rows.
_CHANCE_FRACTION = 0.1
# 1 - cosine up to which rows are equal.
_EQUAL_ERROR = 1e-12
# Tolerance for norms of 1; float16 rows of 4,096 columns are within 0.001.
_UNIT_NORM = 0.002

OnProgress = Callable[[str, int, int], None]


def compare_versions(
    sources: Sources,
    against: Sources,
    *,
    modalities: Sequence[str] | None,
    id: str | None,
    sample: int | None,
    resamples: int,
    seed: int,
    on_progress: OnProgress | None,
) -> DriftReport:
    new = open_collection(sources, modalities=modalities, id=id)
    old = open_collection(against, modalities=modalities, id=id)
    matched = match_items(old, new)
    verdicts, numbers, places = {}, {}, {}
    for name, (before, after) in match_modalities(old, new).items():
        old_P, new_P = before.present_N[matched.old_P], after.present_N[matched.new_P]
        present_P = old_P & new_P
        items = matched.select(present_P)
        lost = _valid_rows(before, matched.select(old_P & ~new_P), is_old=True)
        gained = _valid_rows(after, matched.select(new_P & ~old_P), is_old=False)
        progress = partial(on_progress, name) if on_progress else None
        facts, drift = _measure(before, after, items, (lost, gained), sample, resamples, seed, progress)
        verdicts[name] = decide(facts)
        numbers[name] = describe_modality(facts, drift, items, absent=int((~present_P).sum()))
        places[name] = {
            "old": before.source.place(before.entry),
            "new": after.source.place(after.entry),
            "old_fingerprint": drift.fingerprints[0],
            "new_fingerprint": drift.fingerprints[1],
        }
    notes = tuple(dict.fromkeys((*old.notes, *new.notes, *matched.notes)))
    settings = {"resamples": resamples, "level": LEVEL, "seed": seed}
    return DriftReport(verdicts, numbers, notes, {"modalities": places, "settings": settings})


def _measure(
    old: Modality,
    new: Modality,
    items: MatchedItems,
    changed_presence: tuple[NDArray[np.int64], NDArray[np.int64]],
    sample: int | None,
    resamples: int,
    seed: int,
    on_rows: Callable[[int, int], None] | None,
) -> tuple[DriftFacts, RowDrift]:
    """Compare one modality. `changed_presence` holds the row numbers, in the new version, of rows that are valid in
    only one version.
    """
    dims = (old.rows.shape[1], new.rows.shape[1])
    size = min(drift_sample_size(dims, sample), len(items))
    if size > MAX_REQUESTED:
        raise ConfigError(
            f"sample must be at most {MAX_REQUESTED:,} for a comparison of two versions, since memory grows with its "
            f"square; got {sample:,}. All rows are compared, whatever the sample size"
        )
    kept_n = np.sort(np.random.default_rng(seed).permutation(len(items))[:size])
    drift = scan_rows(old, new, items, kept_n, on_rows=on_rows)
    valid_n = drift.valid_P[kept_n]
    old_nD, new_nD = drift.kept_old[valid_n], drift.kept_new[valid_n]
    found = measure_sample(old_nD, new_nD, resamples=resamples, seed=seed) if valid_n.any() else _NO_SAMPLE
    changed_P = changed_rows(drift.error_P)
    error_P, ratio_P = drift.error_P[drift.valid_P], drift.ratio_P[drift.valid_P]
    median = float(np.median(error_P)) if len(error_P) else np.nan
    moved, offset = 0.0, None
    if dims[0] == dims[1] and len(error_P):
        if median <= ROUNDED_ERROR and len(changed_P):
            moved, offset = _moved(old, new, items, drift, _drawn(changed_P, seed))
        elif median > ROUNDED_ERROR or not keeps_neighbors(found):
            moved, offset = _moved(old, new, items, drift, _drawn(np.flatnonzero(drift.valid_P), seed))
    low, middle, high = np.quantile(ratio_P, [0.05, 0.5, 0.95]).tolist() if len(ratio_P) else (np.nan,) * 3
    norms_n = unit_rows(new_nD)[1]
    lost, gained = (
        np.sort(np.concatenate([rows, items.new_P[only_P]]))
        for rows, only_P in zip(changed_presence, (drift.lost_P, drift.gained_P), strict=True)
    )
    facts = DriftFacts(
        items=len(error_P),
        dims=dims,
        equal=float(drift.equal_P[drift.valid_P].mean()) if len(error_P) else 0.0,
        median_error=median,
        largest_error=float(error_P.max()) if len(error_P) else np.nan,
        changed=len(changed_P),
        first_changed=tuple(np.sort(items.new_P[changed_P])[:_LISTED].tolist()),
        last_changed=int(items.new_P[changed_P].max()) if len(changed_P) else -1,
        lost=len(lost),
        first_lost=tuple(lost[:_LISTED].tolist()),
        gained=len(gained),
        first_gained=tuple(gained[:_LISTED].tolist()),
        moved=moved,
        offset=offset,
        scale=middle,
        low_scale=low,
        high_scale=high,
        unit_new=bool(len(norms_n) and (np.abs(norms_n - 1) < _UNIT_NORM).all()),
        sample=found,
    )
    return facts, drift


_NO_SAMPLE = SampleDrift(0, None, None, *(float("nan"),) * 6, "")


def _drawn(positions_P: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(positions_P)[:_PROBES])


def _moved(
    old: Modality, new: Modality, items: MatchedItems, drift: RowDrift, probe_q: NDArray[np.int64]
) -> tuple[float, int | None]:
    """Return the fraction of probes whose new row matches another old row, and the common row offset."""
    probes = items.select(probe_q)
    probes_qD = unit_rows(np.asarray(new.rows.take(probes.new_P.tolist())))[0]
    blocks = _blocks(old, items.old_P)
    at_q, cosine_q = nearest_old(probes_qD, blocks)
    own_q: Any = drift.error_P[probe_q]
    moved_q = (cosine_q >= 1 - ROUNDED_ERROR) & (1 - cosine_q <= _MOVED_FRACTION * own_q) & (at_q != probe_q)
    offsets = (at_q - probe_q)[moved_q]
    if not len(offsets):
        return 0.0, None
    if moved_q.mean() >= REORDERED:
        found = items.select(at_q[moved_q])
        found_qD = unit_rows(np.asarray(old.rows.take(found.old_P.tolist())))[0]
        others_q = nearest_old(found_qD, _blocks(old, items.old_P), limit=1 - _EQUAL_ERROR)[1]
        if np.median(1 - cosine_q[moved_q]) > _CHANCE_FRACTION * np.median(1 - others_q):
            return 0.0, None
    values, counts = np.unique(offsets, return_counts=True)
    common = int(values[counts.argmax()]) if counts.max() > 0.9 * len(offsets) and len(offsets) > 2 else None
    return float(moved_q.mean()), common


def _valid_rows(version: Modality, items: MatchedItems, *, is_old: bool) -> NDArray[np.int64]:
    valid = [are_valid(rows_bD) for _, rows_bD in _blocks(version, items.old_P if is_old else items.new_P)]
    return items.new_P[np.concatenate(valid)] if valid else items.new_P


def _blocks(version: Modality, positions_P: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[Any]]]:
    for start, rows_bD, _ in paired_blocks(version, version, MatchedItems(positions_P, positions_P, None, ())):
        yield start, rows_bD
