"""A space on a set of items: every metric, every direction, with intervals."""

from unialign.evaluation._evaluate import Evaluation, evaluate
from unialign.evaluation._joint import joint_retrieval
from unialign.evaluation._metrics import METRICS, Metric, metric_range
from unialign.evaluation._statistics import Statistic, resample

__all__ = ["METRICS", "Evaluation", "Metric", "Statistic", "evaluate", "joint_retrieval", "metric_range", "resample"]
