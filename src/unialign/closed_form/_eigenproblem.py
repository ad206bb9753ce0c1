"""Masked MAXVAR GCCA: the eigenproblem of the sum of the ridge smoothers of all modalities.

MAXVAR (Kettenring 1971, "Canonical analysis of several sets of variables", section 5) finds targets G (N, D) that all
modalities predict best. With missing rows (van de Velden, Bijmolt 2006, "Generalized canonical correlation analysis of
matrices with missing rows: a simulation study", equation 3), G minimizes the sum of the squared errors over the present
rows, subject to G' C G = I, where C is the diagonal matrix of the number of modalities of each item. With ridge
smoothers P_m = V_m diag(s^2 / (s^2 + regularization n)) V_m', the solution is G = C^-1/2 U, where U are the leading
eigenvectors of C^-1/2 (sum_m P_m) C^-1/2 = B B'. The (N, N) matrix B B' and the (R, R) matrix B'B have the same
positive eigenvalues. The eigenproblem of the smaller matrix is solved.

Shapes: `N` items, `n` rows of a modality, `r` components of a modality, `R` components of all modalities, `D` targets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unialign.closed_form._item_blocks import item_blocks
from unialign.closed_form._modality import Modality, coordinates, counts_of
from unialign.space import leading_eigenvectors


@dataclass(frozen=True)
class Solution:
    """Leading directions: eigenvalues in [0, 1], and weights V'G of shape (r, D) by modality."""

    regularization: float
    eigenvalues_D: Tensor
    weights: Mapping[str, Tensor]


class MaskedGcca:
    def __init__(self, modalities: Sequence[Modality], items: int) -> None:
        self.modalities = modalities
        self._root_N = counts_of(modalities, items).sqrt()
        components = sum(len(modality.basis.spectrum_r) for modality in modalities)
        self._is_dual = _solves_items(items, components)
        if self._is_dual:
            self._coordinates = {modality.name: coordinates(modality) for modality in modalities}
        else:
            self._product_RR = self._products(items, components)

    def solve(self, regularization: float, dim: int) -> Solution:
        return self._solve_items(regularization, dim) if self._is_dual else self._solve_components(regularization, dim)

    def _solve_items(self, regularization: float, dim: int) -> Solution:
        items = len(self._root_N)
        smoother_NN = torch.zeros(items, items, dtype=torch.float64)
        for modality in self.modalities:
            weights_r = modality.basis.ridge_weights(regularization)
            rows_n = torch.from_numpy(modality.positions_n)
            scaled_nr = self._coordinates[modality.name] * weights_r.sqrt() / self._root_N[rows_n, None]
            if len(rows_n) == items:
                smoother_NN.addmm_(scaled_nr, scaled_nr.mT)
            else:
                smoother_NN[rows_n[:, None], rows_n] += scaled_nr @ scaled_nr.mT
        values_D, vectors_ND = leading_eigenvectors(smoother_NN, most=dim)
        targets_ND = vectors_ND / self._root_N[:, None]
        weights = {
            modality.name: self._coordinates[modality.name].mT @ targets_ND[torch.from_numpy(modality.positions_n)]
            for modality in self.modalities
        }
        return Solution(regularization, values_D, weights)

    def _solve_components(self, regularization: float, dim: int) -> Solution:
        scale_R = torch.cat([modality.basis.ridge_weights(regularization).sqrt() for modality in self.modalities])
        values_D, axes_RD = leading_eigenvectors(scale_R[:, None] * self._product_RR * scale_R, most=dim)
        # Since B = C^-1/2 V scale and G = C^-1/2 B axes / sqrt(values), V'G equals axes sqrt(values) / scale.
        weights_RD = axes_RD * values_D.sqrt() / scale_R[:, None]
        sizes = [len(modality.basis.spectrum_r) for modality in self.modalities]
        parts = zip(self.modalities, torch.split(weights_RD, sizes), strict=True)
        return Solution(regularization, values_D, {modality.name: part_rD for modality, part_rD in parts})

    def _products(self, items: int, components: int) -> Tensor:
        """Return the (R, R) matrix V'C^-1 V, where V contains the coordinates of all modalities."""
        product_RR = torch.zeros(components, components, dtype=torch.float64)
        sizes = [len(modality.basis.spectrum_r) for modality in self.modalities]
        for block, parts in item_blocks(self.modalities, items):
            stacked_bR = torch.zeros(block.stop - block.start, components, dtype=torch.float64)
            for modality, (places_n, rows_nW), part_br in zip(
                self.modalities, parts, torch.split(stacked_bR, sizes, 1), strict=True
            ):
                part_br[places_n] = modality.basis.vectors(rows_nW)
            stacked_bR /= self._root_N[block, None]
            product_RR.addmm_(stacked_bR.mT, stacked_bR)
        return product_RR


def _solves_items(items: int, components: int) -> bool:
    """Solve the (N, N) eigenproblem if the coordinates (N, R) are not larger than (R, R)."""
    return items <= components
