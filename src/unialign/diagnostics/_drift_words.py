"""Describe how two versions of a modality differ, with advice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unialign._plain_text import count
from unialign.diagnostics._drift_sample import SampleDrift
from unialign.diagnostics._format import number, percent, row_list, rows_of

Kind = Literal[
    "identical", "same", "rounded", "truncated", "partly_changed", "reordered", "shifted", "rotated", "changed",
    "different", "too_few", "missing_rows",
]  # fmt: skip

# Number of items below which only row-by-row verdicts are given.
FEW_ITEMS = 50
# Fraction of probes whose counterpart is another row, above which the rows are in a different order.
REORDERED = 0.9
# Variation of the ratio of norms (95 % quantile / 5 % quantile - 1) below which there is one scale factor.
SCALE_SPREAD = 0.01


@dataclass(frozen=True)
class DriftFacts:
    """Numbers of a modality for the rules; NaN if undefined.

    Attributes:
        items: number of valid items in both versions.
        median_error: median of 1 - cosine over items.
        largest_error: largest value of 1 - cosine over items.
        changed: number of rows whose error is far above the median.
        first_changed, last_changed: the first and the last changed row, by row number in the new version.
        lost: number of rows that are valid in the old version, but absent, zero or not finite in the new version.
        gained: number of rows that are valid in the new version only.
        first_lost, first_gained: the first lost and the first gained row, by row number in the new version.
        moved: fraction of the probed rows whose vector is found at another row of the old version.
        offset: difference of row numbers if it is the same for most moved rows; else None.
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
    lost: int
    first_lost: tuple[int, ...]
    gained: int
    first_gained: tuple[int, ...]
    moved: float
    offset: int | None
    scale: float
    low_scale: float
    high_scale: float
    unit_new: bool
    sample: SampleDrift


def _scale_words(f: DriftFacts) -> str:
    if f.high_scale / f.low_scale - 1 <= SCALE_SPREAD:
        return "" if abs(f.scale - 1) <= SCALE_SPREAD else f" The new rows are {_ratio(f.scale)} times as long."
    if f.unit_new:
        return " The new rows have norm 1; the norms of the old rows vary."
    return f" The norms differ by factors of {_ratio(f.low_scale)} to {_ratio(f.high_scale)}."


def _ratio(value: float) -> str:
    return number(value) if 0.01 <= value < 1e6 else f"{value:.2g}"


def presence_words(f: DriftFacts) -> str:
    """Describe the rows that are valid in only one version; "" if there are none."""
    words = ""
    if f.lost:
        verb = "is" if f.lost == 1 else "are"
        words += (
            f" {count(f.lost, 'row')} of the old version {verb} absent, zero or not finite in the new version "
            f"({row_list(f.first_lost, f.lost)})."
        )
    if f.gained:
        verb = "is" if f.gained == 1 else "are"
        words += (
            f" {count(f.gained, 'row')} {verb} valid only in the new version ({row_list(f.first_gained, f.gained)})."
        )
    return words


def _neighbor_words(f: DriftFacts) -> str:
    overlap, stale = f.sample.overlap, f.sample.stale_overlap
    if overlap is None:
        return ""
    words = f" Of the 10 nearest rows within {count(f.sample.items, 'item')}, {percent(overlap.mean)} are the same"
    return words + (f", and {percent(stale.mean)} if only the queries are new." if stale is not None else ".")


def _identical(f: DriftFacts) -> tuple[str, str]:
    return f"All {f.items:,} rows are equal in every entry.", ""


def _missing_rows(f: DriftFacts) -> tuple[str, str]:
    rest = f"The other {f.items:,} rows" if f.items > 1 else "The other row"
    if f.items == 0:
        text = "No row is valid in both versions."
    elif f.equal == 1.0:
        text = f"{rest} {'are' if f.items > 1 else 'is'} equal in every entry."
    else:
        text = f"{rest} {'have' if f.items > 1 else 'has'} a median cosine of {number(1 - f.median_error)}."
    return text, (
        "Embed the missing rows again; look for failed files, empty texts and overflow in float16. If the rows were "
        "removed on purpose, remove them from the old version too."
    )


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
    exact = "" if f.largest_error == 0 else f", with 1 - cosine of at most {f.largest_error:.1g}"
    text = f"The new rows have {which}{exact}.{_neighbor_words(f)}"
    return (
        text,
        f"Truncate the longer rows to {min(old, new):,} columns, and normalize them again before comparing both "
        "versions.",
    )


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
        "Check the inputs of the changed rows (truncated long texts, another image size, failed files, different "
        "padding of batches), and embed these rows again."
    )


def _reordered(f: DriftFacts) -> tuple[str, str]:
    where = f", {count(abs(f.offset), 'row')} {'later' if f.offset > 0 else 'earlier'}" if f.offset else ""
    text = f"{percent(f.moved)} of the tested new vectors are in the old version, but at another position{where}."
    return text, "Store `ids` in both versions, so that rows are matched by item, or sort both in the same way."


def _shifted(f: DriftFacts) -> tuple[str, str]:
    text = (
        "The versions are equal up to a constant vector: the median cosine of counterparts is "
        f"{number(1 - f.median_error)}, and {number(f.sample.centered_cosine)} after centering.{_neighbor_words(f)}"
    )
    return (
        text,
        "Subtract the same mean from both versions; check whether one pipeline centers embeddings in its last steps.",
    )


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
        "All rows changed, but each row is still similar to its counterpart: the median cosine is "
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
        "Check that row i of both versions is the same item. If so, embed all items again, or use `unialign "
        "bridge` to measure how well a map between the versions works."
    )


def _too_few(f: DriftFacts) -> tuple[str, str]:
    if f.items == 0:
        return "No item has a valid row in both versions.", "Check the ids and the presence masks of both versions."
    text = (
        f"The rows differ (the median cosine of counterparts is {number(1 - f.median_error)}), but there are too "
        f"few items ({f.items:,}) to determine how."
    )
    return text, f"Compare at least {FEW_ITEMS} items."


WORDS: dict[Kind, Callable[[DriftFacts], tuple[str, str]]] = {
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
    "missing_rows": _missing_rows,
}
