"""Base class of objectives that wrap another objective."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unialign.batch import Batch
from unialign.errors import ConfigError
from unialign.losses._bounded_parameter import Temperature
from unialign.losses._create import create
from unialign.losses._modality_temperature import ModalityTemperature
from unialign.losses._objective import Objective


class ObjectiveWrapper(Objective):
    """Base class of objectives whose call accepts the arguments of the wrapped objective."""

    def __init__(self, objective: str | Objective, objective_options: Mapping[str, Any] | None) -> None:
        super().__init__()
        if objective_options is not None and not isinstance(objective_options, Mapping):
            raise ConfigError(f"objective_options must be a mapping of option names, got {objective_options!r}")
        self.objective = create(objective, **(objective_options or {}))
        self.temperature_kind = self.objective.temperature_kind
        self.call_arguments = self.objective.call_arguments
        self.smallest_dim = self.objective.smallest_dim

    @property
    def temperature(self) -> Temperature | ModalityTemperature | float | dict[str, float] | None:
        return getattr(self.objective, "temperature", None)

    def with_objective(self, objective: Objective) -> "ObjectiveWrapper":
        options = self.get_config() | {"objective": objective, "objective_options": None}
        return type(self)(**options)

    def cosine_temperature(self, batch: Batch) -> Tensor | float | ModalityTemperature | None:
        return self.objective.cosine_temperature(batch)

    def needs_similarity(self) -> bool:
        return self.objective.needs_similarity()

    def similarity_modalities(self, names: Sequence[str]) -> tuple[str, ...]:
        return self.objective.similarity_modalities(names)

    def draw_number(self) -> int:
        return self.objective.draw_number()

    def advance_draw(self) -> None:
        self.objective.advance_draw()

    def get_config(self) -> dict[str, Any]:
        inner = {"objective": self.objective.name, "objective_options": self.objective.get_config()}
        return inner | self.own_config()

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.own_config().items())

    @abstractmethod
    def own_config(self) -> dict[str, Any]: ...
