"""Number the objectives of this process, for graphs of `torch.compile`."""

from itertools import count
from typing import Any
from weakref import WeakValueDictionary

_objectives: "WeakValueDictionary[int, Any]" = WeakValueDictionary()
_next_number = count()


def register(objective: Any) -> int:
    number = next(_next_number)
    _objectives[number] = objective
    return number


def find_objective(number: int) -> Any:
    return _objectives[number]
