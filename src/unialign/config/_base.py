"""Base class of configurations: frozen dataclasses whose fields carry their help text and their check."""

import dataclasses
import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from unialign._checks import check_choice, check_text
from unialign.errors import ConfigError

__all__ = ["Check", "Config", "Setting", "setting"]

Check = Callable[[str, Any], None]


def setting(default: Any, help: str, check: Check | None = None, *, bookkeeping: bool = False) -> Any:
    """A field of a configuration.

    Args:
        default: the default; a dict is copied for each configuration.
        help: one phrase for the docstring, `--help` and the reference, with units and range.
        check: called with name and value, raises ConfigError; None values of optional settings are not checked.
        bookkeeping: whether the setting may differ between a run and its resumption, since it does not change weights.
    """
    metadata = {"help": help, "check": check, "bookkeeping": bookkeeping}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """Description of one field, for options and reference pages.

    Attributes:
        kind: type of the value, or of an entry where `is_list`; `Mapping` for a mapping.
        choices: the values of a `Literal`, else ().
    """

    name: str
    help: str
    default: Any
    kind: Any
    choices: tuple[str, ...]
    is_list: bool
    is_optional: bool
    bookkeeping: bool
    check: Check | None


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings, checked on construction: values of JSON types that survive a round trip through a file.

    Subclasses are `@dataclass(frozen=True, kw_only=True)` with fields made by `setting`.
    """

    kind: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # The fields' help texts are the attributes' documentation; `@dataclass` has not replaced the fields yet.
        fields = {name: value for name, value in vars(cls).items() if isinstance(value, dataclasses.Field)}
        lines = "".join(f"        {name}: {value.metadata['help']}.\n" for name, value in fields.items())
        cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes:\n{lines}    "

    def __post_init__(self) -> None:
        for entry in self.settings():
            object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))
        self.validate()

    def validate(self) -> None:
        """Raise ConfigError for settings that conflict with each other; each one's own range is checked before."""

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        """Name, type, default and help text of every setting, in order."""
        return _settings(cls)  # type: ignore[arg-type]  # mypy takes the class for an unhashable instance

    @classmethod
    def bookkeeping(cls) -> tuple[str, ...]:
        """Settings that may differ between a run and its resumption."""
        return tuple(entry.name for entry in cls.settings() if entry.bookkeeping)

    def replace(self, **changes: Any) -> Self:
        """A copy with some settings changed."""
        return self.override(changes)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with some settings changed; `objective_options.KEY` changes one entry of a mapping.

        Raises:
            ConfigError: a setting is unknown (the message suggests one) or out of range.
        """
        values = {entry.name: getattr(self, entry.name) for entry in self.settings()}
        mappings = [entry.name for entry in self.settings() if entry.kind is Mapping]
        for key, value in changes.items():
            name, dot, option = str(key).partition(".")
            if dot and name not in mappings:
                parts = f"only {' and '.join(mappings)} have parts" if mappings else "no setting has parts"
                raise ConfigError(f"unknown setting {key!r}; {parts}")
            values[name if dot else key] = {**values[name], option: value} if dot else value
        return self.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """A configuration from Python values; ConfigError suggests a name for an unknown setting."""
        known = [entry.name for entry in cls.settings()]
        for name in values:
            if name not in known:
                close = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
                raise ConfigError(f"unknown {cls.kind} setting {name!r}; {hint}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain dict of JSON types; `from_dict` rebuilds the same configuration."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in self.settings()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """A configuration from a dict, for example a parsed YAML file; missing settings take their defaults.

        Raises:
            ConfigError: a setting is unknown (the message suggests one) or out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"a {cls.kind} configuration must map setting to value, got {type(values).__name__}")
        return cls.from_values(values)


def _checked(entry: Setting, value: Any) -> Any:
    """The value in the type that a file would give back, so that a configuration equals its round trip."""
    name = entry.name
    if value is None and entry.is_optional:
        return None
    if entry.is_list:
        if isinstance(value, str):
            raise ConfigError(f"{name} is the string {value!r}; expected a list such as [{value!r}]")
        if not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        value = tuple(value)
    elif entry.kind is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a mapping, got {value!r}")
        try:
            value = json.loads(json.dumps(dict(value), allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{name} must hold plain numbers, strings and lists: {error}") from None
    for one in value if entry.is_list else [value]:
        if entry.choices:
            check_choice(name, one, entry.choices)
        elif entry.kind is str:
            check_text(name, one)
    if entry.check is not None:
        entry.check(name, value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


@cache
def _settings(cls: type[Config]) -> tuple[Setting, ...]:
    hints = get_type_hints(cls)
    return tuple(_setting(entry, hints[entry.name]) for entry in dataclasses.fields(cls))


def _setting(entry: "dataclasses.Field[Any]", hint: Any) -> Setting:
    parts = set(get_args(hint)) if get_origin(hint) in (Union, UnionType) else {hint}
    optional = NoneType in parts
    (kind,) = parts - {NoneType}
    is_list = get_origin(kind) is tuple
    kind = get_args(kind)[0] if is_list else kind
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return Setting(
        name=entry.name,
        help=entry.metadata["help"],
        default=entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory(),
        kind=str if choices else (Mapping if get_origin(kind) is Mapping else kind),
        choices=choices,
        is_list=is_list,
        is_optional=optional,
        bookkeeping=entry.metadata["bookkeeping"],
        check=entry.metadata["check"],
    )
