"""Stop a run after its current step on Ctrl-C or SIGTERM, without losing progress."""

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Context manager that records the first signal; a second signal has its original effect.

    The context manager does nothing outside the main thread, where Python delivers no signals.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            # Keep ignored signals ignored, as under nohup or in a worker whose parent handles Ctrl-C.
            handled = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in handled}
            # A worker's own handler may have received a signal while the run was being prepared.
            owners = {number: getattr(handler, "__self__", None) for number, handler in self._before.items()}
            self.received = next((n for n, owner in owners.items() if getattr(owner, "ending", False)), None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if kind is None and self.received is not None:
            # Re-raise a signal received after the last step, so that the caller handles it.
            signal.raise_signal(self.received)

    def leave(self, message: str, received: int) -> NoReturn:
        """Raise the exception of the signal: KeyboardInterrupt, or SystemExit(143) for SIGTERM."""
        if received == signal.SIGTERM:
            print(message, file=sys.stderr, flush=True)
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # If the handler is None, it was not installed from Python, so Python cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}
