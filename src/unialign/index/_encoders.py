"""Encoders of raw media in queries and added items."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign.errors import ConfigError, MediaError, MissingDependencyError
from unialign.index._query_vectors import is_features
from unialign.space import Space

# List of raw values -> (B, W) features.
Encode = Callable[[Sequence[Any]], Tensor]


@dataclass(frozen=True)
class QueryEncoder:
    """The encoder of a modality.

    Attributes:
        kind: kind of media: `text`, `image`, `audio`, `video` or `array`.
        encode: function from raw values to features; None: the encoder of the space.
        problem: reason why the encoder cannot be used, such as a package that is not installed, or None.
    """

    kind: str
    encode: Encode | None = None
    problem: str | None = None


def query_encoders(
    space: Space | None, given: Mapping[str, QueryEncoder | Encode], modalities: tuple[str, ...]
) -> dict[str, QueryEncoder]:
    """Return modality -> encoder, for the encoders of a space and additional ones, which take precedence.

    Raises:
        ConfigError: there is no space, or an encoder is for an unknown modality.
    """
    found: dict[str, QueryEncoder] = {}
    if given and space is None:
        raise ConfigError("encoders need a space, whose heads embed their features; pass `space`")
    for name, reference in (space.encoders if space is not None else {}).items():
        if name in modalities:
            found[name] = QueryEncoder(str(reference["media"]))
    for name, encoder in given.items():
        if name not in modalities:
            raise ConfigError(f"encoders has the modality {name!r}; the index has {', '.join(modalities)}")
        found[name] = encoder if isinstance(encoder, QueryEncoder) else QueryEncoder("text", encoder)
    return found


def modality_of_kind(encoders: Mapping[str, QueryEncoder], kind: str) -> str | None:
    """Return the modality that encodes a kind of media: the one with the name of the kind, else the first one, or
    None.
    """
    names = [name for name, encoder in encoders.items() if encoder.kind == kind]
    return kind if kind in names else next(iter(names), None)


def encode_values(
    space: Space | None, encoders: Mapping[str, QueryEncoder], modality: str, values: Sequence[Any] | Tensor
) -> Tensor:
    """Return (B, D) unit embeddings of raw values or of (B, W) features; rows of absent values are 0.

    Raises:
        ConfigError: the index has no space, or no encoder for the raw values.
        MediaError: raw values cannot be decoded.
    """
    if space is None:
        raise ConfigError(
            f"the index has no space to embed {modality!r}; query it with `vector=` and `modality=`, or with `item=`"
        )
    if isinstance(values, Tensor):
        return space.encode({modality: values})[modality].cpu()
    encoder = encoders.get(modality)
    if encoder is None:
        raise ConfigError(no_encoder(modality, encoders))
    if encoder.problem is not None:
        raise MissingDependencyError(encoder.problem)
    if encoder.encode is None:
        return space.encode({modality: list(values)})[modality].cpu()
    if any(value is None for value in values):
        raise MediaError("empty", f"{modality!r} has values that are None")
    return space.encode({modality: encoder.encode(values)})[modality].cpu()


def no_encoder(modality: str, encoders: Mapping[str, QueryEncoder]) -> str:
    """Return the reason why raw values of a modality cannot be encoded."""
    known = ", ".join(f"{name} ({encoder.kind})" for name, encoder in encoders.items()) or "none"
    return (
        f"the index cannot encode raw values of {modality!r}, since its space has no encoder for it (encoders: "
        f"{known}); add one with `space.with_encoders`, pass `encoders=`, or query by item or vector"
    )


def one_value(value: Any) -> Sequence[Any] | Tensor:
    """Return a raw value as a list, or (W,) features as a tensor (1, W)."""
    return torch.as_tensor(value)[None] if is_features(value) else [value]
