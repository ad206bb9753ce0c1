from unialign import (
    closed_form as closed_form,
    config as config,
    correction as correction,
    data as data,
    diagnostics as diagnostics,
    distributed as distributed,
    embedding as embedding,
    encoders as encoders,
    errors as errors,
    evaluation as evaluation,
    functional as functional,
    generation as generation,
    geometry as geometry,
    index as index,
    inspection as inspection,
    integrations as integrations,
    items as items,
    losses as losses,
    media as media,
    metrics as metrics,
    migration as migration,
    named_data as named_data,
    ops as ops,
    probes as probes,
    registry as registry,
    serve as serve,
    train as train,
    tuning as tuning,
)
from unialign._version import __version__ as __version__
from unialign.config import TrainConfig as TrainConfig
from unialign.correction import repair as repair
from unialign.diagnostics import diagnose as diagnose
from unialign.embedding import embed as embed
from unialign.evaluation import evaluate as evaluate
from unialign.experiments import compare as compare
from unialign.index import Index as Index, query as query
from unialign.inspection import inspect as inspect
from unialign.migration import bridge as bridge, replace_encoder as replace_encoder
from unialign.space import Space as Space
from unialign.train import fit as fit
from unialign.tuning import tune as tune

__all__ = [
    "Index",
    "Space",
    "TrainConfig",
    "__version__",
    "bridge",
    "closed_form",
    "compare",
    "config",
    "correction",
    "data",
    "diagnose",
    "diagnostics",
    "distributed",
    "embed",
    "embedding",
    "encoders",
    "errors",
    "evaluate",
    "evaluation",
    "fit",
    "functional",
    "generation",
    "geometry",
    "index",
    "inspect",
    "inspection",
    "integrations",
    "items",
    "losses",
    "media",
    "metrics",
    "migration",
    "named_data",
    "ops",
    "probes",
    "query",
    "registry",
    "repair",
    "replace_encoder",
    "serve",
    "train",
    "tune",
    "tuning",
]
