"""Measure the time of each stage of a run."""

import contextlib
import time
from collections.abc import Iterator
from typing import Literal

__all__ = ["Clock", "Stage"]

Stage = Literal["wait", "encode", "write"]


class Clock:
    """Seconds of waiting for decoded media, encoding, and writing."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {"wait": 0.0, "encode": 0.0, "write": 0.0}

    @contextlib.contextmanager
    def __call__(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
