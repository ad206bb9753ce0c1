"""Training a `Space` on a store: one configuration, one function, one result."""

from unialign.train._config import TrainConfig
from unialign.train._fit import FitResult, fit
from unialign.train._monitor import HealthWarning

__all__ = ["FitResult", "HealthWarning", "TrainConfig", "fit"]
