"""Show progress on stderr."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from unialign._plain_text import duration
from unialign.config import ProgressMode
from unialign.embedding._clock import Clock
from unialign.embedding._plan import Plan

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """`auto` is a bar on a terminal, else a line every 10 seconds."""

    def __init__(self, mode: ProgressMode, plan: Plan, clock: Clock, done: Mapping[str, int], *, waiting: str) -> None:
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() else "lines"
        self._mode, self._plan, self._clock = mode, plan, clock
        self._names = list(plan.columns)
        self._waiting = waiting
        self._bar: tqdm[Any] | None = None
        self._done = dict(done)
        self._last_line = time.monotonic()
        self._begin()

    def advance(self, column: str, cells: int) -> None:
        self._done[column] += cells
        if self._done[self._column] == self._plan.columns[self._column].cells:
            self._begin()
        elif self._bar is not None:
            self._bar.set_postfix_str(self._stages(), refresh=False)
            self._bar.update(self._done[self._column] - self._bar.n)
        elif self._mode == "lines" and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def _begin(self) -> None:
        self.close()
        unfinished = [name for name in self._names if self._done[name] < self._plan.columns[name].cells]
        self._column = unfinished[0] if unfinished else self._names[-1]
        self._begun, self._begun_with = time.monotonic(), self._done[self._column]
        self._before = dict(self._clock.seconds)
        if self._mode == "bar" and unfinished:
            self._bar = tqdm(
                total=self._plan.columns[self._column].cells,
                initial=self._begun_with,
                desc=self._label(),
                unit="cell",
                leave=False,
                dynamic_ncols=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def line(self) -> str:
        """Return `image (1 of 2): 1,024 of 5,000 cells, 210 per second, 19 s left; ...`."""
        total, seconds = self._plan.columns[self._column].cells, time.monotonic() - self._begun
        done = self._done[self._column]
        rate = (done - self._begun_with) / max(seconds, 1e-9)
        left = f", {duration((total - done) / rate)} left" if rate > 0 else ""
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{self._label()}: {done:,} of {total:,} cells, {speed} per second{left}; {self._stages()}"

    def _label(self) -> str:
        return f"{self._column} ({self._names.index(self._column) + 1} of {len(self._names)})"

    def _stages(self) -> str:
        spent = {stage: value - self._before[stage] for stage, value in self._clock.seconds.items()}
        total = max(sum(spent.values()), 1e-9)
        words = {"wait": self._waiting, "encode": "encoding", "write": "writing"}
        return ", ".join(f"{words[stage]} {100 * value / total:.0f} %" for stage, value in spent.items())
