"""Base class of configurations: frozen dataclasses whose fields define help text and validation."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from unialign._checks import check_choice, check_text, suggestion
from unialign.config._yaml import read_yaml
from unialign.errors import ConfigError

Check = Callable[[str, Any], None]
REQUIRED = dataclasses.MISSING


def setting(default: Any, help: str, check: Check | None = None, *, bookkeeping: bool = False) -> Any:
    """Declare a field. `check` takes the name and the value. A resumed run may change `bookkeeping` settings."""
    metadata = {"help": help, "check": check, "bookkeeping": bookkeeping}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """Description of a field. `words` are allowed in addition to values of another type, such as `auto`."""

    name: str
    help: str
    default: Any
    kind: Any
    config: "type[Config] | None"
    choices: tuple[str, ...]
    words: tuple[str, ...]
    is_list: bool
    is_optional: bool
    is_required: bool
    bookkeeping: bool
    check: Check | None


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings with values of JSON types, validated on construction and preserved when saved and loaded.

    Subclasses are declared with `@dataclass(frozen=True, kw_only=True)`; their fields are created by `setting`.
    """

    kind: ClassVar[str] = ""
    # Settings that are mappings of configurations, whose single settings can be changed.
    nested: ClassVar[Mapping[str, type["Config"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # Document the attributes with the help texts of the fields, before `@dataclass` replaces the fields.
        fields = {name: value for name, value in vars(cls).items() if isinstance(value, dataclasses.Field)}
        lines = "".join(f"        {name}: {value.metadata['help']}.\n" for name, value in fields.items())
        cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes:\n{lines}    "

    def __post_init__(self) -> None:
        for entry in self.settings():
            object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))
        self.validate()

    def validate(self) -> None:
        """Raise ConfigError for conflicting settings; each single setting has already been validated."""

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        """Return name, type, default and help text of every setting, in order."""
        return _settings(cls)  # type: ignore[arg-type]  # mypy takes the class for an unhashable instance

    @classmethod
    def bookkeeping(cls) -> tuple[str, ...]:
        """Return the names of settings that a resumed run may change."""
        return tuple(entry.name for entry in cls.settings() if entry.bookkeeping)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed."""
        return self.override(changes)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with some settings changed; `objective_options.KEY` changes one entry of a mapping, and
        `tune.MODALITY.SETTING` one setting of an entry.

        Raises:
            ConfigError: a setting is unknown (the message suggests one) or out of range.
        """
        values = {entry.name: getattr(self, entry.name) for entry in self.settings()}
        mappings = [entry.name for entry in self.settings() if entry.kind is Mapping]
        for key, value in changes.items():
            name, dot, option = str(key).partition(".")
            if dot and name not in mappings:
                dotted = f"only for {' and '.join(mappings)}" if mappings else "for no setting"
                raise ConfigError(f"unknown setting {key!r}; the form SETTING.KEY is supported {dotted}")
            values[name if dot else key] = (
                {**values[name], **self._entry(name, option, value, values)} if dot else value
            )
        return self.from_dict(values)

    @classmethod
    def check(cls, changes: Mapping[str, Any]) -> None:
        """Raise ConfigError if a name is unknown or a value is out of range; unlike `override`, needs no instance."""
        settings = {entry.name: entry for entry in cls.settings()}
        for key, value in changes.items():
            name, dot, option = key.partition(".")
            if name not in settings:
                raise cls._unknown(name)
            nested, _, setting_name = cls._nested_setting(name, option, value)
            if nested is not None:
                nested.check({setting_name: value})
            else:
                _checked(settings[name], {option: value} if dot else value)

    @classmethod
    def _nested_setting(cls, name: str, option: str, value: Any) -> "tuple[type[Config] | None, str, str]":
        """Split `KEY.SETTING` at the last dot, if the mapping has such settings; keys may also contain dots."""
        key, dot, setting_name = option.rpartition(".")
        nested = cls.nested.get(name)
        if nested is None or not dot or all(setting_name != entry.name for entry in nested.settings()):
            if nested is not None and dot and not isinstance(value, str | Mapping | Config):
                raise nested._unknown(setting_name)
            return None, option, ""
        return nested, key, setting_name

    @classmethod
    def _entry(cls, name: str, option: str, value: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        nested, key, setting_name = cls._nested_setting(name, option, value)
        return {key: {**values[name].get(key, {}), setting_name: value}} if nested is not None else {option: value}

    @classmethod
    def _unknown(cls, name: object) -> ConfigError:
        known = [entry.name for entry in cls.settings()]
        hint = suggestion(name, known, otherwise=f"the settings are {', '.join(known)}")
        return ConfigError(f"unknown {cls.kind} setting {name!r}{hint}")

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types; `from_dict` rebuilds the configuration from it."""
        return {entry.name: _plain(getattr(self, entry.name)) for entry in self.settings()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration from a dict, such as a parsed YAML file; missing settings take their defaults.

        Raises:
            ConfigError: a setting is unknown (the message suggests one), missing or out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"the {cls.kind} configuration must map setting names to values, got {type(values).__name__}"
            )
        settings = {entry.name: entry for entry in cls.settings()}
        for name in values:
            if name not in settings:
                raise cls._unknown(name)
        if missing := [repr(name) for name, entry in settings.items() if entry.is_required and name not in values]:
            raise ConfigError(f"the {cls.kind} configuration needs {' and '.join(missing)}")
        return cls(**values)

    @classmethod
    def read(cls, path: Path, key: str = "") -> Self:
        """Read a configuration from a YAML file, or from the mapping `key` in the file; errors name the file."""
        values = read_yaml(path)
        if key and key not in values:
            raise ConfigError(f"{path} has no {cls.kind} settings; expected a mapping `{key}`")
        try:
            return cls.from_dict(values[key] if key else values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def _checked(entry: Setting, value: Any) -> Any:
    """Convert a value to the type that is read from a file, so that a round trip preserves equality."""
    name = entry.name
    if (value is None and entry.is_optional) or (isinstance(value, str) and value in entry.words):
        return value
    if entry.is_list:
        if isinstance(value, str):
            raise ConfigError(f"{name} must be a list such as [{value!r}], got the string {value!r}")
        if not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise ConfigError(f"{name} must be a list, got {value!r}")
        value = tuple(value)
    elif entry.kind is Mapping:
        value = _checked_mapping(entry, value)
    elif entry.config is not None:
        return value if isinstance(value, Config) else entry.config.from_dict(value)
    for one in value if entry.is_list else [value]:
        if entry.choices:
            check_choice(name, one, entry.choices)
        elif entry.kind is str:
            check_text(name, one)
        elif entry.kind is bool and not isinstance(one, bool):
            raise ConfigError(f"{name} must be true or false, got {one!r}")
    if entry.check is not None:
        entry.check(name, value)
    return value


def _checked_mapping(entry: Setting, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{entry.name} must be a mapping, got {value!r}")
    found: dict[str, Any] = {}
    for key, one in value.items():
        try:
            if entry.config is None:
                found |= json.loads(json.dumps({key: one}, allow_nan=False))
            else:
                found[key] = one if isinstance(one, Config) else entry.config.from_dict(one)
        except ConfigError as error:
            raise ConfigError(f"{entry.name}.{key}: {error}") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"{entry.name}.{key} must consist of finite numbers, strings, lists and mappings: {error}"
            ) from None
    return found


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
    parts, is_optional = parts - {NoneType}, NoneType in parts
    words = {part for part in parts if get_origin(part) is Literal} if len(parts) > 1 else set()
    (kind,) = parts - words
    is_list, is_mapping = get_origin(kind) is tuple, get_origin(kind) is Mapping
    value = get_args(kind)[1] if is_mapping else get_args(kind)[0] if is_list else kind
    choices = get_args(value) if get_origin(value) is Literal and not is_mapping else ()
    required = entry.default is REQUIRED and entry.default_factory is REQUIRED
    default = entry.default if entry.default_factory is REQUIRED else entry.default_factory()
    return Setting(
        name=entry.name,
        default=None if required else default,
        kind=Mapping if is_mapping else str if choices else value,
        config=value if isinstance(value, type) and issubclass(value, Config) else None,
        choices=choices,
        words=tuple(word for part in words for word in get_args(part)),
        is_list=is_list,
        is_optional=is_optional,
        is_required=required,
        **entry.metadata,  # help, check and bookkeeping
    )
