"""Import optional packages on first use."""

from importlib import import_module
from typing import Any

from unialign._checks import one_line
from unialign.errors import MissingDependencyError

__all__ = ["optional_module"]


def optional_module(name: str, what: str, extra: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # OSError: soundfile does not find its C library
        raise MissingDependencyError(
            f"{what} needs {name.partition('.')[0]}, which cannot be imported ({one_line(error)}): "
            f"pip install 'unialign[{extra}]'"
        ) from None
