"""Spaces whose fault is known: a latent vector an item, seen through noisy modalities, and then one thing is broken."""

import numpy as np

ITEMS, WIDTH = 400, 32


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def healthy(names=("image", "text", "audio"), *, items=ITEMS, width=WIDTH, noise=0.6, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((items, width))
    return {name: unit(latent + noise * rng.standard_normal((items, width))) for name in names}


def collapsed(name="text"):
    """Nearly one point: what is left of the items is far below the noise of the other modalities' means."""
    space = healthy()
    space[name] = unit(0.02 * space[name] + unit(np.ones((1, WIDTH))))
    return space


def shifted(name="audio", *, by=1.5):
    space = healthy()
    space[name] = unit(space[name] + by * np.eye(WIDTH)[0])
    return space


def rotated(name="audio"):
    space = healthy()
    turn, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))
    space[name] = (space[name] @ turn).astype(np.float32)
    return space


def shuffled(name="audio"):
    space = healthy()
    space[name] = space[name][np.random.default_rng(1).permutation(ITEMS)]
    return space
