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
    """Result of one step.

    Attributes:
        progress: values for `on_step` and the progress display, including `loss`.
        record: function that returns the values for the log. It is called only at logged steps, since it may
            synchronize the device.
        health: values of the health check, or None without a check. Steps with a check are always logged.
        warnings: problems found by the check.
    """

    progress: Mapping[str, Any]
    record: Callable[[], dict[str, Any]]
    health: dict[str, float] | None = None
    warnings: Sequence[HealthWarning] = ()


class TrainingTask(ABC):
    """A model with its data and optimizer.

    Attributes:
        label: name for the progress display.
        steps: number of optimizer steps of a complete run.
        device: device of the model.
        model_type: class of the model; has `from_pretrained`.
        model: model created by `setup`; has `save_pretrained`.
        parameters: trainable parameters by name, created by `setup`.
    """

    label: str
    steps: int
    device: torch.device
    model_type: Any
    model: Any
    parameters: Mapping[str, nn.Parameter]

    def restore(  # noqa: B027 (optional)
        self, tensors: Mapping[str, dict[str, Tensor]], facts: Mapping[str, Any]
    ) -> None:
        """Prepare `setup` of a resumed run, which `load_tensors` follows; errors as in `load_tensors`.

        Args:
            tensors: result of `tensors` in the checkpoint.
            facts: facts of the checkpoint, with those of `checkpoint_facts`.
        """

    def checkpoint_facts(self) -> dict[str, Any]:
        """Return values for the facts of each checkpoint."""
        return {}

    @abstractmethod
    def setup(self) -> None:
        """Create the model and the optimizer, and load the data; called once, before anything is written."""

    @abstractmethod
    def step(self, step: int) -> StepReport:
        """Take one optimizer step (from 0); its random numbers depend only on the seed and `step`."""

    @abstractmethod
    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return the full state, group -> name -> tensor, with the optimizer state in the group `optimizer`."""

    @abstractmethod
    def load_tensors(self, tensors: Mapping[str, dict[str, Tensor]]) -> None:
        """Load the result of `tensors`; raise RuntimeError or KeyError if it does not match."""

    @property
    def setup_seconds(self) -> float:
        """Time of `setup` that counts as training time."""
        return 0.0

    def start_record(self) -> dict[str, Any]:
        """Return values for the first record of the log."""
        return {}

    def untrained_record(self) -> dict[str, Any]:
        """Return values for the log of a run without steps."""
        return {}

    def before_checkpoint(self, step: int) -> None:  # noqa: B027 (optional)
        """Raise an error if the state is invalid and must not be saved as a checkpoint."""

    def after_checkpoint(self, step: int, folder: Path) -> None:  # noqa: B027 (optional)
        """Write additional files of a checkpoint into the folder of the run."""
