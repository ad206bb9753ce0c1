"""Create objectives by name, built-in or from other packages. Importing this module does not import torch."""

import inspect
from typing import TYPE_CHECKING, Any, Literal

from unialign import registry
from unialign._checks import suggestion
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.losses._objective import Objective


def names() -> tuple[str, ...]:
    """Return the names of all objectives, the built-in objectives (`unialign`, `infonce`, ...) first."""
    return registry.names("objectives")


def create(objective: "str | Objective", /, **options: Any) -> "Objective":
    """Build an objective by name. An instance is returned unchanged.

    Examples:
        >>> create("gram", anchor="text", temperature=0.07).anchor
        'text'

    Raises:
        ConfigError: unknown name, unknown option, an option out of range, or options given with an instance.
    """
    if not isinstance(objective, str):
        if not isinstance(objective, _base()):
            raise ConfigError(f"objective must be a name or a unialign.losses.Objective, got {objective!r}")
        if options:
            raise ConfigError(
                f"options {', '.join(options)} need an objective given by name; set them on the instance instead"
            )
        return objective
    objective_class = _class(objective)
    parameters = inspect.signature(objective_class).parameters
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        names, known = ", ".join(map(repr, unknown)), ", ".join(parameters)
        raise ConfigError(
            f"{objective} has no option {names}; its options are {known}{suggestion(unknown[0], parameters)}"
        )
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise ConfigError(f"{objective} needs {', '.join(f'{option}=' for option in missing)}")
    return objective_class(**options)


def parameter_names(name: str) -> tuple[str, ...]:
    """Return the options of an objective, in the order of its constructor.

    Examples:
        >>> parameter_names("infonce")[:2]
        ('anchor', 'pairs')

    Raises:
        ConfigError: unknown name.
    """
    return tuple(inspect.signature(_class(name)).parameters)


def display_name(name: str) -> str:
    """Return the display name of an objective in tables and reports; unknown names are returned unchanged."""
    return _class(name).display_name if name in names() else name


def initialization(name: str) -> Literal["scratch", "contrastive"]:
    """Return `contrastive` if an objective trains poorly from scratch and should start from a contrastive model."""
    return _class(name).initialization


def needs_anchor(name: str) -> Literal["modality", "any", "no"]:
    """Return the kind of anchor that is required: `modality`, `any` (a modality or "all"), or `no`."""
    return _class(name).needs_anchor


def _class(name: str) -> "type[Objective]":
    found = registry.load("objectives", name)
    if not (isinstance(found, type) and issubclass(found, _base())):
        raise ConfigError(f"objective {name!r} must be a subclass of unialign.losses.Objective, got {found!r}")
    return found


def _base() -> "type[Objective]":
    from unialign.losses._objective import Objective  # imports torch

    return Objective
