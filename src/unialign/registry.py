"""Look up plug-ins by name. A plug-in is built in, added by an installed package, or registered in this process.

A built-in plug-in is an object in a public module of its group's package (`losses/infonce.py`); its attribute `name`
equals the module name. Packages add names through entry points (`[project.entry-points."unialign.objectives"]`).
Notebooks and tests add names by calling `register`. Importing this module does not import torch. Entry points are read
only to list all names, or to look up a name that is neither built in nor registered. The names of the group `encoders`
are kinds of encoders, such as `builtin` or `transformers`. Plug-ins of the group
`index` are back ends of `ua.Index.connect`.
"""

import pkgutil
import signal
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, Literal, get_args

from unialign._checks import check_choice, one_line, warn_skipped
from unialign.errors import ConfigError

__all__ = ["Group", "check", "is_built_in", "load", "names", "register", "registered"]

Group = Literal["objectives", "readers", "encoders", "decoders", "index", "commands", "metrics"]

# Packages of the built-in plug-ins, and the names that are listed first.
_PACKAGES = {
    "objectives": "unialign.losses",
    "readers": "unialign.readers",
    "encoders": "unialign.encoders",
    "index": "unialign.index",
    "commands": "unialign.cli",
}
_FIRST = {
    "objectives": ("unialign", "infonce"),
    "encoders": ("builtin", "package"),
    "commands": (
        "demo",
        "data",
        "inspect",
        "embed",
        "train",
        "evaluate",
        "probe",
        "compare",
        "tune",
        "diagnose",
        "repair",
        "bridge",
        "index",
        "search",
        "serve",
        "export",
        "generate",
        "decoder",
        "completion",
    ),
}

# Built-in objectives that wrap another objective; `load` accepts these names, but `names` does not list them.
_WRAPPERS = {
    ("objectives", "fused_target"): ("unialign.losses", "FusedTarget"),
    ("objectives", "matryoshka"): ("unialign.losses", "Matryoshka"),
}

_registered: dict[tuple[Group, str], Any] = {}


def names(group: Group) -> tuple[str, ...]:
    """Return the names that `load` accepts: the built-in names, then all other names, sorted."""
    check_choice("registry group", group, get_args(Group))
    added = {*_entry_points(group), *(name for where, name in _registered if where == group)}
    return (*_built_in(group), *sorted(added))


def check(group: Group, name: object) -> None:
    """Raise ConfigError if `load` does not accept the name, and suggest a similar one. Imports nothing."""
    check_choice("registry group", group, get_args(Group))
    if isinstance(name, str) and (is_built_in(group, name) or (group, name) in _registered):
        return
    try:
        check_choice(_kind(group), name, names(group))
    except ConfigError as error:
        if "did you mean" in str(error):
            raise
        raise ConfigError(
            f"{error}; to use a plug-in, install the package that adds it (entry points 'unialign.{group}') or call "
            f"unialign.registry.register({group!r}, {name!r}, ...)"
        ) from None


def load(group: Group, name: str) -> Any:
    """Return the object registered under a name, imported on first use.

    Raises:
        ConfigError: the name is unknown, several packages add the name, or the package cannot be imported.
    """
    check(group, name)
    if (group, name) in _registered:
        return _registered[group, name]
    if (group, name) in _WRAPPERS:
        package, attribute = _WRAPPERS[group, name]
        return getattr(import_module(package), attribute)
    if name in _built_in(group):
        module = import_module(f"{_PACKAGES[group]}.{name}")
        return next(value for value in vars(module).values() if getattr(value, "name", None) == name)
    found = _entry_points(group)[name]
    if len({point.value for point in found}) > 1:
        packages = ", ".join(sorted(map(_package, found)))
        raise ConfigError(f"{_kind(group)} {name!r} is added by several packages ({packages}); uninstall all but one")
    try:
        return found[0].load()
    except (Exception, SystemExit) as error:  # third-party modules may raise any exception
        if isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            raise  # the command was terminated during the import
        cause, plug_in = one_line(f"{type(error).__name__}: {error}"), f"{_kind(group)} {name!r}"
        raise ConfigError(f"{plug_in} of the package {_package(found[0])!r} cannot be imported: {cause}") from error


def register(group: Group, name: str, value: Any) -> None:
    """Register a name in this process only, for notebooks and tests; registering a name again replaces the object.

    Worker processes of `compare` get a copy (see `registered`), so the object must be importable or picklable.

    Raises:
        ConfigError: the name is built in, or contains characters other than letters, digits, '_' and '-'.
    """
    check_choice("registry group", group, get_args(Group))
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise ConfigError(f"{_kind(group)} names must consist of letters, digits, '_' and '-', got {name!r}")
    if is_built_in(group, name):
        raise ConfigError(f"{name!r} is a built-in {_kind(group)}; choose another name")
    _registered[group, name] = value


def is_built_in(group: Group, name: str) -> bool:
    """Return whether a name is built in."""
    return name in _built_in(group) or (group, name) in _WRAPPERS


def registered() -> dict[tuple[Group, str], Any]:
    """Return a mapping from (group, name) to object for all names registered in this process."""
    return dict(_registered)


@cache
def _built_in(group: str) -> tuple[str, ...]:
    spec = find_spec(_PACKAGES[group]) if group in _PACKAGES else None
    places = spec.submodule_search_locations if spec is not None else None
    found = {m.name for m in pkgutil.iter_modules(places or []) if not m.name.startswith("_") and not m.ispkg}
    first = tuple(name for name in _FIRST.get(group, ()) if name in found)
    return (*first, *sorted(found - set(first)))


@cache
def _entry_points(group: Group) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=f"unialign.{group}"):
        if is_built_in(group, point.name):
            plug_in = f"{_kind(group)} {point.name!r} of the package {_package(point)!r}"
            warn_skipped(f"{plug_in} has the name of a built-in {_kind(group)}")
        else:
            found.setdefault(point.name, []).append(point)
    return found


def _kind(group: str) -> str:
    return group.removesuffix("s")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "?"
