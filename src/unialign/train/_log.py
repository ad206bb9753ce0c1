"""Log of a run in a JSON Lines file and, optionally, in other loggers.

Each line has a `kind` (`start`, `step`, `warning` or `resume`) and a `step`, the number of completed steps.
"""

import contextlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from unialign._checks import one_line
from unialign.errors import CheckpointError
from unialign.io import finite, replace_file
from unialign.train._metric_loggers import MetricLogger, open_loggers
from unialign.train._monitor import HealthWarning

_ADVICE = "Free disk space or choose another folder, then continue with resume='auto'"


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read up to the first incomplete line, which a crash may leave behind."""
    records: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return records
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    for line in text.splitlines():
        try:
            record = finite(json.loads(line))
            if not isinstance(record, dict) or not isinstance(record["step"], int):
                break
        except (ValueError, KeyError, RecursionError):
            break
        records.append(record)
    return records


class RunLog:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._path: Path | None = None
        self._file: TextIO | None = None
        self._loggers: list[MetricLogger] = []

    def open(
        self,
        path: Path,
        *,
        keep_steps: int = 0,
        log_to: Sequence[str] = ("jsonl",),
        settings: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Remove records after `keep_steps` completed steps, since the resumed run writes them again."""
        self._path = path
        self._loggers = open_loggers(log_to, path.parent, keep_steps=keep_steps, settings=settings or {})
        self.records = [record for record in read_log(path) if record["step"] <= keep_steps] if keep_steps else []
        replace_file(path, "".join(map(_line, self.records)), error=CheckpointError, advice=_ADVICE)
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise self._cannot_write(error) from error
        return self.records

    @property
    def history(self) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in record.items() if key != "kind"}
            for record in self.records
            if record.get("kind") == "step"
        ]

    @property
    def warnings(self) -> list[HealthWarning]:
        return [
            HealthWarning(str(record.get("message")), code=str(record.get("code")), step=record["step"])
            for record in self.records
            if record.get("kind") == "warning"
        ]

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        # A term may be NaN in the last record before training stops.
        record = {"kind": kind, "step": step, **finite(values)}
        self.records.append(record)
        if self._file is not None:
            try:
                self._file.write(_line(record))
                self._file.flush()
            except OSError as error:
                raise self._cannot_write(error) from error
        if kind == "step":
            self._log_scalars(dict(_scalars(record)), step)

    def close(self) -> None:
        for handle in (self._file, *self._loggers):
            if handle is not None:
                # Closing repeats a failed write; its second error must not hide the first.
                with contextlib.suppress(Exception):
                    handle.close()
        self._file, self._loggers = None, []

    def _log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """If a logger fails, remove it with a warning."""
        for logger in tuple(self._loggers):
            try:
                logger.log(scalars, step)
            except Exception as error:  # a package without a connection can raise any exception
                self._loggers.remove(logger)
                with contextlib.suppress(Exception):
                    logger.close()
                warnings.warn(
                    f"{type(logger).__name__.lstrip('_')} failed at step {step} and receives no further values of this "
                    f"run: {one_line(error) or type(error).__name__}. The log {self._path} contains all values",
                    UserWarning,
                    stacklevel=3,
                )

    def _cannot_write(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"cannot write the log {self._path}: {error.strerror or error}; checkpoints are intact. {_ADVICE}"
        )


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _scalars(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for key, value in record.items():
        if isinstance(value, Mapping):
            found += _scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            found.append((f"{prefix}{key}", float(value)))
    return found
