"""Loggers in addition to `log.jsonl`: TensorBoard, Weights & Biases and trackio, each imported only when requested."""

import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from unialign.errors import MissingDependencyError
from unialign.io import replace_file

# Suffix, after the name of the logger, of the file with the id of a tracked run.
_RUN_ID = "-run-id"


class MetricLogger(Protocol):
    """Destination for the values of each step."""

    def log(self, scalars: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def open_loggers(
    names: Sequence[str], folder: Path, *, keep_steps: int, settings: Mapping[str, Any]
) -> list[MetricLogger]:
    """Open the loggers in `names` for the run in `folder`, which continues after `keep_steps` completed steps.

    Raises:
        MissingDependencyError: a package is not installed.
    """
    found: list[MetricLogger] = []
    for name in names:
        if name in _MAKERS:
            found.append(_MAKERS[name](folder, keep_steps, settings))
    return found


class _TensorBoard:
    def __init__(self, folder: Path, keep_steps: int, settings: Mapping[str, Any]) -> None:
        module = _imported("torch.utils.tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=keep_steps + 1)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for key, value in scalars.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """W&B keeps the first values of a step; a resumed run that repeats steps has the same values."""

    def __init__(self, folder: Path, keep_steps: int, settings: Mapping[str, Any]) -> None:
        module = _imported("wandb", "wandb")
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", "unialign"),
            name=folder.name,
            id=_run_id(folder, "wandb", keep_steps),
            resume="allow",
            dir=str(folder),
            config=dict(settings),
        )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, folder: Path, keep_steps: int, settings: Mapping[str, Any]) -> None:
        module = _imported("trackio", "trackio")
        self._run = module.init(
            project=os.environ.get("TRACKIO_PROJECT", "unialign"),
            name=f"{folder.name}-{_run_id(folder, 'trackio', keep_steps)}",
            resume="allow",
            config=dict(settings),
        )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


_MAKERS: Mapping[str, Callable[[Path, int, Mapping[str, Any]], MetricLogger]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
}


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingDependencyError(f"log_to='{name}' needs: pip install 'unialign[{name}]'") from None


def _run_id(folder: Path, logger: str, keep_steps: int) -> str:
    """Return the id of a tracked run; a resumed run has the id stored in its folder."""
    file = folder / f"{logger}{_RUN_ID}"
    if keep_steps and file.is_file():
        return file.read_text("ascii").strip()
    found = uuid.uuid4().hex[:8]
    replace_file(file, found + "\n")
    return found
