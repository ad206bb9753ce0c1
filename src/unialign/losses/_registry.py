"""Objectives by the names that the command line and configurations use. Importing this file imports no torch."""

import inspect
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unialign._checks import check_choice
from unialign.errors import ConfigError

if TYPE_CHECKING:
    from unialign.losses._objective import Objective

__all__ = [
    "create",
    "display_name",
    "has_cosine_temperature",
    "initialization",
    "names",
    "needs_anchor",
    "parameter_names",
]

Initialization = Literal["scratch", "contrastive"]


class _Entry(NamedTuple):
    """Where an objective lives, how people write its name, whether it can begin from random weights, what its
    temperature divides (`cosines` as InfoNCE's does, or GRAM's volumes, which its authors give the same scale), and
    whether its anchor must be named, and then be a `modality` or `any` anchor."""

    home: str
    attribute: str
    display_name: str
    initialization: Initialization = "scratch"
    temperature: Literal["cosines", "other"] = "other"
    needs_anchor: Literal["modality", "any", "no"] = "no"


_OBJECTIVES = {
    "unialign": _Entry("_unialign", "UniAlign", "UniAlign", temperature="cosines"),
    "infonce": _Entry("_infonce", "InfoNCE", "InfoNCE", temperature="cosines"),
    # Volumes are blind to sign: its authors continue a contrastively trained model.
    "gram": _Entry(
        "_gram", "GRAM", "GRAM", initialization="contrastive", temperature="cosines", needs_anchor="modality"
    ),
    # An area is 0 where two corners coincide, wherever the third is: its authors continue a contrastive model as well.
    "triangle": _Entry("_triangle", "Triangle", "Triangle", initialization="contrastive", needs_anchor="modality"),
    "symile": _Entry("_symile", "Symile", "Symile"),
    # Singular values are blind to sign, as volumes are.
    "pmrl": _Entry("_pmrl", "PMRL", "PMRL", initialization="contrastive"),
    "sigmoid": _Entry("_sigmoid", "Sigmoid", "Sigmoid"),
    "cs_aligner": _Entry("_cs_aligner", "CSAligner", "CS-Aligner", temperature="cosines"),
    "modgap": _Entry("_modgap", "ModGap", "ModGap", temperature="cosines", needs_anchor="any"),
    "cua": _Entry("_cua", "CUA", "CUA", temperature="cosines"),
    "align_uniform": _Entry("_align_uniform", "AlignUniform", "Align+Uniform"),
}


def names() -> tuple[str, ...]:
    """Names that `create` knows."""
    return tuple(_OBJECTIVES)


def display_name(name: str) -> str:
    """How people write an objective's name; the name itself for one that is not known here."""
    return _OBJECTIVES[name].display_name if name in _OBJECTIVES else name


def initialization(name: str) -> Initialization:
    """`contrastive` for an objective that trains badly from random weights and should continue a contrastive model."""
    return _OBJECTIVES[name].initialization if name in _OBJECTIVES else "scratch"


def needs_anchor(name: str) -> Literal["modality", "any", "no"]:
    """Whether an objective's anchor must be named: a `modality`, or `any` anchor (a modality or "all"), or `no`."""
    return _OBJECTIVES[name].needs_anchor if name in _OBJECTIVES else "no"


def has_cosine_temperature(name: str) -> bool:
    """Whether the temperature of an objective means the same in InfoNCE, which may be trained before it."""
    return name in _OBJECTIVES and _OBJECTIVES[name].temperature == "cosines"


def parameter_names(name: str) -> tuple[str, ...]:
    """Options of an objective, in the order of its constructor; this imports torch.

    Example:
        >>> options("infonce")[:2]
        ('anchor', 'pairs')

    Raises:
        ConfigError: unknown name.
    """
    return tuple(inspect.signature(_class(name)).parameters)


def create(name: str, **options: Any) -> "Objective":
    """An objective by name.

    Example:
        >>> create("gram", anchor="text", temperature=0.07).anchor
        'text'

    Raises:
        ConfigError: unknown name, unknown option, or an option out of range.
    """
    objective = _class(name)
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


def _class(name: str) -> "type[Objective]":
    check_choice("objective", name, _OBJECTIVES)
    entry = _OBJECTIVES[name]
    objective: type[Objective] = getattr(import_module(f"unialign.losses.{entry.home}"), entry.attribute)
    return objective
