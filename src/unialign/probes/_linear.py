"""Linear probe: logistic regression on frozen rows.

Shapes: `N` items, `D` dimension, `t` training rows.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_integer, check_number
from unialign.errors import ConfigError
from unialign.probes._hits import hits
from unialign.probes._logistic import Softmax, fit_softmax
from unialign.probes._result import ProbeResult
from unialign.probes._score import scored
from unialign.probes._split import ProbeData, probe_data

# Ten inverse penalties, from 1e-5 to 1e4.
STRENGTHS = tuple(10.0**power for power in range(-5, 5))


def linear(
    z: Any,
    y: Any,
    split: Any,
    *,
    C: float | Sequence[float] = STRENGTHS,
    standardize: bool = True,
    max_steps: int = 1000,
    groups: Any = None,
) -> ProbeResult:
    """Train logistic regression on the training items, choose its penalty on the validation items, and test it once.

    The classifier is `softmax(x W + b)`, with `W` and `b` that minimize `sum_i cross_entropy_i + |W|^2 / (2 C)` over
    the training items, by L-BFGS from zero in float64. The rows are centered and divided by the standard deviation of
    each column of the training items; constant columns are only centered. The value of `C` with the highest accuracy on
    the validation items is used, the smallest of equally good values. Validation items are not used to fit.

    Classes without a training item cannot be predicted: their validation and test items count as errors. Classes
    without a test item are predicted like others, but are not part of the mean over classes. Unlabeled items are not
    used.

    Args:
        z: (N, D) floating-point tensor or array, such as embeddings or features; its device is used.
        y: (N,) integers or strings; negative numbers and empty strings mark unlabeled items.
        split: (N,) "train", "val", "test", or "" for items that are not used; or codes 0, 1, 2 and -1, as in
            `EmbeddingStore.split`.
        C: positive inverse penalties to choose from. With a single number, no validation items are needed. The penalty
            of scikit-learn's `LogisticRegression(C=...)` is the same for three or more classes; for two classes it is
            that of `2 C`.
        standardize: whether to standardize the columns.
        max_steps: largest number of steps of L-BFGS for each value of C, each from the previous solution. A warning is
            given if the chosen fit has not converged.
        groups: (N,) labels; test items of a group are resampled together in intervals.

    Returns:
        See `ProbeResult`; its scores are those of the test items.

    Raises:
        ShapeError: z is not (N, D) of floating-point numbers, or y, split or groups are not (N,).
        NonFiniteError: a row that is used contains NaN or infinity.
        DataError: no labeled item in "train" or "test", no labeled item in "val" to choose C on, or fewer than two
            classes in "train".
        ConfigError: an unknown split, or an option is out of range.
    """
    strengths = _strengths(C)
    check_integer("max_steps", max_steps, low=1)
    data = probe_data(z, y, split, groups=groups, needs_val="C" if len(strengths) > 1 else "")
    x = _standardized(data, standardize=standardize)
    labels_t = data.labels["train"].to(x["train"].device)
    fits: list[Softmax] = []
    validation = []
    for strength in strengths:
        start = fits[-1] if fits else None
        fits.append(fit_softmax(x["train"], labels_t, data.known, strength=strength, steps=max_steps, start=start))
        if len(strengths) > 1:
            found_v = hits(fits[-1].scores(x["val"]).cpu(), data.labels["val"], 1)
            validation.append({"C": strength, "top1": float(found_v.mean()), "converged": fits[-1].converged})
    # max returns the first of equal values.
    best = max(range(len(strengths)), key=lambda place: validation[place]["top1"]) if validation else 0
    if not fits[best].converged:
        warnings.warn(
            f"the fit with C = {strengths[best]:g} has not converged after {max_steps} steps; increase max_steps",
            UserWarning,
            stacklevel=2,
        )
    settings = {"C": strengths[best], "standardize": standardize, "converged": fits[best].converged}
    return scored("linear", data, lambda part: fits[best].scores(x["test"][part]).cpu(), settings, validation)


def _strengths(C: Any) -> tuple[float, ...]:
    values = tuple(C) if isinstance(C, Sequence) and not isinstance(C, str) else (C,)
    if not values:
        raise ConfigError("C must be a positive number or a non-empty sequence of positive numbers, got none")
    for value in values:
        check_number("C", value, "a positive number", lambda x: 0 < x < float("inf"))
    return tuple(sorted({float(value) for value in values}))


def _standardized(data: ProbeData, *, standardize: bool) -> dict[str, Tensor]:
    x = {name: z.double() for name, z in data.z.items()}
    if not standardize:
        return x
    mean_D = x["train"].mean(0)
    deviation_D = x["train"].std(0, correction=0)
    # The deviation of a constant column is a rounding error of its mean.
    constant_D = deviation_D <= 10 * torch.finfo(torch.float64).eps * x["train"].abs().amax(0)
    deviation_D = torch.where(constant_D, 1.0, deviation_D)
    return {name: (z - mean_D) / deviation_D for name, z in x.items()}
