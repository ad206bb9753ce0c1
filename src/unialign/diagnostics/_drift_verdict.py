"""Decide how two versions of a modality differ, in one sentence with advice.

The rules are ordered: the first one that holds gives the verdict. Their thresholds are below, with reasons.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import count, join_words
from unialign.diagnostics._drift_sample import SampleDrift
from unialign.diagnostics._finding import Severity
from unialign.diagnostics._format import number, percent, row_list, rows_of

Kind = Literal[
    "identical", "same", "rounded", "truncated", "partly_changed", "reordered", "shifted", "rotated", "changed",
    "different", "too_few",
]  # fmt: skip

SEVERITY: dict[Kind, Severity] = {
    "identical": "ok",
    "same": "ok",
    "rounded": "note",
    "truncated": "warning",
    "shifted": "warning",
    "rotated": "warning",
    "too_few": "note",
    "partly_changed": "problem",
    "reordered": "problem",
    "changed": "problem",
    "different": "problem",
}

# 1 - cosine below which two rows are equal up to float32 arithmetic (batch size, kernel, device).
SAME_ERROR = 1e-6
# 1 - cosine below which a typical row is the same vector with rounding noise: int8 codes of 32 or more columns and
# models run in bfloat16 are below 0.002.
ROUNDED_ERROR = 0.01
# 1 - cosine of the first columns below which one version is a prefix of the other, even if this changes neighbors.
PREFIX_ERROR = 0.001
# 1 - cosine below which a copy of signs is a rounded copy; the expected value of Gaussian entries is 1 - sqrt(2 / pi).
SIGNS_ERROR = 0.4
# A row is changed if its error is at least 0.01 and exceeds the median error by this factor. Rounding errors of rows
# of one model differ by less than a factor of 10.
OUTLIER_ERROR, OUTLIER_FACTOR = 0.01, 50.0
# Fraction of equal nearest rows below which noise changes search results.
MIN_OVERLAP = 0.9
# Agreement of the cosines between items above which two versions are equal up to a rotation.
ROTATED_AGREEMENT = 0.995
# Median cosine of held-out counterparts after the best rotation, above which one version is a noisy rotation or a
# projection of the other.
ROTATED_COSINE = 0.95
# Fraction of probes whose counterpart is another row, above which rows are in another order.
REORDERED = 0.9
# Median cosine of centered counterparts above which versions are related row by row.
RELATED_COSINE = 0.3
# Variation of the ratio of norms (95 % quantile / 5 % quantile - 1) below which there is one scale factor.
SCALE_SPREAD = 0.01
# Number of items below which only row-by-row verdicts are given.
FEW_ITEMS = 50


@dataclass(frozen=True)
class DriftFacts:
    """What the rules need to know about a modality; NaN if undefined.

    Attributes:
        items: number of valid items in both versions.
        median_error: median of 1 - cosine over items.
        largest_error: its largest value.
        changed: number of rows whose error is far above the median.
        first_changed, last_changed: the first of these rows, and the last one, by row number in the new version.
        moved: fraction of the probed rows whose vector is found at another row of the old version.
        offset: difference of row numbers, if most moved rows have the same; None otherwise.
        equal: fraction of rows that are equal in every entry.
        scale, low_scale, high_scale: median, 5 % and 95 % quantiles of the ratio of norms.
        unit_new: whether all new rows have norm 1.
    """

    items: int
    dims: tuple[int, int]
    equal: float
    median_error: float
    largest_error: float
    changed: int
    first_changed: tuple[int, ...]
    last_changed: int
    moved: float
    offset: int | None
    scale: float
    low_scale: float
    high_scale: float
    unit_new: bool
    sample: SampleDrift


@dataclass(frozen=True)
class Verdict:
    """Verdict on one modality: a stable `kind`, its severity, a sentence, and advice ("" if nothing is to be done)."""

    kind: Kind
    severity: Severity
    text: str
    advice: str


def changed_rows(error_P: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the positions of rows whose error is far above that of the typical row; NaN errors are ignored."""
    if not np.isfinite(error_P).any():
        return np.zeros(0, np.int64)
    limit = max(OUTLIER_ERROR, OUTLIER_FACTOR * float(np.nanmedian(error_P)))
    return np.flatnonzero(np.nan_to_num(error_P, nan=0.0) > limit)


def decide(facts: DriftFacts) -> Verdict:
    """Return the verdict on a modality."""
    kind = _kind(facts)
    text, advice = _WORDS[kind](facts)
    return Verdict(kind, SEVERITY[kind], text, advice)


def _kind(f: DriftFacts) -> Kind:
    if f.items == 0:
        return "too_few"
    if f.equal == 1.0:
        return "identical"
    sample, same_width = f.sample, f.dims[0] == f.dims[1]
    is_close = f.median_error <= ROUNDED_ERROR
    if is_close and f.changed:
        return "partly_changed"
    if is_close and same_width and f.largest_error <= SAME_ERROR and not sample.precision:
        return "same"
    if not same_width and f.median_error <= PREFIX_ERROR:
        return "truncated"
    if is_close and (keeps_neighbors(sample) or sample.precision):
        return "rounded" if same_width else "truncated"
    if sample.precision == "signs" and f.median_error <= SIGNS_ERROR:
        return "rounded"
    if f.moved >= REORDERED:
        return "reordered"
    if f.items < FEW_ITEMS:
        return "too_few"
    if not is_close and sample.centered_cosine >= 1 - ROUNDED_ERROR:
        return "shifted"
    if not is_close and _is_rotated(sample):
        return "rotated"
    return "changed" if sample.centered_cosine >= RELATED_COSINE else "different"


def _is_rotated(sample: SampleDrift) -> bool:
    agreement = max(np.nan_to_num([sample.cosine_agreement, sample.centered_agreement]))
    return bool(agreement >= ROTATED_AGREEMENT or sample.rotated_cosine >= ROTATED_COSINE)


def keeps_neighbors(sample: SampleDrift) -> bool:
    """Return whether the nearest rows stay the same, or too few items were measured."""
    return sample.overlap is None or sample.overlap.mean >= MIN_OVERLAP


def _scale_words(f: DriftFacts) -> str:
    if f.high_scale / f.low_scale - 1 <= SCALE_SPREAD:
        return "" if abs(f.scale - 1) <= SCALE_SPREAD else f" The new rows are {number(f.scale)} times as long."
    if f.unit_new:
        return " The new rows have norm 1, the old ones have various norms."
    return f" The norms differ by factors of {number(f.low_scale)} to {number(f.high_scale)}."


def _neighbor_words(f: DriftFacts) -> str:
    overlap, stale = f.sample.overlap, f.sample.stale_overlap
    if overlap is None:
        return ""
    words = f" Of the 10 nearest rows within {count(f.sample.items, 'item')}, {percent(overlap.mean)} are the same"
    return words + (f", and {percent(stale.mean)} if only the queries are new." if stale is not None else ".")


def _identical(f: DriftFacts) -> tuple[str, str]:
    return f"All {f.items:,} rows are equal in every entry.", ""


def _same(f: DriftFacts) -> tuple[str, str]:
    scale = _scale_words(f)
    text = f"The rows are the same vectors; the largest difference, 1 - cosine, is {f.largest_error:.1g}.{scale}"
    return text, "Search by cosine, or normalize both versions: inner products depend on the norms." if scale else ""


def _rounded(f: DriftFacts) -> tuple[str, str]:
    how = f" ({f.sample.precision})" if f.sample.precision else ""
    text = (
        f"The new rows are rounded copies of the old ones{how}: 1 - cosine has median {f.median_error:.1g} and is at "
        f"most {f.largest_error:.1g}.{_neighbor_words(f)}{_scale_words(f)}"
    )
    return text, "Both versions can be mixed if this change of the neighbors is acceptable."


def _truncated(f: DriftFacts) -> tuple[str, str]:
    old, new = f.dims
    which = f"the first {new:,} of {old:,} columns of the old rows" if new < old else f"{new - old:,} more columns"
    text = f"The new rows have {which}, with 1 - cosine of at most {f.largest_error:.1g}.{_neighbor_words(f)}"
    return text, f"Cut the longer rows to {min(old, new):,} columns and normalize them again before you compare both."


def _partly_changed(f: DriftFacts) -> tuple[str, str]:
    consecutive = f.changed > 1 and f.last_changed - f.first_changed[0] + 1 == f.changed
    where = (
        f"rows {f.first_changed[0]:,} to {f.last_changed:,}" if consecutive else row_list(f.first_changed, f.changed)
    )
    text = (
        f"{rows_of(f.changed, f.items)} {'were' if f.changed > 1 else 'was'} computed differently ({where}). For the "
        f"other rows, 1 - cosine has median {f.median_error:.1g}."
    )
    if f.moved >= REORDERED:
        return f"{text} They are stored at other positions.", "Sort both versions by their ids, or store `ids` in both."
    return text, (
        "Compare the inputs of the changed rows, such as long texts that were cut, images of another size, failed "
        "files and batches with another padding, and embed these rows again."
    )


def _reordered(f: DriftFacts) -> tuple[str, str]:
    where = f", {abs(f.offset):,} rows {'later' if f.offset > 0 else 'earlier'}" if f.offset else " in another order"
    text = f"The old rows contain the vectors of {percent(f.moved)} of the new rows at other positions{where}."
    return text, "Store `ids` in both versions, so that rows are matched by item, or sort both in the same way."


def _shifted(f: DriftFacts) -> tuple[str, str]:
    text = (
        "The versions are equal up to a constant vector: the median cosine of counterparts is "
        f"{number(1 - f.median_error)}, and {number(f.sample.centered_cosine)} after centering.{_neighbor_words(f)}"
    )
    return text, "Subtract the same mean from both versions; compare the last steps of both pipelines for a centering."


def _rotated(f: DriftFacts) -> tuple[str, str]:
    sample = f.sample
    fit = (
        f" After the best rotation, fitted to other rows, the median cosine is {number(sample.rotated_cosine)}."
        if np.isfinite(sample.rotated_cosine)
        else ""
    )
    what = (
        "a rotation"
        if f.dims[0] == f.dims[1]
        else f"a rotation and a projection, {f.dims[0]:,} to {f.dims[1]:,} columns"
    )
    agreement = number(max(np.nan_to_num([sample.cosine_agreement, sample.centered_agreement])))
    text = (
        f"The versions are equal up to {what}: the cosines between items have correlation {agreement}.{fit}"
        f"{_neighbor_words(f)}"
    )
    return text, "Never search one version with queries of the other; `unialign bridge` fits the map between them."


def _changed(f: DriftFacts) -> tuple[str, str]:
    text = (
        "All rows changed, but each is still similar to its counterpart: the median cosine is "
        f"{number(1 - f.median_error)} (other items: {number(f.sample.random_cosine)}).{_neighbor_words(f)}"
    )
    return text, (
        "Compare prompt, tokenizer, image size, pooling, precision and weights of both pipelines. Embed the items "
        "again, or convert the old rows with `unialign bridge`."
    )


def _different(f: DriftFacts) -> tuple[str, str]:
    cosine = "" if f.dims[0] != f.dims[1] else f" The median cosine of counterparts is {number(1 - f.median_error)}."
    dims = f" The rows have {f.dims[0]:,} and {f.dims[1]:,} columns." if f.dims[0] != f.dims[1] else ""
    text = (
        f"The versions come from different models, or their rows are not the same items.{dims}{cosine} The cosines "
        f"between items have correlation {number(f.sample.cosine_agreement)}.{_neighbor_words(f)}"
    )
    return text, (
        "Check that row i of both versions is the same item. If it is, embed all items again, or measure with "
        "`unialign bridge` what a map between the versions keeps."
    )


def _too_few(f: DriftFacts) -> tuple[str, str]:
    if f.items == 0:
        return "No item has a valid row in both versions.", "Check the ids and the presence masks of both versions."
    text = (
        f"The rows differ (the median cosine of counterparts is {number(1 - f.median_error)}), and "
        f"{count(f.items, 'item')} are too few to find out how."
    )
    return text, f"Compare at least {FEW_ITEMS} items."


_WORDS = {
    "identical": _identical,
    "same": _same,
    "rounded": _rounded,
    "truncated": _truncated,
    "partly_changed": _partly_changed,
    "reordered": _reordered,
    "shifted": _shifted,
    "rotated": _rotated,
    "changed": _changed,
    "different": _different,
    "too_few": _too_few,
}

SENTENCES: dict[Kind, str] = {
    "identical": "is identical in both versions",
    "same": "is the same up to float32 arithmetic",
    "rounded": "is the same up to rounding",
    "truncated": "has another number of columns, with the same first columns",
    "partly_changed": "was computed differently for part of the rows",
    "reordered": "has its rows in another order",
    "shifted": "is the same up to a constant vector",
    "rotated": "is the same up to a rotation or projection",
    "changed": "changed in all rows, as after other preprocessing or training",
    "different": "comes from a different model",
    "too_few": "cannot be compared",
}


def summarize_verdicts(verdicts: dict[str, Verdict]) -> str:
    """Return one sentence on all modalities, the most severe first."""
    kinds = dict.fromkeys(verdict.kind for verdict in verdicts.values())
    ordered = sorted(kinds, key=lambda kind: ("problem", "warning", "note", "ok").index(SEVERITY[kind]))
    parts = [
        f"{join_words(name for name, verdict in verdicts.items() if verdict.kind == kind)} {SENTENCES[kind]}"
        for kind in ordered
    ]
    return f"{'; '.join(parts)}."
