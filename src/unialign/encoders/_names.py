"""Parse the names of encoders: `kind:name@revision?key=value`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from unialign import registry
from unialign.errors import ConfigError

__all__ = ["EncoderName", "parse_name"]

_FORM = "expected 'kind:name', 'kind:name@revision' or 'kind:name?key=value', such as 'builtin:chars'"


@dataclass(frozen=True)
class EncoderName:
    """The parts of the name of an encoder.

    Attributes:
        kind: kind of encoder, such as `builtin` or `transformers`; a name in the registry group `encoders`.
        name: name within the kind, such as `chars`; a Hub id, or a folder if it starts with `.`, `~` or `/`.
        revision: branch, tag or commit on the Hub, or None.
        options: the options after `?`, as text.
    """

    kind: str
    name: str
    revision: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """Return the folder that the name denotes, or None if it is not a path."""
        return Path(self.name).expanduser() if is_path(self.name) else None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        options = "&".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.kind}:{self.name}{revision}{'?' if options else ''}{options}"


def parse_name(name: str) -> EncoderName:
    """Parse the name of an encoder.

    Examples:
        >>> parse_name("transformers:openai/clip-vit-base-patch32?tower=vision").options
        {'tower': 'vision'}

    Raises:
        ConfigError: the name is malformed, or no kind of encoder has the name before the colon.
    """
    if not isinstance(name, str):
        raise ConfigError(f"the name of an encoder must be a string, got {name!r}")
    kind, colon, rest = name.partition(":")
    if not colon or not kind:
        raise ConfigError(f"{name!r} is not the name of an encoder; {_FORM}")
    body, _, query = rest.partition("?")
    revision: str | None = None
    if not is_path(body) and "@" in body:
        body, _, revision = body.rpartition("@")
    if not body or revision == "":
        raise ConfigError(f"{name!r} is not the name of an encoder; {_FORM}")
    return EncoderName(_kind(kind), body, revision, _options(name, query))


def is_path(name: str) -> bool:
    """Return whether a name denotes a folder, without reading the file system."""
    return name.startswith((".", "/", "~")) or os.path.isabs(name)


def _kind(kind: str) -> str:
    # Built-in kinds are modules, whose names have no hyphens.
    module = kind.replace("-", "_")
    found = module if registry.is_built_in("encoders", module) else kind
    registry.check("encoders", found)
    return found


def _options(name: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for entry in filter(None, query.split("&")):
        key, equals, value = entry.partition("=")
        if not equals or not key:
            raise ConfigError(f"option {entry!r} of the encoder {name!r} must have the form key=value")
        if key in options:
            raise ConfigError(f"the encoder {name!r} has the option {key!r} twice")
        options[key] = value
    return options
