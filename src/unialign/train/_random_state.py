"""Isolate the random state of a training run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Reentrant, since a callback may train in the same thread.
_training = threading.RLock()


@contextmanager
def isolated_random_state(device: torch.device) -> Iterator[None]:
    """Simultaneous training runs would share the random generators of the process, so blocks in different threads run
    one after another.
    """
    with _training, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
