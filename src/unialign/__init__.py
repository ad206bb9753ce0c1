"""Learn, measure and search one embedding space for any number of modalities.

Importing this package imports neither torch nor numpy; the names below are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unialign._version import __version__

_MODULES = (
    "config",
    "data",
    "diagnostics",
    "distributed",
    "encoders",
    "errors",
    "evaluation",
    "functional",
    "generation",
    "geometry",
    "ops",
    "losses",
    "metrics",
    "registry",
    "train",
)
_OBJECTS = {
    "Space": "unialign.space",
    "TrainConfig": "unialign.config",
    "diagnose": "unialign.diagnostics",
    "fit": "unialign.train",
    "evaluate": "unialign.evaluation",
}

__all__ = [
    "Space",
    "TrainConfig",
    "__version__",
    "config",
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
    "losses",
    "metrics",
    "ops",
    "registry",
    "train",
]

if TYPE_CHECKING:
    from unialign import (
        config,
        data,
        diagnostics,
        distributed,
        encoders,
        errors,
        evaluation,
        functional,
        generation,
        geometry,
        losses,
        metrics,
        ops,
        registry,
        train,
    )
    from unialign.config import TrainConfig
    from unialign.diagnostics import diagnose
    from unialign.evaluation import evaluate
    from unialign.space import Space
    from unialign.train import fit


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"unialign.{name}")
    if name in _OBJECTS:
        return getattr(import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'unialign' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
