"""Compute value and gradient in float64 in chunks of rows, without code of the library.

Each formula is a sum over rows i of a term that depends only on row i of the cosines, so autograd can process each
chunk separately.

Shapes: `B` items, `D` dimension, `C` rows of a chunk.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from benchmarks.speed.implementations import BIAS, SCALE, TAU, TAU_UNIFORMITY

__all__ = ["exact", "tangent"]

CHUNK = 512
Exact = tuple[float, list[Tensor]]
# A function of (rows of the chunk, all columns, positions of the chunk's rows among the columns).
Part = Callable[[Tensor, Tensor, Tensor], Tensor]


def exact(loss: str, rows: list[Tensor]) -> Exact:
    leaves = [normalize(z.detach().double(), dim=-1).requires_grad_() for z in rows]
    value = FORMULAS[loss](leaves)
    return value, [tangent(z.detach(), gradient_of(z)) for z in leaves]


def tangent(z_BD: Tensor, gradient_BD: Tensor) -> Tensor:
    """Normalization removes the radial part, in which formulas may differ."""
    return gradient_BD - (gradient_BD * z_BD).sum(-1, keepdim=True) * z_BD


def gradient_of(z_BD: Tensor) -> Tensor:
    assert z_BD.grad is not None
    return z_BD.grad


def over_rows(x_BD: Tensor, y_BD: Tensor, part: Part) -> float:
    """Run a backward pass for each part."""
    total = 0.0
    for places_C in torch.arange(len(x_BD)).split(CHUNK):
        value = part(x_BD[places_C], y_BD, places_C)
        value.backward()
        total += value.item()
    return total


def log_kernel(x_CD: Tensor, y_BD: Tensor, places_C: Tensor) -> Tensor:
    logits_CB = (x_CD @ y_BD.mT - 1) / TAU_UNIFORMITY
    return logits_CB.scatter(1, places_C[:, None], -math.inf)


def outer_log(leaves: list[Tensor], weight: float = 1.0) -> float:
    (z_BD,) = leaves
    before = None if z_BD.grad is None else z_BD.grad.clone()
    z_BD.grad = None
    total = over_rows(z_BD, z_BD, lambda x, y, at: log_kernel(x, y, at).exp().sum())
    z_BD.grad = gradient_of(z_BD) * (weight / total) + (0 if before is None else before)
    return weight * math.log(total / (len(z_BD) * (len(z_BD) - 1)))


def mean_log(leaves: list[Tensor]) -> float:
    (z_BD,) = leaves
    size = len(z_BD)
    total = over_rows(z_BD, z_BD, lambda x, y, at: torch.logsumexp(log_kernel(x, y, at), 1).sum() / size)
    return total - math.log(size - 1)


def alignment_and_uniformity(leaves: list[Tensor]) -> float:
    x_BD, y_BD = leaves
    alignment = (x_BD - y_BD).square().sum(1).mean()
    alignment.backward()
    return alignment.item() + sum(outer_log([z], 0.5) for z in leaves)


def infonce(leaves: list[Tensor]) -> float:
    x_BD, y_BD = leaves

    def part(rows_CD: Tensor, columns_BD: Tensor, places_C: Tensor) -> Tensor:
        return cross_entropy(rows_CD @ columns_BD.mT / TAU, places_C, reduction="sum") / (2 * len(columns_BD))

    return over_rows(x_BD, y_BD, part) + over_rows(y_BD, x_BD, part)


def nt_xent(leaves: list[Tensor]) -> float:
    size = len(leaves[0])

    def part(rows_CD: Tensor, columns_ED: Tensor, places_C: Tensor) -> Tensor:
        logits_CE = (rows_CD @ columns_ED.mT / TAU).scatter(1, places_C[:, None], -math.inf)
        return cross_entropy(logits_CE, (places_C + size) % (2 * size), reduction="sum") / (2 * size)

    both_ED = torch.cat([z.detach() for z in leaves]).requires_grad_()
    total = over_rows(both_ED, both_ED, part)
    for z, gradient in zip(leaves, gradient_of(both_ED).chunk(2), strict=True):
        z.grad = gradient
    return total


def sigmoid(leaves: list[Tensor]) -> float:
    x_BD, y_BD = leaves

    def part(rows_CD: Tensor, columns_BD: Tensor, places_C: Tensor) -> Tensor:
        logits_CB = rows_CD @ columns_BD.mT * SCALE + BIAS
        signs_CB = torch.full_like(logits_CB, -1.0).scatter(1, places_C[:, None], 1.0)
        return -logsigmoid(signs_CB * logits_CB).sum() / len(columns_BD)

    return over_rows(x_BD, y_BD, part)


FORMULAS: dict[str, Callable[[list[Tensor]], float]] = {
    "uniformity/outer_log": outer_log,
    "uniformity/mean_log": mean_log,
    "alignment and uniformity": alignment_and_uniformity,
    "infonce": infonce,
    "nt-xent": nt_xent,
    "sigmoid": sigmoid,
}
