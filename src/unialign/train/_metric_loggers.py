"""Loggers in addition to `log.jsonl`, each imported only when requested."""

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from unialign.errors import MissingDependencyError
from unialign.io import replace_file

# The name of the file with the id of a tracked run is the name of the logger, followed by this suffix.
_RUN_ID = "-run-id"


class MetricLogger(Protocol):
    def log(self, scalars: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def open_loggers(
    names: Sequence[str], folder: Path, *, keep_steps: int, settings: Mapping[str, Any]
) -> list[MetricLogger]:
    found: list[MetricLogger] = []
    for name in names:
        if name in _MAKERS:
            found.append(_MAKERS[name](folder, keep_steps, settings))
    return found


def check_logger(name: str) -> None:
    _imported("torch.utils.tensorboard" if name == "tensorboard" else name, name)


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


class _MLflow:
    """Use a client, so that an active run of the user's own code is not changed."""

    def __init__(self, folder: Path, keep_steps: int, settings: Mapping[str, Any]) -> None:
        module = _imported("mlflow", "mlflow")
        self._client = module.MlflowClient()
        file = folder / f"mlflow{_RUN_ID}"
        if keep_steps and file.is_file():
            self._id = file.read_text("ascii").strip()
            self._client.update_run(self._id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "unialign")
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(experiment_id, run_name=folder.name).info.run_id
        replace_file(file, self._id + "\n")
        for key, value in settings.items():
            self._client.log_param(self._id, _mlflow_key(key), str(value)[:_MLFLOW_VALUE])

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for key, value in scalars.items():
            self._client.log_metric(self._id, _mlflow_key(key), value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


# MLflow rejects longer values of parameters, and other characters in names.
_MLFLOW_VALUE = 500


def _mlflow_key(name: str) -> str:
    return re.sub(r"[^\w\-./ ]", "_", name)


_MAKERS: Mapping[str, Callable[[Path, int, Mapping[str, Any]], MetricLogger]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
    "mlflow": _MLflow,
}


def logger_names() -> tuple[str, ...]:
    return tuple(_MAKERS)


def _imported(module: str, name: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingDependencyError(f"log_to='{name}' needs: pip install 'unialign[{name}]'") from None


def _run_id(folder: Path, logger: str, keep_steps: int) -> str:
    file = folder / f"{logger}{_RUN_ID}"
    if keep_steps and file.is_file():
        return file.read_text("ascii").strip()
    found = uuid.uuid4().hex[:8]
    replace_file(file, found + "\n")
    return found
