"""Affine layers that remove differences of mean and covariance between modalities.

Shapes: `n` rows of a modality, `X` rows of all modalities, `D` dimension, `r` dimension of the span of all rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unialign.errors import DataError

Method = Literal["none", "center", "coral", "center_csls"]
# Methods from the smallest to the largest change.
METHODS: tuple[Method, ...] = ("none", "center", "coral", "center_csls")
# Methods that are an affine layer followed by normalization.
AFFINE: tuple[Method, ...] = ("none", "center", "coral")
# Weight of the isotropic covariance in CORAL. With a smaller weight, the precision decreases on spaces without a gap.
SHRINKAGE = 0.9
# With fewer rows of a modality, only centering is a candidate.
MIN_ROWS = 50


@dataclass(frozen=True)
class Affine:
    """The map z -> z @ weight + bias, in float64. None is the identity matrix."""

    weight: Tensor | None
    bias: Tensor

    def __call__(self, z_BD: Tensor) -> Tensor:
        return (z_BD if self.weight is None else z_BD @ self.weight) + self.bias


def fit_layers(method: Method, rows: Mapping[str, Tensor]) -> dict[str, Affine]:
    """Fit a layer per modality. `center` subtracts the mean m_i of a modality. `coral` also aligns the covariances
    (correlation alignment, Sun, Feng and Saenko, AAAI 2016): z -> (z - m_i) C_i^(-1/2) P^(1/2) with C_i = .1 S_i + .9
    (tr S_i / D) I, where S_i is the covariance of the modality and P the mean of all C_i.
    """
    if method == "none":
        return {name: Affine(None, torch.zeros_like(z_nD[0])) for name, z_nD in rows.items()}
    means = {name: z_nD.mean(0) for name, z_nD in rows.items()}
    for name, z_nD in rows.items():
        if not bool(((z_nD - means[name]).abs() > 1e-9).any()):
            raise DataError(
                f"all {len(z_nD)} rows of {name!r} are equal, so they have no direction after centering; leave it out "
                "with `modalities`"
            )
    if method != "coral":
        return {name: Affine(None, -mean_D) for name, mean_D in means.items()}
    weights = _coral_weights({name: z_nD - means[name] for name, z_nD in rows.items()})
    return {name: Affine(weight_DD, -means[name] @ weight_DD) for name, weight_DD in weights.items()}


def _coral_weights(centered: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of `coral`. With fewer rows than dimensions, the roots are computed in the span of the rows,
    since C_i is a multiple of the identity in the orthogonal complement.
    """
    every_XD = torch.cat(list(centered.values()))
    dim = every_XD.shape[1]
    identity_DD = torch.eye(dim, dtype=torch.float64)
    floors = {name: SHRINKAGE * z_nD.square().sum() / (len(z_nD) * dim) for name, z_nD in centered.items()}
    floor = torch.stack(list(floors.values())).mean()
    basis_Dr = torch.linalg.qr(every_XD.mT)[0] if len(every_XD) < dim else identity_DD
    shrunk = {name: _shrunk_covariance(z_nD @ basis_Dr, floors[name]) for name, z_nD in centered.items()}
    target_rr = _power(torch.stack(list(shrunk.values())).mean(0), 0.5)
    outside_DD = identity_DD - basis_Dr @ basis_Dr.mT
    return {
        name: basis_Dr @ _power(c_rr, -0.5) @ target_rr @ basis_Dr.mT + (floor / floors[name]).sqrt() * outside_DD
        for name, c_rr in shrunk.items()
    }


def _shrunk_covariance(centered_nr: Tensor, floor: Tensor) -> Tensor:
    covariance_rr = centered_nr.mT @ centered_nr / len(centered_nr)
    return (1 - SHRINKAGE) * covariance_rr + floor * torch.eye(len(covariance_rr), dtype=torch.float64)


def _power(symmetric_DD: Tensor, exponent: float) -> Tensor:
    values_D, vectors_DD = torch.linalg.eigh(symmetric_DD)
    power_DD: Tensor = (vectors_DD * values_D**exponent) @ vectors_DD.mT
    return power_DD
