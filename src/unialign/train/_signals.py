"""Ctrl-C and SIGTERM ask a run to stop after the step it is in, so that nothing is lost."""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn

__all__ = ["StopRequest"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first signal is only noted; a second one acts as it did before.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            # What is ignored stays so, as under nohup, or in a worker whose parent hears Ctrl-C for it.
            heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
            # A worker may have been told to end while the run was being prepared.
            told = (n for n, before in self._before.items() if getattr(_owner(before), "ending", False))
            self.received = next(told, None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None and self.received is not None:
            # It came when no step was left to stop after: whatever follows the run must hear of it.
            signal.raise_signal(self.received)

    def leave(self, message: str, received: int) -> NoReturn:
        """End the run as a signal would have: KeyboardInterrupt, or SystemExit(143) for SIGTERM."""
        if received == signal.SIGTERM:
            print(message, file=sys.stderr, flush=True)
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # None: the handler was not installed from Python and cannot be put back from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}


def _owner(handler: Any) -> Any:
    """The object whose method a handler is."""
    return getattr(handler, "__self__", None)
