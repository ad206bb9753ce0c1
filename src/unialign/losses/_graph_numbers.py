"""Numbers that stand for the objectives of this process in graphs of `torch.compile`."""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

_objectives: "WeakValueDictionary[int, Any]" = WeakValueDictionary()
_next_number = count()


def register(objective: Any) -> int:
    """Return a new number, for which `find_objective` returns the objective as long as it exists."""
    number = next(_next_number)
    _objectives[number] = objective
    return number


def find_objective(number: int) -> Any:
    """Return the objective with this number."""
    return _objectives[number]
