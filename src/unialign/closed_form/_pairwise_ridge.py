"""Compute ridge regressions between all ordered pairs of modalities from their second moments.

Shapes: `N` items, `n` common rows of two modalities, `W`, `V` dimensions of two modalities, `R` dimensions of all
modalities, `D` dimension of the space.
"""

from collections.abc import Sequence
from itertools import pairwise, permutations

import torch
from torch import Tensor

from unialign.closed_form._item_blocks import item_blocks
from unialign.closed_form._modality import ModalityRows
from unialign.errors import DataError
from unialign.space import leading_eigenvectors


class PairwiseRidge:
    """Ridge regressions between all modalities, projected onto the principal components of the targets.

    The target of an item is the concatenation of the normalized features of all modalities, each divided by the square
    root of its dimension, with zeros for absent modalities. A modality predicts the features of each other modality
    from the rows that have both; its own features are used unchanged.
    """

    def __init__(self, modalities: Sequence[ModalityRows], dims: Sequence[int], items: int) -> None:
        self.modalities, self._dims = modalities, dims
        total = sum(dims)
        self._target_RR = torch.zeros(total, total, dtype=torch.float64)
        # For each ordered pair, sum over the rows that have both modalities: the second moments of the first modality,
        # and the number of rows.
        self._moments = {
            pair: torch.zeros(dims[pair[0]], dims[pair[0]], dtype=torch.float64)
            for pair in permutations(range(len(dims)), 2)
        }
        self._rows = dict.fromkeys(self._moments, 0)
        for block, parts in item_blocks(modalities, items):
            self._add(block.stop - block.start, parts)
        places = torch.tensor([0, *dims]).cumsum(0).tolist()
        self._parts = [slice(first, last) for first, last in pairwise(places)]
        for part, modality in zip(self._parts, modalities, strict=True):
            if float(self._target_RR[part, part].diagonal().sum()) == 0:
                raise DataError(
                    f"all {len(modality.positions_n)} training rows of {modality.name!r} are equal, so they predict "
                    f"nothing; omit {modality.name!r}"
                )
        self._solved = self._decomposed()

    def _add(self, size: int, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        stacked_bR = torch.zeros(size, sum(self._dims), dtype=torch.float64)
        present = torch.zeros(len(parts), size, dtype=torch.bool)
        for m, ((places_n, rows_nW), column_bW) in enumerate(
            zip(parts, torch.split(stacked_bR, list(self._dims), 1), strict=True)
        ):
            column_bW[places_n] = rows_nW
            present[m, places_n] = True
        self._target_RR.addmm_(stacked_bR.mT, stacked_bR)
        columns = torch.split(stacked_bR, list(self._dims), 1)
        for m, n in self._moments:
            common_nW = columns[m][present[m] & present[n]]
            self._moments[m, n].addmm_(common_nW.mT, common_nW)
            self._rows[m, n] += len(common_nW)

    def _decomposed(self) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
        solved: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        complete: dict[int, tuple[Tensor, Tensor]] = {}
        for (m, n), moment_WW in self._moments.items():
            # If every row of m also has n, the moments are those of all rows of m, which are decomposed only once.
            is_complete = self._rows[m, n] == len(self.modalities[m].positions_n)
            found = complete.get(m) if is_complete else None
            if found is None:
                found = torch.linalg.eigh(moment_WW)
            if is_complete:
                complete[m] = found
            solved[m, n] = found
        return solved

    def axes(self, dim: int) -> Tensor:
        scale_R = self._scale()
        return leading_eigenvectors(scale_R[:, None] * self._target_RR * scale_R, most=dim)[1]

    def weights(self, regularization: float, axes_RD: Tensor) -> dict[str, Tensor]:
        scaled_RD = self._scale()[:, None] * axes_RD
        found = {}
        for m, modality in enumerate(self.modalities):
            weights_WD = scaled_RD[self._parts[m]].clone()
            for n in range(len(self.modalities)):
                if n != m and self._rows[m, n]:
                    weights_WD += self._regression(m, n, regularization, scaled_RD[self._parts[n]])
            found[modality.name] = weights_WD
        return found

    def pairs_without_rows(self) -> list[str]:
        names = [modality.name for modality in self.modalities]
        return [f"{names[m]}, {names[n]}" for (m, n), rows in self._rows.items() if m < n and rows == 0]

    def _regression(self, m: int, n: int, regularization: float, axes_VD: Tensor) -> Tensor:
        values_W, vectors_WW = self._solved[m, n]
        # Absent rows are 0, so the product over all items equals the product over the common rows.
        product_WD = self._target_RR[self._parts[m], self._parts[n]] @ axes_VD
        ridge_W = values_W + regularization * self._rows[m, n]
        prediction_WD: Tensor = vectors_WW @ (vectors_WW.mT @ product_WD / ridge_W[:, None])
        return prediction_WD

    def _scale(self) -> Tensor:
        return torch.cat([torch.full((dim,), dim**-0.5, dtype=torch.float64) for dim in self._dims])
