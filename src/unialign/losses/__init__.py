"""Training objectives: `nn.Module`s that take a mapping of embeddings and return a `LossOutput`.

`names` and `create` work without importing torch until an objective is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unialign.losses._presets import PRESETS
from unialign.losses._registry import create, label, names, start

if TYPE_CHECKING:
    from unialign.losses._gram import GRAM
    from unialign.losses._infonce import InfoNCE
    from unialign.losses._objective import LossOutput, Objective, Term, weighted_sum
    from unialign.losses._unialign import UniAlign

__all__ = [
    "GRAM",
    "PRESETS",
    "InfoNCE",
    "LossOutput",
    "Objective",
    "Term",
    "UniAlign",
    "create",
    "label",
    "names",
    "start",
    "weighted_sum",
]

_HOMES = {
    "GRAM": "_gram",
    "InfoNCE": "_infonce",
    "LossOutput": "_objective",
    "Objective": "_objective",
    "Term": "_objective",
    "UniAlign": "_unialign",
    "weighted_sum": "_objective",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"unialign.losses.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unialign.losses' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
