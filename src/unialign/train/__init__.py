"""Training a `Space` on a store: one configuration, one function, one result."""

from unialign.train._checkpoint import newest_checkpoint
from unialign.train._config import TrainConfig
from unialign.train._device import chosen_device
from unialign.train._eval_callback import EvalCallback
from unialign.train._fit import FitResult, check_fit, fit, training_steps
from unialign.train._grad_cache import grad_cache_backward
from unialign.train._monitor import HealthWarning

__all__ = [
    "EvalCallback",
    "FitResult",
    "HealthWarning",
    "TrainConfig",
    "check_fit",
    "chosen_device",
    "fit",
    "grad_cache_backward",
    "newest_checkpoint",
    "training_steps",
]
