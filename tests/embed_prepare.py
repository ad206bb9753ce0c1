"""Functions that prepare media for the encoders of the tests of embedding. Workers import them without torch."""

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unialign.media import MediaLimits


def pixels(image: Any) -> dict[str, Any]:
    """Return the first 8 x 8 pixels."""
    padded = np.zeros((8, 8, 3), np.uint8)
    height, width = min(8, image.shape[0]), min(8, image.shape[1])
    padded[:height, :width] = image[:height, :width]
    return {"x": padded}


def letters(text: str) -> dict[str, Any]:
    """Return the codes of the first 16 bytes."""
    codes = np.zeros(16, np.uint8)
    encoded = np.frombuffer(text.encode()[:16], np.uint8)
    codes[: len(encoded)] = encoded
    return {"x": codes}


@dataclass(frozen=True)
class Slowly:
    """Like `letters`, after a wait for a text that starts with "text"."""

    seconds: float

    def __call__(self, text: str) -> dict[str, Any]:
        if text.startswith("text"):  # no input of a witness does
            time.sleep(self.seconds)
        return letters(text)


@dataclass
class SlowStart:
    """Like `letters`, but the first call in a process takes longer."""

    seconds: float

    def __call__(self, text: str) -> dict[str, Any]:
        time.sleep(self.seconds)
        self.seconds = 0
        return letters(text)


class StalledLimits(MediaLimits):
    """Checking the size of a file takes forever in a worker, like a file system that does not answer."""

    def __getattribute__(self, name: str) -> Any:
        if name == "bytes" and "pytest" not in sys.modules:
            time.sleep(1000)
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Hazard:
    """Like `letters`, but some texts crash the process, hang, fail, or do so only once.

    Attributes:
        folder: folder in which a text leaves a file, so that the second attempt succeeds.
    """

    folder: str = ""

    def __call__(self, text: str) -> dict[str, Any]:
        word = text.split()[0]
        if word == "segfault" or (word == "once" and self._is_first(text)):
            ctypes.string_at(0)
        if word == "hang":
            time.sleep(1000)
        if word == "exit":
            os._exit(3)
        if word == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "bug":
            raise RuntimeError("the shape is wrong")
        return letters(text)

    def _is_first(self, text: str) -> bool:
        mark = Path(self.folder) / text.replace(" ", "-")
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@dataclass(frozen=True)
class FailingReads:
    """Like `letters`, but the first calls with a single letter raise an OSError with this number."""

    folder: str
    times: int
    number: int

    def __call__(self, text: str) -> dict[str, Any]:
        for i in range(self.times if len(text) == 1 else 0):
            try:
                (Path(self.folder) / f"failed-{i}").touch(exist_ok=False)
            except FileExistsError:
                continue
            raise OSError(self.number, os.strerror(self.number))
        return letters(text)


def no_torch(text: str) -> dict[str, Any]:
    """Like `letters`; raise an error in a process that has imported torch, but for the process of the tests."""
    assert "torch" not in sys.modules or "pytest" in sys.modules
    return letters(text)


def numbers(media: Any) -> dict[str, Any]:
    """Return the first 8 numbers of media of any kind, after a 1."""
    if isinstance(media, str):
        media = np.frombuffer(media.encode(), np.uint8)
    values = getattr(media, "samples", getattr(media, "frames", media)).ravel()[:8]
    found = np.zeros(9, np.float32)
    found[0], found[1 : len(values) + 1] = 1, values
    return {"x": np.clip(found, -1000, 1000)}
