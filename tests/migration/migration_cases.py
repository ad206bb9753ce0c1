"""Create synthetic indexes of an old and a new model."""

import numpy as np


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
