"""Fit softmax regression by L-BFGS.

Shapes: `t` training rows, `D` dimension, `C` classes.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


class Softmax(NamedTuple):
    """Weights (D, C) and bias (C,) of softmax regression, and whether the fit converged."""

    weight: Tensor
    bias: Tensor
    converged: bool

    def scores(self, x_nD: Tensor) -> Tensor:
        return x_nD @ self.weight + self.bias


def fit_softmax(
    x_tD: Tensor, labels_t: Tensor, classes: int, *, strength: float, steps: int, start: Softmax | None = None
) -> Softmax:
    """Minimize `sum_i cross_entropy_i + |weight|^2 / (2 strength)` over weight and bias, from `start` or zero.

    This is the objective of `sklearn.linear_model.LogisticRegression(C=strength)` for three or more classes; for two
    classes, scikit-learn's binomial form has the same minimum with `C = 2 strength`. It is divided by t here. The fit
    has converged if no entry of the gradient exceeds 1e-7 (1e-5 in float32).
    """
    weight_DC = x_tD.new_zeros(x_tD.shape[1], classes) if start is None else start.weight.clone()
    bias_C = x_tD.new_zeros(classes) if start is None else start.bias.clone()
    parameters = [weight_DC.requires_grad_(), bias_C.requires_grad_()]
    decay = 1 / (2 * strength * len(x_tD))
    tolerance = 1e-7 if x_tD.dtype == torch.float64 else 1e-5
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        max_eval=2 * steps,
        history_size=20,
        tolerance_grad=tolerance,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(x_tD @ weight_DC + bias_C, labels_t) + decay * weight_DC.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
        loss()
    largest = max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
    return Softmax(weight_DC.detach(), bias_C.detach(), largest <= tolerance)
