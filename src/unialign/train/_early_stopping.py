"""Early stopping. The state is part of the checkpoints, so a resumed run stops after the same step."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError
from unialign.evaluation import check_selection_metric, selection_score, validation_rows
from unialign.space import Space, evaluating
from unialign.train._batches import Batches

_STATE, _WEIGHTS = "early_stopping", "best"


@dataclass
class _State:
    """`value` belongs to `best_step`."""

    best_step: int = -1
    value: float = math.nan
    evaluations_since: int = 0


class EarlyStopping:
    """Evaluate the space before the first step, after every `eval_epochs` epochs and after the last step, but not
    within an InfoNCE warmup. The random state does not change.
    """

    def __init__(self, store: EmbeddingStore, config: TrainConfig, batches: Batches, infonce_steps: int) -> None:
        check_early_stopping(store, config)
        self.metric, self._patience = config.early_stopping_metric, config.early_stopping_patience or 0
        self._sign = 1.0 if check_selection_metric(self.metric, "early_stopping_metric") == "higher" else -1.0
        self._steps, self._infonce_steps = batches.steps, infonce_steps
        # Returns the store to evaluate, whose features may be those of encoders that are trained.
        self.current_store: Callable[[], EmbeddingStore] = lambda: store
        self._interval = batches.steps_per_epoch * config.eval_epochs
        self._state, self._weights = _State(), dict[str, Tensor]()

    @property
    def best_step(self) -> int:
        return self._state.best_step

    @property
    def is_stopped(self) -> bool:
        """The last `patience` evaluations brought no improvement."""
        return self._state.evaluations_since >= self._patience

    def is_stopped_in(self, facts: Mapping[str, Any]) -> bool:
        state = facts.get(_STATE)
        return isinstance(state, Mapping) and state.get("evaluations_since", 0) >= self._patience

    def is_due(self, completed: int) -> bool:
        if completed == self._steps:
            return True
        is_after_warmup = completed > self._infonce_steps or self._infonce_steps == 0
        return is_after_warmup and completed % self._interval == 0

    def measure(self, space: Space, device: torch.device) -> float:
        devices = [device] if device.type == "cuda" else []
        with evaluating(space), torch.random.fork_rng(devices=devices), torch.no_grad():
            return selection_score(self.current_store(), space, self.metric)

    def update(self, completed: int, value: float, parameters: Mapping[str, nn.Parameter]) -> None:
        """Copy the weights if they are the best so far."""
        state = self._state
        # NaN, such as the metric of a collapsed space, is worse than any number.
        is_better = not math.isnan(value) and (math.isnan(state.value) or self._sign * value > self._sign * state.value)
        if state.best_step >= 0 and not is_better:
            state.evaluations_since += 1
            return
        self._state = _State(completed, value)
        self._weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def restore(self, parameters: Mapping[str, nn.Parameter]) -> None:
        with torch.no_grad():
            for name, tensor in self._weights.items():
                parameters[name].copy_(tensor)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {_WEIGHTS: self._weights} if self._weights else {}

    def facts(self) -> dict[str, Any]:
        return {_STATE: asdict(self._state)} if self._state.best_step >= 0 else {}

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any], device: torch.device) -> None:
        if _STATE not in facts:
            return
        try:
            self._state = _State(**facts[_STATE])
            self._weights = {name: tensor.to(device) for name, tensor in tensors[_WEIGHTS].items()}
        except (TypeError, KeyError) as error:
            raise CheckpointError(f"the checkpoint has no valid state of early stopping: {error}") from None


def check_early_stopping(store: EmbeddingStore, config: TrainConfig) -> None:
    if config.early_stopping_patience is not None:
        check_selection_metric(config.early_stopping_metric, "early_stopping_metric")
        validation_rows(store, "early_stopping_patience")
