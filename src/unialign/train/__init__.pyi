from unialign.config import TrainConfig as TrainConfig
from unialign.encoders import chosen_device as chosen_device
from unialign.train._batches import derived_seed as derived_seed
from unialign.train._checkpoint import newest_checkpoint as newest_checkpoint
from unialign.train._eval_callback import EvalCallback as EvalCallback
from unialign.train._fit import (
    FitResult as FitResult,
    check_fit as check_fit,
    fit as fit,
    training_steps as training_steps,
)
from unialign.train._fit_items import check_items as check_items
from unialign.train._grad_cache import grad_cache_backward as grad_cache_backward
from unialign.train._health_monitor import HealthMonitor as HealthMonitor
from unialign.train._init_from import weights_digest as weights_digest
from unialign.train._metric_loggers import (
    MetricLogger as MetricLogger,
    check_logger as check_logger,
    logger_names as logger_names,
    open_loggers as open_loggers,
)
from unialign.train._monitor import HealthWarning as HealthWarning
from unialign.train._optimizer import (
    learning_rate as learning_rate,
    load_optimizer_tensors as load_optimizer_tensors,
    make_adamw as make_adamw,
    optimizer_tensors as optimizer_tensors,
)
from unialign.train._process_group import process_group_of as process_group_of
from unialign.train._run_dir import RunDir as RunDir, check_run_arguments as check_run_arguments
from unialign.train._trainer import OnStep as OnStep, Trainer as Trainer
from unialign.train._training_task import StepReport as StepReport, TrainingTask as TrainingTask

__all__ = [
    "EvalCallback",
    "FitResult",
    "HealthMonitor",
    "HealthWarning",
    "TrainConfig",
    "check_fit",
    "chosen_device",
    "fit",
    "grad_cache_backward",
    "newest_checkpoint",
    "training_steps",
]
