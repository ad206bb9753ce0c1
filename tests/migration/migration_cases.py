"""Create synthetic indexes of an old and a new model."""

import numpy as np

from unialign.migration._maps import gaussian_kernel


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def new_rows(items=1500, dim=48, seed=0):
    rng = np.random.default_rng(seed)
    strong = rng.standard_normal((items, 20)) @ rng.standard_normal((20, dim))
    return unit(strong + 0.5 * rng.standard_normal((items, dim)) + 1)


def rotation(dim, seed=1):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]


def sample(items, pairs, seed=2):
    return np.random.default_rng(seed).permutation(items)[:pairs]


def first_ten(queries, rows):
    return np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :10]


def overlap(queries, rows, mapped):
    pairs = zip(first_ten(queries, rows), first_ten(queries, mapped), strict=True)
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in pairs]))


def rows(pairs, dim=7, out=5, seed=0):
    rng = np.random.default_rng(seed)
    x = unit(rng.standard_normal((pairs, dim)) + 0.5)
    return x, unit(np.tanh(x @ rng.standard_normal((dim, out))) + 0.2 * rng.standard_normal((pairs, out)))


def ridge_prediction(x, y, at, penalty):
    """Solve the normal equations with an intercept that is not penalized."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    weight = np.linalg.solve(
        (x - mean_x).T @ (x - mean_x) + penalty * np.eye(x.shape[1]), (x - mean_x).T @ (y - mean_y)
    )
    return mean_y + (at - mean_x) @ weight


def kernel_prediction(x, y, at, penalty, scale):
    """Solve kernel ridge regression with features centered on the remaining pairs."""
    count = len(x)
    center = np.eye(count) - 1 / count
    kernel = gaussian_kernel(x, x, scale)
    row = gaussian_kernel(at[None], x, scale)[0]
    dual = np.linalg.solve(center @ kernel @ center + penalty * np.eye(count), y - y.mean(0))
    return y.mean(0) + (row - kernel.mean(0)) @ center @ dual
