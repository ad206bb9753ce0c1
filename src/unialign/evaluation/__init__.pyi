from unialign.evaluation._evaluate import Evaluation as Evaluation, evaluate as evaluate
from unialign.evaluation._joint import joint_retrieval as joint_retrieval
from unialign.evaluation._metrics import METRICS as METRICS, Metric as Metric, metric_range as metric_range
from unialign.evaluation._statistics import ItemMean as ItemMean, Statistic as Statistic, resample as resample

__all__ = ["METRICS", "Evaluation", "Metric", "Statistic", "evaluate", "joint_retrieval", "metric_range", "resample"]
