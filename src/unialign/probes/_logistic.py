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
    x_tD: Tensor,
    labels_t: Tensor,
    classes: int,
    *,
    strength: float,
    steps: int,
    tolerance: float = 1e-6,
    start: Softmax | None = None,
) -> Softmax:
    """Minimize `sum_i cross_entropy_i + |weight|^2 / (2 strength)` over weight and bias, from `start` or zero.

    This is the objective of `sklearn.linear_model.LogisticRegression(C=strength)` for three or more classes; for two
    classes, scikit-learn's binomial form has the same minimum with `C = 2 strength`. It is divided by t here. The fit
    has converged if no entry of the gradient exceeds the tolerance.
    """
    penalty = 1 / (strength * len(x_tD))
    # L-BFGS runs on parameters that are scaled by the square root of an approximate diagonal of the Hessian, since the
    # curvatures of weights and bias differ by orders of magnitude for small `strength`.
    share_C = torch.bincount(labels_t, minlength=classes).to(x_tD) / len(x_tD)
    bias_scale_C = (share_C * (1 - share_C)).clamp(min=1e-12).rsqrt()
    weight_scale_DC = (bias_scale_C.pow(-2) * x_tD.square().mean(0)[:, None] + penalty).rsqrt()
    v_DC = torch.zeros_like(weight_scale_DC) if start is None else start.weight / weight_scale_DC
    c_C = torch.zeros_like(bias_scale_C) if start is None else start.bias / bias_scale_C
    parameters = [v_DC.requires_grad_(), c_C.requires_grad_()]
    smallest = float(torch.minimum(weight_scale_DC.min(), bias_scale_C.min()))
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=steps,
        max_eval=2 * steps,
        history_size=20,
        # A scaled gradient below this limit implies an unscaled gradient below the tolerance.
        tolerance_grad=tolerance * smallest,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        weight_DC = v_DC * weight_scale_DC
        value = cross_entropy(x_tD @ weight_DC + c_C * bias_scale_C, labels_t)
        value = value + penalty / 2 * weight_DC.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
        loss()
    assert v_DC.grad is not None
    assert c_C.grad is not None
    largest = max(float((v_DC.grad / weight_scale_DC).abs().max()), float((c_C.grad / bias_scale_C).abs().max()))
    return Softmax((v_DC * weight_scale_DC).detach(), (c_C * bias_scale_C).detach(), largest <= 1.01 * tolerance)
