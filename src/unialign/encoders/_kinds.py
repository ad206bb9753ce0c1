"""Kinds of encoders and the encoders that each kind lists. Importing this module does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from unialign import registry
from unialign._checks import check_choice, warn_skipped
from unialign.encoders._encoder import Encoder
from unialign.encoders._names import EncoderName
from unialign.errors import ConfigError
from unialign.media import KINDS, Kind

if TYPE_CHECKING:
    import torch

__all__ = ["EncoderFactory", "EncoderInfo", "EncoderKind", "default", "find_kind", "names"]


class EncoderFactory(Protocol):
    """Interface of the functions that build the encoders of a kind."""

    def __call__(
        self,
        spec: EncoderName,
        *,
        media: Kind | None,
        device: "torch.device",
        dtype: str,
        offline: bool | None,
        folder: Path | None,
        weights: Mapping[str, str] | None,
    ) -> Encoder:
        """Build an encoder.

        Args:
            spec: the parsed name.
            media: kind of media to encode; None if the name determines it.
            device: device of the module.
            dtype: floating-point type of the module: `float32`, `float16` or `bfloat16`.
            offline: True: raise instead of downloading; None: use the environment variable `HF_HUB_OFFLINE`.
            folder: folder to read the files from, instead of the location that the name denotes.
            weights: the sha256 of each file by name; files with another sha256 must raise DataError before use.
        """
        ...


@dataclass(frozen=True)
class EncoderInfo:
    """Description of an encoder.

    Attributes:
        name: name for `create`.
        media: kind of media.
        dim: length of the features; None if it depends on the data.
        license: SPDX identifier of the license of the weights.
        megabytes: size of the installed weights.
        trainable: whether the encoder has a module.
        requires: modules that must be importable.
        extra: extra of this package that installs the modules.
        summary: one sentence.
    """

    name: str
    media: Kind
    dim: int | None
    license: str
    megabytes: float
    trainable: bool
    summary: str
    requires: tuple[str, ...] = ()
    extra: str | None = None

    @property
    def installed(self) -> bool:
        """Return whether all required modules are installed; nothing is imported."""
        return all(find_spec(module) is not None for module in self.requires)


@dataclass(frozen=True)
class EncoderKind:
    """A kind of encoders, for the registry group `encoders`.

    Attributes:
        name: the part of a name before the colon.
        factory: builds the encoders.
        entries: the encoders that `names` lists; empty if the kind loads models by Hub id or folder.
    """

    name: str
    factory: EncoderFactory
    entries: tuple[EncoderInfo, ...] = ()


# The first installed one is the default of its kind of media.
_PREFERRED: Mapping[Kind, tuple[str, ...]] = {
    "image": ("package:efficientnet-lite0", "builtin:color"),
    "text": ("package:minilm-l6", "builtin:chars"),
    "audio": ("package:whisper-tiny", "builtin:logmel"),
    "video": ("builtin:frames:package:efficientnet-lite0", "builtin:frames:builtin:color"),
    "array": ("builtin:identity",),
}


def find_kind(name: str) -> EncoderKind:
    """Return a kind by its registered name; a plain function is the factory of a kind without entries."""
    found: Any = registry.load("encoders", name)
    if isinstance(found, EncoderKind):
        return found
    return EncoderKind(name, cast(EncoderFactory, found))


def names(media: Kind | None = None) -> tuple[EncoderInfo, ...]:
    """Describe the encoders that have their own name, whether installed or not.

    Encoders that are loaded by Hub id or folder, such as `transformers:openai/clip-vit-base-patch32`, are not listed.

    Args:
        media: list only the encoders of this kind of media.

    Raises:
        ConfigError: unknown kind of media.
    """
    if media is not None:
        check_choice("kind of media", media, KINDS)
    return tuple(
        entry for kind in registry.names("encoders") for entry in _entries(kind) if media in (None, entry.media)
    )


def _entries(kind: str) -> tuple[EncoderInfo, ...]:
    try:
        return find_kind(kind).entries
    except ConfigError as error:  # a plug-in that cannot be imported
        warn_skipped(str(error))
        return ()


def default(media: Kind) -> str:
    """Return the name of the encoder to use for a kind of media if none is given.

    It is the first installed one of a fixed list; the last of each list is built in.

    Raises:
        ConfigError: unknown kind of media.
    """
    check_choice("kind of media", media, KINDS)
    installed = {entry.name for entry in names() if entry.installed}
    choices = _PREFERRED[media]
    return next((name for name in choices[:-1] if name.removeprefix("builtin:frames:") in installed), choices[-1])
