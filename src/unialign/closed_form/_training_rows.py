"""Choose the training and validation rows of a closed form.

Shapes: `N` chosen rows of a store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign._plain_text import count
from unialign.data import EmbeddingStore, random_split
from unialign.errors import ConfigError, DataError

Rows = NDArray[np.int64]

# Fraction of the training rows that is held out if the store has no validation split.
_HELD_OUT = 0.15
# Maximum number of validation rows, so that time and memory are bounded.
_MOST_VALIDATION_ROWS = 2000


@dataclass(frozen=True)
class Selection:
    fit_N: Rows
    score_N: Rows
    source: str


def check_modalities(store: EmbeddingStore, modalities: Sequence[str] | None) -> tuple[str, ...]:
    if not isinstance(store, EmbeddingStore):
        raise DataError(
            f"store must be an EmbeddingStore, got {type(store).__name__}; load files or arrays with "
            "`unialign.data.load_dataset`"
        )
    if isinstance(modalities, str):
        raise ConfigError(f"modalities must be a list such as [{modalities!r}], got the string {modalities!r}")
    names = tuple(store.modalities if modalities is None else modalities)
    for name in names:
        if name not in store.columns:
            known = ", ".join(store.columns)
            raise ConfigError(f"unknown modality {name!r}; the store has {known}{suggestion(name, store.columns)}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"a closed form needs at least two distinct modalities, got {', '.join(names) or 'none'}")
    return names


def paired_rows(store: EmbeddingStore, names: Sequence[str], rows_N: Rows) -> Rows:
    counts_N = np.stack([store.present(name)[rows_N] for name in names]).sum(0)
    return rows_N[np.flatnonzero(counts_N >= 2)]


def fitted_rows(store: EmbeddingStore, names: Sequence[str]) -> Rows:
    rows_N = store.rows("train")
    found_N = paired_rows(store, names, rows_N)
    totals = {name: int(store.present(name)[rows_N].sum()) for name in names}
    # The modality with the fewest rows comes first, since an absent modality also leaves others without a partner.
    for name in sorted(names, key=totals.__getitem__):
        pairs = int(store.present(name)[found_N].sum())
        if pairs < 2:
            found = f"{name!r} is in {count(totals[name], 'training row')} of {store.name!r}"
            if totals[name] > 0:
                found += f", but only {pairs} with another modality"
            raise DataError(f"{found}; a closed form needs at least 2, so omit {name!r} or add items")
    return found_N


def row_facts(store: EmbeddingStore, names: Sequence[str], fit_N: Rows) -> dict[str, Any]:
    rows_N = store.rows("train")
    counts_N = np.stack([store.present(name)[rows_N] for name in names]).sum(0)
    return {
        "rows": len(fit_N),
        "rows_with_one_modality": int((counts_N == 1).sum()),
        "rows_without_modality": int((counts_N == 0).sum()),
        "absent": {name: int((~store.present(name)[fit_N]).sum()) for name in names},
    }


def selection_rows(store: EmbeddingStore, names: Sequence[str], fit_N: Rows, *, seed: int) -> Selection | None:
    score_N, source = paired_rows(store, names, store.rows("val")), "validation split"
    if len(score_N) < 2:
        is_held_out_N = random_split(
            len(fit_N), fractions=(1 - _HELD_OUT, _HELD_OUT, 0), groups=store.groups[fit_N], seed=seed
        )
        score_N, fit_N = fit_N[is_held_out_N == 1], fit_N[is_held_out_N == 0]
        source = f"random {_HELD_OUT:.0%} of the training rows, by groups"
        too_few = any(store.present(name)[fit_N].sum() < 2 for name in names)
        if len(score_N) < 2 or too_few:
            return None
    if len(score_N) > _MOST_VALIDATION_ROWS:
        generator = np.random.default_rng(seed)
        score_N = np.sort(generator.choice(score_N, _MOST_VALIDATION_ROWS, replace=False, shuffle=False))
    return Selection(fit_N, score_N, source)
