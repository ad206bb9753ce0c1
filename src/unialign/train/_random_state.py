"""Isolate the random state of a training."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Reentrant, since a callback may train in the same thread.
_training = threading.RLock()


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Restore the random generators after a block; blocks in several threads run one after another.

    Simultaneous trainings would share the generators of the process, from which weights and dropout are drawn.
    """
    with _training, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
