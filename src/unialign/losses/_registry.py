"""Objectives by the names that the command line and configurations use. Importing this file imports no torch."""

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any

from unialign._checks import check_choice
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.losses._objective import Objective

__all__ = ["create", "names"]

_OBJECTIVES = {
    "unialign": ("unialign.losses._unialign", "UniAlign"),
    "infonce": ("unialign.losses._infonce", "InfoNCE"),
    "gram": ("unialign.losses._gram", "GRAM"),
}


def names() -> tuple[str, ...]:
    """Names that `create` knows."""
    return tuple(_OBJECTIVES)


def create(name: str, **options: Any) -> "Objective":
    """An objective by name.

    Example:
        >>> create("gram", anchor="text", temperature=0.07).anchor
        'text'

    Raises:
        ConfigError: unknown name, unknown option, or an option out of range.
    """
    check_choice("objective", name, _OBJECTIVES)
    module, attribute = _OBJECTIVES[name]
    objective: type[Objective] = getattr(import_module(module), attribute)
    parameters = inspect.signature(objective).parameters
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise ConfigError(f"{name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(parameters)}")
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise ConfigError(f"{name} needs {', '.join(f'{option}=' for option in missing)}")
    if isinstance(options.get("temperature_bounds"), list):
        options = options | {"temperature_bounds": tuple(options["temperature_bounds"])}
    return objective(**options)
