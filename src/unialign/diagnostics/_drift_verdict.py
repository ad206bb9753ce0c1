"""Decide how two versions of a modality differ. The first rule that holds gives the verdict."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unialign._plain_text import join_words
from unialign.diagnostics._drift_sample import SampleDrift
from unialign.diagnostics._drift_words import FEW_ITEMS, REORDERED, WORDS, DriftFacts, Kind, presence_words
from unialign.diagnostics._finding import Severity

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
    "missing_rows": "problem",
}

# 1 - cosine below which two rows are equal up to float32 arithmetic (batch size, kernel, device).
SAME_ERROR = 1e-6
# 1 - cosine below which a typical row is the same vector with rounding noise: int8 codes of 32 or more columns and
# models run in bfloat16 are below 0.002.
ROUNDED_ERROR = 0.01
# 1 - cosine of the first columns below which one version is a prefix of the other, even if truncation changes the
# neighbors.
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
# Median cosine of centered counterparts above which versions are related row by row.
RELATED_COSINE = 0.3


@dataclass(frozen=True)
class Verdict:
    """Verdict on one modality: a stable `kind`, its severity, a sentence, and advice ("" if nothing is to be done)."""

    kind: Kind
    severity: Severity
    text: str
    advice: str


def changed_rows(error_P: NDArray[np.float32]) -> NDArray[np.int64]:
    if not np.isfinite(error_P).any():
        return np.zeros(0, np.int64)
    limit = max(OUTLIER_ERROR, OUTLIER_FACTOR * float(np.nanmedian(error_P)))
    return np.flatnonzero(np.nan_to_num(error_P, nan=0.0) > limit)


def decide(facts: DriftFacts) -> Verdict:
    kind = _kind(facts)
    if facts.lost and SEVERITY[kind] != "problem":
        # A loss of rows is a problem, even if the other rows did not change.
        text, advice = WORDS["missing_rows"](facts)
        if kind not in ("identical", "too_few"):
            others = WORDS[kind](facts)
            text, advice = others[0], f"{advice} {others[1]}".strip()
        return Verdict("missing_rows", "problem", f"{presence_words(facts)} {text}".strip(), advice)
    text, advice = WORDS[kind](facts)
    return Verdict(kind, SEVERITY[kind], text + presence_words(facts), advice)


def _kind(f: DriftFacts) -> Kind:
    if f.items == 0:
        return "too_few"
    if f.equal == 1.0 and not f.gained:
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
    """Return whether too few items were measured."""
    return sample.overlap is None or sample.overlap.mean >= MIN_OVERLAP


SENTENCES: dict[Kind, str] = {
    "identical": "is identical in both versions",
    "same": "is the same up to float32 arithmetic",
    "rounded": "is the same up to rounding",
    "truncated": "has a different number of columns, with the same first columns",
    "partly_changed": "was computed differently for part of the rows",
    "reordered": "has its rows in a different order",
    "shifted": "is the same up to a constant vector",
    "rotated": "is the same up to a rotation or projection",
    "changed": "changed in all rows, as after different preprocessing or training",
    "different": "comes from a different model",
    "too_few": "cannot be compared",
    "missing_rows": "lacks rows that the old version has",
}


def summarize_verdicts(verdicts: dict[str, Verdict]) -> str:
    kinds = dict.fromkeys(verdict.kind for verdict in verdicts.values())
    ordered = sorted(kinds, key=lambda kind: ("problem", "warning", "note", "ok").index(SEVERITY[kind]))
    parts = [
        f"{join_words(name for name, verdict in verdicts.items() if verdict.kind == kind)} {SENTENCES[kind]}"
        for kind in ordered
    ]
    return f"{'; '.join(parts)}."
