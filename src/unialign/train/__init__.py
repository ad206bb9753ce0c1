"""Training a `Space` on a store: one configuration, one function, one result."""

from unialign.train._checkpoint import newest_checkpoint
from unialign.train._config import TrainConfig
from unialign.train._fit import FitResult, check_fit, fit
from unialign.train._monitor import HealthWarning

__all__ = ["FitResult", "HealthWarning", "TrainConfig", "check_fit", "fit", "newest_checkpoint"]
