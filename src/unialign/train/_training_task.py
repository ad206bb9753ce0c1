"""Interface of a training task: a model with its data and optimizer, which takes single steps."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unialign.train._monitor import HealthWarning


@dataclass(frozen=True)
class StepReport:
    """`record` returns the values for the log, and is called only at logged steps, since it may synchronize the device.
    Steps with a health check are always logged.
    """

    progress: Mapping[str, Any]
    record: Callable[[], dict[str, Any]]
    health: dict[str, float] | None = None
    warnings: Sequence[HealthWarning] = ()


class TrainingTask(ABC):
    """A model with its data and optimizer; `setup` creates `model` and `parameters`."""

    label: str
    steps: int
    device: torch.device
    model_type: Any
    model: Any
    parameters: Mapping[str, nn.Parameter]

    def restore(  # noqa: B027 (optional)
        self, tensors: Mapping[str, dict[str, Tensor]], facts: Mapping[str, Any]
    ) -> None:
        """Prepare `setup` of a resumed run; `load_tensors` follows."""

    def checkpoint_facts(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def setup(self) -> None:
        """Called once, before anything is written."""

    @abstractmethod
    def step(self, step: int) -> StepReport:
        """Random numbers depend only on the seed and `step`, which starts at 0."""

    @abstractmethod
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Full state: group -> name -> tensor, with the optimizer state in the group `optimizer`."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, dict[str, Tensor]]) -> None:
        """Raise RuntimeError or KeyError if the tensors do not match."""

    def close(self) -> None:  # noqa: B027 (optional)
        """Release processes and files; called once, also after errors."""

    def before_result(self) -> None:  # noqa: B027 (optional)
        """Called on every process after the last step, before the model is saved."""

    @property
    def setup_seconds(self) -> float:
        return 0.0

    def start_record(self) -> dict[str, Any]:
        return {}

    def untrained_record(self) -> dict[str, Any]:
        return {}

    def before_checkpoint(self, step: int) -> None:  # noqa: B027 (optional)
        """Raise an error if the state is invalid and must not be saved."""

    def after_checkpoint(self, step: int, folder: Path) -> None:  # noqa: B027 (optional)
        ...
