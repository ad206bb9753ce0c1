"""Many processes: one batch that lies on all of them.

`with unialign.distributed.init():` in a script that torchrun or SLURM starts is all that a training needs; losses find
the processes by themselves.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["ProcessInfo", "init"]

if TYPE_CHECKING:
    from unialign.distributed._environment import ProcessInfo
    from unialign.distributed._launch import init

_HOMES = {"ProcessInfo": "_environment", "init": "_launch"}


def __getattr__(name: str) -> Any:
    # Lazily: the border needs one file of this package, and whoever has one process none of the others.
    if name in _HOMES:
        return getattr(import_module(f"unialign.distributed.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'unialign.distributed' has no attribute {name!r}")
