"""Show progress on stderr: the cells of the current column, the time left, and where the time goes."""

import sys
import time
from typing import Any

from tqdm import tqdm

from unialign.config import ProgressMode
from unialign.embedding._clock import Clock
from unialign.embedding._plan import Plan

__all__ = ["Progress", "duration"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Display of a run; `auto` is a bar on a terminal, else a line every 10 seconds."""

    def __init__(self, mode: ProgressMode, plan: Plan, clock: Clock, *, in_process: bool) -> None:
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() else "lines"
        self._mode, self._plan, self._clock = mode, plan, clock
        self._names = list(plan.columns)
        self._waiting = "decoding" if in_process else "waiting for decoding"
        self._bar: tqdm[Any] | None = None
        self._column = ""
        self._done = self._begun_with = 0
        self._begun = self._last_line = time.monotonic()

    def begin(self, column: str, done: int) -> None:
        """Start a column of which some cells are already done."""
        self.close()
        self._column, self._done, self._begun_with = column, done, done
        self._begun = time.monotonic()
        self._before = dict(self._clock.seconds)
        if self._mode == "bar":
            total = self._plan.columns[column].cells
            self._bar = tqdm(
                total=total, initial=done, desc=self._label(), unit="cell", leave=False, dynamic_ncols=True
            )

    def advance(self, cells: int) -> None:
        self._done += cells
        if self._bar is not None:
            self._bar.set_postfix_str(self._stages(), refresh=False)
            self._bar.update(cells)
        elif self._mode == "lines" and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def line(self) -> str:
        """Return the state as text, such as `image (1 of 2): 1,024 of 5,000 cells, 210 per second, 19 s left; ...`."""
        total, seconds = self._plan.columns[self._column].cells, time.monotonic() - self._begun
        rate = (self._done - self._begun_with) / max(seconds, 1e-9)
        left = f", {duration((total - self._done) / rate)} left" if rate > 0 else ""
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{self._label()}: {self._done:,} of {total:,} cells, {speed} per second{left}; {self._stages()}"

    def _label(self) -> str:
        return f"{self._column} ({self._names.index(self._column) + 1} of {len(self._names)})"

    def _stages(self) -> str:
        spent = {stage: value - self._before[stage] for stage, value in self._clock.seconds.items()}
        total = max(sum(spent.values()), 1e-9)
        words = {"wait": self._waiting, "encode": "encoding", "write": "writing"}
        return ", ".join(f"{words[stage]} {100 * value / total:.0f} %" for stage, value in spent.items())


def duration(seconds: float) -> str:
    """Return `19 s`, `4 min` or `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
