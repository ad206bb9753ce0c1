"""Ridge regression from the features of one modality to fixed embeddings of other modalities.

Shapes: `N` items, `n` rows of the modality, `W` dimension of its features, `D` dimension of the space, `r` components.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unialign._plain_text import count
from unialign.closed_form._modality import LinearBasis, ModalityRows, linear_basis
from unialign.closed_form._selection import ValidationItems
from unialign.closed_form._space import scaled_weights
from unialign.closed_form._training_rows import Rows, selection_rows
from unialign.data import EmbeddingStore
from unialign.errors import DataError
from unialign.evaluation import log_score
from unialign.space import Space, normalization_of, normalized_blocks, set_linear_head

# Candidates of the regularization; features with more columns than rows need values above 1.
_REGULARIZATIONS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


@torch.no_grad()
def fit_ridge_head(
    space: Space,
    store: EmbeddingStore,
    name: str,
    targets: Sequence[str],
    *,
    regularization: float | Literal["auto"] = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Set the linear head of a modality by ridge regression, and return a description.

    The regression predicts, for each training item, the mean direction of the embeddings of its present targets, minus
    the mean of these directions over the items, from the standardized features (Hoerl, Kennard 1970, "Ridge
    regression", equation 2.1). The statistics of the features must be fitted. `auto` chooses the regularization as
    `ridge` does.

    Raises:
        DataError: fewer than two training items have the modality and a target.
    """
    rows_N = _paired(store, name, targets, store.rows("train"))
    if len(rows_N) < 2:
        raise DataError(
            f"{name!r} is in {count(len(rows_N), 'training row')} of {store.name!r} with one of "
            f"{', '.join(targets)}; a head needs at least 2"
        )
    selection: dict[str, Any] | None = None
    if regularization == "auto":
        regularization, selection = _choose(space, store, name, targets, rows_N, seed)
    weight_WD = _Problem(space, store, name, targets, rows_N).solve(regularization)
    set_linear_head(space, name, scaled_weights(weight_WD, space.dim).mT)
    return {"regularization": regularization, "selection": selection, "rows": len(rows_N), "targets": list(targets)}


class _Problem:
    """Regression on given rows; `solve` returns the weights (W, D) of a regularization."""

    def __init__(self, space: Space, store: EmbeddingStore, name: str, targets: Sequence[str], rows_N: Rows) -> None:
        self.modality = _modality(space, store, name, rows_N)
        self._basis: LinearBasis = linear_basis(self.modality.blocks, len(rows_N), space.dims[name], name=name)
        y_ND = target_directions(space, store, targets, rows_N)
        y_ND = y_ND - y_ND.mean(0)
        start, self._product_rD = 0, y_ND.new_zeros(len(self._basis.spectrum_r), space.dim)
        for x_bW in self.modality.blocks():
            self._product_rD += self._basis.vectors(x_bW).mT @ y_ND[start : start + len(x_bW)]
            start += len(x_bW)

    def solve(self, regularization: float) -> Tensor:
        shrunk_rD = self._basis.ridge_weights(regularization)[:, None] * self._product_rD
        return self._basis.axes_Wr @ shrunk_rD


def target_directions(space: Space, store: EmbeddingStore, targets: Sequence[str], rows_N: Rows) -> Tensor:
    """Return (N, D) unit directions in float64 of the sums of the embeddings of the present targets."""
    present = {target: store.present(target)[rows_N] for target in targets}
    z = space.encode({target: store.array(target)[rows_N] for target in targets}, present=present)
    total_ND = torch.stack([z[target].cpu().double() for target in targets]).sum(0)
    return torch.nn.functional.normalize(total_ND, dim=1)


def _modality(space: Space, store: EmbeddingStore, name: str, rows_N: Rows) -> ModalityRows:
    # Compute on the CPU in float64, and leave the space as it is.
    norm = normalization_of(space.features[space.modalities.index(name)])
    positions_n = np.flatnonzero(store.present(name)[rows_N])
    return ModalityRows(name, norm, positions_n, normalized_blocks(norm, store.array(name), rows_N[positions_n]))


def _paired(store: EmbeddingStore, name: str, targets: Sequence[str], rows_N: Rows) -> Rows:
    has_target_N = np.stack([store.present(target)[rows_N] for target in targets]).any(0)
    return np.asarray(rows_N[store.present(name)[rows_N] & has_target_N])


def _choose(
    space: Space, store: EmbeddingStore, name: str, targets: Sequence[str], rows_N: Rows, seed: int
) -> tuple[float, dict[str, Any]]:
    """Maximize the mean logarithm of the metrics between the modality and the targets."""
    names = (name, *targets)
    chosen = selection_rows(store, names, rows_N, seed=seed)
    fit_N = None if chosen is None else _paired(store, name, targets, chosen.fit_N)
    score_N = None if chosen is None else _paired(store, name, targets, chosen.score_N)
    if chosen is None or fit_N is None or score_N is None or min(len(fit_N), len(score_N)) < 2:
        return 1.0, {"source": "defaults, since no rows could be held out"}
    problem, validation = _Problem(space, store, name, targets, fit_N), ValidationItems(store, names, score_N)
    z = space.encode(
        {target: store.array(target)[score_N] for target in targets},
        present={target: store.present(target)[score_N] for target in targets},
    )
    rows = {target: z[target].cpu().double()[validation.present[target]] for target in targets}
    x_nW = validation.normalized(problem.modality)
    best: tuple[float, float, dict[str, float]] | None = None
    for regularization in _REGULARIZATIONS:
        metrics = validation.metrics(rows | {name: x_nW @ problem.solve(regularization)})
        if metrics and (best is None or log_score(metrics, items=validation.items) > best[0]):
            best = log_score(metrics, items=validation.items), regularization, metrics
    described = {"source": chosen.source, "items": validation.items, "metrics": {} if best is None else best[2]}
    return 1.0 if best is None else best[1], described
