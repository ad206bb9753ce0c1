"""Choose the regularization and the spectrum power of GCCA on validation rows.

Shapes: `N` validation items, `n` rows of a modality, `r` components, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.closed_form._eigenproblem import MaskedGcca, Solution
from unialign.closed_form._modality import Modality, ModalityRows, check_finite
from unialign.data import EmbeddingStore, RowReader
from unialign.evaluation import log_score, selection_metrics
from unialign.space import normalize_rows


class ValidationItems:
    def __init__(self, store: EmbeddingStore, names: Sequence[str], rows_N: NDArray[np.int64]) -> None:
        self.items, self._store, self._rows_N = len(rows_N), store, rows_N
        self.present = {name: torch.from_numpy(store.present(name)[rows_N]) for name in names}
        labels_N = torch.from_numpy(store.labels[rows_N])
        self._labels_N = labels_N if bool((labels_N >= 0).any()) else None
        self._ids_N = torch.from_numpy(store.ids[rows_N]) if store.has_ids else None

    def normalized(self, modality: ModalityRows) -> Tensor:
        rows_n = self._rows_N[self.present[modality.name].numpy()]
        raw_nW = torch.from_numpy(RowReader(self._store.array(modality.name)).read(rows_n))
        x_nW = normalize_rows(modality.norm, raw_nW)
        check_finite(x_nW, rows_n, modality.name)
        return x_nW

    def metrics(self, rows: Mapping[str, Tensor]) -> dict[str, float]:
        embeddings = {}
        for name, z_nD in rows.items():
            embeddings[name] = z_nD.new_zeros(self.items, z_nD.shape[1])
            embeddings[name][self.present[name]] = z_nD
        return selection_metrics(embeddings, present=self.present, ids=self._ids_N, labels=self._labels_N)


def choose(
    problem: MaskedGcca,
    validation: ValidationItems,
    *,
    dim: int,
    regularizations: Sequence[float],
    powers: Sequence[float],
) -> tuple[float, float, dict[str, Any]]:
    """Maximize the mean logarithm of the metrics."""
    coordinates = {m.name: m.basis.vectors(validation.normalized(m)) for m in problem.modalities}
    best: tuple[float, float, float, dict[str, float]] | None = None
    for regularization in regularizations:
        solution = problem.solve(regularization, dim)
        for power in powers:
            metrics = validation.metrics(embed(problem.modalities, solution, coordinates, power))
            if not metrics:
                continue
            score = log_score(metrics, items=validation.items)
            if best is None or score > best[0]:
                best = score, regularization, power, metrics
    if best is None:
        return regularizations[0], powers[0], {"metrics": {}}
    return best[1], best[2], {"metrics": best[3]}


def embed(
    modalities: Sequence[Modality], solution: Solution, coordinates: Mapping[str, Tensor], power: float
) -> dict[str, Tensor]:
    scale_D = solution.eigenvalues_D.clamp(min=0) ** power
    return {
        modality.name: (
            coordinates[modality.name]
            * modality.basis.ridge_weights(solution.regularization)
            @ (solution.weights[modality.name] * scale_D)
        )
        for modality in modalities
    }
