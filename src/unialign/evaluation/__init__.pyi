from unialign.evaluation._chance import mean_chance as mean_chance
from unialign.evaluation._evaluate import evaluate as evaluate, sampled_places as sampled_places
from unialign.evaluation._evaluation import Evaluation as Evaluation
from unialign.evaluation._gram_protocol import gram_protocol as gram_protocol
from unialign.evaluation._gram_protocol_published import (
    gram_benchmark as gram_benchmark,
    gram_own_rows as gram_own_rows,
    gram_published as gram_published,
)
from unialign.evaluation._gram_protocol_result import (
    GramEntry as GramEntry,
    GramResult as GramResult,
    GramSet as GramSet,
)
from unialign.evaluation._item_features import (
    accepted_licenses as accepted_licenses,
    encoders_for_items as encoders_for_items,
    items_of_split as items_of_split,
)
from unialign.evaluation._joint import joint_retrieval as joint_retrieval
from unialign.evaluation._metrics import (
    METRICS as METRICS,
    Metric as Metric,
    all_metrics as all_metrics,
    metric_range as metric_range,
)
from unialign.evaluation._omni import omni as omni
from unialign.evaluation._omni_result import (
    OMNI_METRICS as OMNI_METRICS,
    OmniPair as OmniPair,
    OmniResult as OmniResult,
)
from unialign.evaluation._selection import (
    SELECTION_METRICS as SELECTION_METRICS,
    log_score as log_score,
    selection_metrics as selection_metrics,
)
from unialign.evaluation._statistics import (
    ConstantStatistic as ConstantStatistic,
    ItemMean as ItemMean,
    Statistic as Statistic,
    resample as resample,
)
from unialign.evaluation._validation_score import (
    check_selection_metric as check_selection_metric,
    selection_score as selection_score,
    validation_metrics as validation_metrics,
    validation_rows as validation_rows,
)

__all__ = [
    "METRICS",
    "ConstantStatistic",
    "Evaluation",
    "GramEntry",
    "GramResult",
    "GramSet",
    "ItemMean",
    "Metric",
    "OmniPair",
    "OmniResult",
    "Statistic",
    "evaluate",
    "gram_protocol",
    "gram_published",
    "joint_retrieval",
    "metric_range",
    "omni",
    "resample",
]
