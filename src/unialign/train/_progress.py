"""Progress display on stderr: a bar on a terminal, occasional lines otherwise."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from unialign.config import ProgressMode

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """`auto` is `bar` on a terminal, else `lines`; short runs print no lines."""

    def __init__(self, mode: ProgressMode, *, steps: int, done: int, label: str) -> None:
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() else "lines"
        self._lines = mode == "lines"
        self._steps, self._label = steps, label
        self._bar: tqdm[Any] | None = None
        if mode == "bar":
            self._bar = tqdm(total=steps, initial=done, desc=label, unit="step", leave=False, dynamic_ncols=True)
        self._last_line = time.monotonic()

    def step(self, info: Mapping[str, Any]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {info['loss']:.3f}", refresh=False)
            self._bar.update()
        elif self._lines and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(
                f"{self._label}: step {info['step']} of {self._steps}, loss {info['loss']:.3f}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
