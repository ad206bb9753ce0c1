"""Pairwise ridge regression of a store, as a space.

Shapes: `N` items, `n` rows of a modality, `W` dimension of a modality, `D` dimension of the space.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from unialign._checks import check_integer, check_number, check_seed
from unialign.closed_form._modality import read_modality
from unialign.closed_form._pairwise_ridge import PairwiseRidge
from unialign.closed_form._selection import ValidationItems
from unialign.closed_form._space import encoders_and_metadata, scaled_weights
from unialign.closed_form._training_rows import Rows, check_modalities, fitted_rows, row_facts, selection_rows
from unialign.data import EmbeddingStore
from unialign.evaluation import log_score
from unialign.space import Space, normalization_of, set_linear_head

# Candidates of `regularization="auto"`; the first of equally good candidates is chosen.
_REGULARIZATIONS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


@torch.no_grad()
def ridge(
    store: EmbeddingStore,
    *,
    dim: int = 256,
    regularization: float | Literal["auto"] = "auto",
    modalities: Sequence[str] | None = None,
    seed: int = 0,
) -> Space:
    """Compute a space in which every modality predicts the features of all modalities by ridge regression.

    A modality maps to the concatenation of its standardized features and of its predictions of the standardized
    features of every other modality. The regressions use the rows that have both modalities (Hoerl, Kennard 1970,
    "Ridge regression", equation 2.1). The concatenation is reduced to its D principal components over the training
    items. This method is a baseline, since it compares predictions with features instead of finding common directions.
    Equal arguments give equal spaces.

    Args:
        store: store of features with a split "train" and, preferably, a split "val".
        dim: dimension D of the space. If the features have fewer dimensions in total, the other coordinates are 0.
        regularization: positive ridge penalty, divided by the number of rows of a pair of modalities. `auto`: the value
            is chosen by the mean logarithm of R@1, joint R@1 and label mAP on the validation split or, without one, on
            held-out training rows.
        modalities: modalities of the space, at least two. None: the defaults of the store.
        seed: seed of the choice of held-out rows.

    Raises:
        ConfigError, DataError, NonFiniteError: as in `gcca`.
    """
    check_integer("dim", dim, low=1)
    check_seed(seed)
    if regularization != "auto":
        check_number("regularization", regularization, "'auto' or a positive finite number", lambda x: 0 < x < math.inf)
    names = check_modalities(store, modalities)
    rows_N = fitted_rows(store, names)
    selection: dict[str, Any] | None = None
    if regularization == "auto":
        regularization, selection = _choose(store, names, rows_N, dim, seed)
    problem = _problem(store, names, rows_N)
    axes_RD = problem.axes(dim)
    facts = {
        "method": "ridge",
        "regularization": regularization,
        "selection": selection,
        "directions": axes_RD.shape[1],
        "pairs_without_rows": problem.pairs_without_rows(),
        **row_facts(store, names, rows_N),
    }
    with torch.random.fork_rng(devices=[]):
        space = Space(
            {name: store.dim(name) for name in names},
            dim=dim,
            head="linear",
            **encoders_and_metadata(store, names, facts),
        )
    weights = problem.weights(regularization, axes_RD)
    for place, modality in enumerate(problem.modalities):
        normalization_of(space.features[place]).load_state_dict(modality.norm.state_dict())
        set_linear_head(space, modality.name, scaled_weights(weights[modality.name], dim).mT)
    return space.eval()


def _problem(store: EmbeddingStore, names: Sequence[str], rows_N: Rows) -> PairwiseRidge:
    modalities = [read_modality(store, name, rows_N, input_norm="standardize") for name in names]
    return PairwiseRidge(modalities, [store.dim(name) for name in names], len(rows_N))


def _choose(
    store: EmbeddingStore, names: Sequence[str], rows_N: Rows, dim: int, seed: int
) -> tuple[float, dict[str, Any]]:
    """Maximize the mean logarithm of the metrics."""
    chosen = selection_rows(store, names, rows_N, seed=seed)
    if chosen is None:
        return _REGULARIZATIONS[0], {"source": "defaults, since no rows could be held out"}
    problem = _problem(store, names, chosen.fit_N)
    axes_RD, validation = problem.axes(dim), ValidationItems(store, names, chosen.score_N)
    rows = {modality.name: validation.normalized(modality) for modality in problem.modalities}
    best: tuple[float, float, dict[str, float]] | None = None
    for regularization in _REGULARIZATIONS:
        weights = problem.weights(regularization, axes_RD)
        metrics = validation.metrics({name: rows[name] @ weights[name] for name in names})
        if metrics and (best is None or log_score(metrics, items=validation.items) > best[0]):
            best = log_score(metrics, items=validation.items), regularization, metrics
    described = {"source": chosen.source, "items": validation.items, "metrics": {} if best is None else best[2]}
    return _REGULARIZATIONS[0] if best is None else best[1], described
