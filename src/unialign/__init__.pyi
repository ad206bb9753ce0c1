from unialign import (
    closed_form as closed_form,
    config as config,
    correction as correction,
    data as data,
    diagnostics as diagnostics,
    distributed as distributed,
    encoders as encoders,
    errors as errors,
    evaluation as evaluation,
    functional as functional,
    generation as generation,
    geometry as geometry,
    integrations as integrations,
    losses as losses,
    media as media,
    metrics as metrics,
    migration as migration,
    ops as ops,
    registry as registry,
    train as train,
)
from unialign._version import __version__ as __version__
from unialign.config import TrainConfig as TrainConfig
from unialign.correction import repair as repair
from unialign.diagnostics import diagnose as diagnose
from unialign.evaluation import evaluate as evaluate
from unialign.experiments import compare as compare
from unialign.migration import bridge as bridge
from unialign.space import Space as Space
from unialign.train import fit as fit

__all__ = [
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
    "encoders",
    "errors",
    "evaluate",
    "evaluation",
    "fit",
    "functional",
    "generation",
    "geometry",
    "integrations",
    "losses",
    "media",
    "metrics",
    "migration",
    "ops",
    "registry",
    "repair",
    "train",
]
