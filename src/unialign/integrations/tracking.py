"""Send the values of a training loop to W&B, trackio, MLflow or TensorBoard with one callback."""

import math
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from unialign.errors import ConfigError
from unialign.losses import LossOutput
from unialign.train import MetricLogger, check_logger, logger_names, open_loggers


class MetricTracker:
    """A callback that sends numbers from `fit`, a PyTorch training loop or a health monitor to a tracker.

    Examples:
        >>> from unialign.integrations.tracking import MetricTracker
        >>> with MetricTracker("mlflow", folder="runs/mine") as tracker:  # doctest: +SKIP
        ...     for step, batch in enumerate(batches):
        ...         out = loss(encode(batch))
        ...         tracker.log(out, step=step)

    Args:
        run: "wandb", "trackio", "mlflow" or "tensorboard" to start a run when the first values are logged, or an
            existing run with a method `log(values, step=...)`, such as the result of `wandb.init`. An existing run is
            not closed.
        folder: folder for the files of the tracker. The name of the folder is the name of a new run.
        settings: settings to store with a new run.

    Raises:
        ConfigError: an unknown tracker, or an object without `log`.
        MissingDependencyError: the package of the tracker is not installed.
    """

    def __init__(
        self,
        run: Any,
        *,
        folder: str | os.PathLike[str] = "runs/tracked",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._logger: MetricLogger | None = None
        self._run: Any = None
        self._start: Callable[[], list[MetricLogger]] | None = None
        self._folder = Path(folder)
        if not isinstance(run, str):
            if not callable(getattr(run, "log", None)):
                raise ConfigError(
                    f"run must be a name or have a method log(values, step=...), got {type(run).__name__}"
                )
            self._run = run
            return
        if run not in logger_names():
            raise ConfigError(f"run must be one of {', '.join(logger_names())} or an existing run, got {run!r}")
        check_logger(run)
        self._start = partial(open_loggers, (run,), Path(folder), keep_steps=0, settings=dict(settings or {}))

    def log(self, values: LossOutput | Mapping[str, Any], *, step: int) -> None:
        """Send a loss or named numbers; non-finite numbers are left out.

        Args:
            values: the result of a loss, which is logged as `loss` and `terms/NAME`, or a mapping of names to numbers,
                scalar tensors or nested mappings. The names of nested values are joined by `/`.
            step: number of the step.
        """
        if isinstance(values, LossOutput):
            values = {"loss": values.total, "terms": values.terms}
        found = dict(_numbers(values))
        if self._start is not None:
            # Start the run here instead of in `__init__`, since with several processes, `fit` calls only the tracker of
            # process 0.
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._logger,) = self._start()
            self._start = None
        if self._logger is not None:
            self._logger.log(found, step)
        elif self._run is not None:
            self._run.log(found, step=step)

    def __call__(self, record: Mapping[str, Any]) -> None:
        """Send the record of a step, as the callback `on_step` of `unialign.fit`."""
        self.log({name: value for name, value in record.items() if name != "step"}, step=int(record["step"]))

    def close(self) -> None:
        """End a run that this tracker started; later values are not sent."""
        if self._logger is not None:
            self._logger.close()
        self._logger = self._run = self._start = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _numbers(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, torch.Tensor) and value.numel() == 1:
            found.append((f"{prefix}{name}", float(value.detach())))
        elif isinstance(value, int | float):
            found.append((f"{prefix}{name}", float(value)))
    return [(name, value) for name, value in found if math.isfinite(value)]
