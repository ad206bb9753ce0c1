"""Training objectives: `nn.Module`s that take a mapping of embeddings and return a `LossOutput`.

`names` and `create` work without importing torch until an objective is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unialign.losses._presets import PRESETS
from unialign.losses._registry import create, display_name, initialization, names, needs_anchor, parameter_names

if TYPE_CHECKING:
    from unialign.losses._align_uniform import AlignUniform
    from unialign.losses._cs_aligner import CSAligner
    from unialign.losses._cua import CUA
    from unialign.losses._gram import GRAM
    from unialign.losses._infonce import InfoNCE
    from unialign.losses._modgap import ModGap
    from unialign.losses._objective import LossOutput, LossTerm, Objective, weighted_sum
    from unialign.losses._pmrl import PMRL
    from unialign.losses._sigmoid import Sigmoid
    from unialign.losses._symile import Symile
    from unialign.losses._triangle import Triangle
    from unialign.losses._unialign import UniAlign

__all__ = [
    "CUA",
    "GRAM",
    "PMRL",
    "PRESETS",
    "AlignUniform",
    "CSAligner",
    "InfoNCE",
    "LossOutput",
    "LossTerm",
    "ModGap",
    "Objective",
    "Sigmoid",
    "Symile",
    "Triangle",
    "UniAlign",
    "create",
    "display_name",
    "initialization",
    "names",
    "needs_anchor",
    "parameter_names",
    "weighted_sum",
]

_HOMES = {
    "AlignUniform": "_align_uniform",
    "CSAligner": "_cs_aligner",
    "CUA": "_cua",
    "GRAM": "_gram",
    "InfoNCE": "_infonce",
    "LossOutput": "_objective",
    "ModGap": "_modgap",
    "Objective": "_objective",
    "PMRL": "_pmrl",
    "Sigmoid": "_sigmoid",
    "Symile": "_symile",
    "LossTerm": "_objective",
    "Triangle": "_triangle",
    "UniAlign": "_unialign",
    "weighted_sum": "_objective",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"unialign.losses.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unialign.losses' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
