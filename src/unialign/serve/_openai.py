"""Embeddings in the format of OpenAI's API, `POST /v1/embeddings`.

Shapes: `B` inputs, `D` dimension.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._data_uris import read_data_uri
from unialign.serve._encode_inputs import Content, check_dim, check_fields, embed_contents

_FIELDS = ("model", "input", "encoding_format", "dimensions", "user", "modality")
_FORMATS = ("float", "base64")
_MODALITIES = ("text", "image", "audio")


def openai_embeddings(index: Index, request: Mapping[str, Any]) -> dict[str, Any]:
    """Embed the inputs of a request, and return the answer as a JSON object.

    `input` is a text or a list of texts. With the additional field `modality` set to `image` or `audio`, inputs are
    data URIs; without it, inputs that start with `data:image/` or `data:audio/` are also read as data URIs.

    Raises:
        ConfigError: a field is unknown or invalid, or the index cannot encode the inputs.
        MediaError: media cannot be decoded.
    """
    check_fields(request, _FIELDS, required=("input",))
    chosen = request.get("encoding_format") or "float"
    if chosen not in _FORMATS:
        raise ConfigError(f"encoding_format must be one of {', '.join(_FORMATS)}, got {chosen!r}")
    dim = check_dim(index, request.get("dimensions"), "dimensions")
    z_BD = embed_contents(index, _contents(request), dim)
    data = [
        {"object": "embedding", "index": number, "embedding": _formatted(z_D, chosen)}
        for number, z_D in enumerate(z_BD)
    ]
    return {
        "object": "list",
        "data": data,
        "model": request.get("model") or "unialign",
        # The number of tokens depends on the encoder and is not known here.
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def openai_models(names: Mapping[str, Index]) -> dict[str, Any]:
    """Return the answer to `GET /v1/models`."""
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "unialign"} for name in names]
    return {"object": "list", "data": models}


def _contents(request: Mapping[str, Any]) -> list[list[Content]]:
    given, modality = request["input"], request.get("modality")
    if modality is not None and modality not in _MODALITIES:
        raise ConfigError(f"modality must be one of {', '.join(_MODALITIES)}, got {modality!r}")
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError("input must be a string or a list of strings; lists of tokens are not supported")
    contents: list[list[Content]] = []
    for number, value in enumerate(values):
        is_media = value.startswith(("data:image/", "data:audio/")) if modality is None else modality != "text"
        kind, content = read_data_uri(value, f"input {number}") if is_media else ("text", value)
        if modality not in (None, kind):
            raise ConfigError(f"input {number} is {kind}, but modality is {modality!r}")
        contents.append([Content(kind, content)])
    return contents


def _formatted(z_D: np.ndarray, chosen: str) -> list[float] | str:
    return z_D.tolist() if chosen == "float" else base64.b64encode(z_D.astype("<f4").tobytes()).decode()
