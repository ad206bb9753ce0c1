"""Isolate the random state of a training."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["isolated_random_state"]

# Reentrant: a callback of a training may train, too.
_training = threading.RLock()


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Restore the random generators after a block; blocks of several threads run one after another.

    Initial weights and dropout draw from the generators of the process, so that two trainings at once would give each
    other's random numbers.
    """
    with _training, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
