"""Embed texts and media of requests in the formats of other APIs.

Shapes: `B` inputs, `D` dimension.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign.errors import ConfigError
from unialign.index import Index, modality_of_kind

_MOST_INPUTS = 256
_MOST_CHARACTERS = 20_000


class Content(NamedTuple):
    """A text, or the bytes of a file.

    Attributes:
        kind: `text`, `image`, `audio` or `video`.
        value: the text or the bytes.
    """

    kind: str
    value: str | bytes


def check_fields(request: object, known: Sequence[str], *, required: Sequence[str] = ()) -> None:
    """Raise ConfigError unless the request is a JSON object with known fields."""
    if not isinstance(request, Mapping):
        raise ConfigError(f"the body must be a JSON object, got {type(request).__name__}")
    for name in request:
        if name not in known:
            raise ConfigError(f"unknown field {str(name)[:60]!r}{suggestion(name, known)}")
    for name in required:
        if request.get(name) is None:
            raise ConfigError(f"the field {name!r} is missing")


def check_dim(index: Index, dim: object, field: str) -> int | None:
    """Return the number of leading dimensions to keep, None for all; raise ConfigError if it is out of range."""
    if dim is None or dim == index.dim:
        return None
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= index.dim:
        raise ConfigError(f"{field} must be an integer from 1 to {index.dim}, got {dim!r}")
    return dim


def embed_contents(index: Index, inputs: Sequence[Sequence[Content]], dim: int | None) -> NDArray[np.float32]:
    """Embed inputs; the embedding of several contents is the mean of their unit rows, normalized.

    Returns:
        (B, D) float32 unit rows, without the correction of the index, as `Space.encode` returns them.

    Raises:
        ConfigError: there are too many or empty inputs, or the index does not encode their kind of media.
        MediaError: media cannot be decoded.
    """
    if not 1 <= len(inputs) <= _MOST_INPUTS:
        raise ConfigError(f"the number of inputs must be from 1 to {_MOST_INPUTS}, got {len(inputs)}")
    by_modality: dict[str, list[tuple[int, str | bytes]]] = {}
    for number, contents in enumerate(inputs):
        if not contents:
            raise ConfigError(f"input {number} is empty")
        for content in contents:
            if isinstance(content.value, str):
                _check_text(content.value, number)
            by_modality.setdefault(_modality(index, content.kind), []).append((number, content.value))
    sum_BD = np.zeros((len(inputs), index.dim))
    for modality, values in by_modality.items():
        z_nD = index.encode({modality: [value for _, value in values]})[modality].double().cpu().numpy()
        np.add.at(sum_BD, [number for number, _ in values], z_nD)
    kept_BD = sum_BD[:, :dim]
    norm_B1 = np.linalg.norm(kept_BD, axis=1, keepdims=True)
    if (norm_B1 < 1e-6).any():
        raise ConfigError(f"the contents of input {int(norm_B1.argmin())} cancel, so they have no mean direction")
    unit_BD: NDArray[np.float32] = (kept_BD / norm_B1).astype(np.float32)
    return unit_BD


def _check_text(text: str, number: int) -> None:
    if not text.strip():
        raise ConfigError(f"input {number} is blank")
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"input {number} has {len(text)} characters; the limit is {_MOST_CHARACTERS}")


def _modality(index: Index, kind: str) -> str:
    name = modality_of_kind(index.encoders, kind)
    if name is None:
        kinds = sorted({encoder.kind for encoder in index.encoders.values()})
        raise ConfigError(f"the index cannot encode {kind}; it encodes {', '.join(kinds) or 'no raw media'}")
    return name
