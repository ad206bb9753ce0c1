"""Assign numbers to the objectives of this process, for use in graphs of `torch.compile`."""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

_objectives: "WeakValueDictionary[int, Any]" = WeakValueDictionary()
_next_number = count()


def register(objective: Any) -> int:
    """Return a new number; `find_objective` returns the objective for this number as long as the objective exists."""
    number = next(_next_number)
    _objectives[number] = objective
    return number


def find_objective(number: int) -> Any:
    """Return the objective registered under this number."""
    return _objectives[number]
