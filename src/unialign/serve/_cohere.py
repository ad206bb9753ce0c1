"""Embeddings in the format of Cohere's API, `POST /v2/embed`.

Shapes: `B` inputs, `D` dimension.
"""

import base64
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._data_uris import read_data_uri
from unialign.serve._encode_inputs import Content, check_dim, check_fields, embed_contents

_FIELDS = (
    "model",
    "input_type",
    "texts",
    "images",
    "inputs",
    "embedding_types",
    "output_dimension",
    "truncate",
    "max_tokens",
    "priority",
)
_TYPES = ("float", "base64", "binary", "ubinary")


def cohere_embed(index: Index, request: Mapping[str, Any]) -> dict[str, Any]:
    """Embed the inputs of a request, and return the answer as a JSON object.

    Exactly one of `texts`, `images` (data URIs) and `inputs` (lists of text, image and audio contents) is given. The
    embedding of several contents is their normalized mean. `binary` and `ubinary` are the signs of the embedding,
    packed into bytes.

    Raises:
        ConfigError: a field is unknown or invalid, or the index cannot encode the inputs.
        MediaError: media cannot be decoded.
    """
    check_fields(request, _FIELDS)
    types = request.get("embedding_types") or ["float"]
    if not isinstance(types, list) or not set(types) <= set(_TYPES):
        raise ConfigError(f"embedding_types must be a list of {', '.join(_TYPES)}, got {types!r}")
    dim = check_dim(index, request.get("output_dimension"), "output_dimension")
    given = [name for name in ("texts", "images", "inputs") if request.get(name) is not None]
    if len(given) != 1 or not isinstance(request[given[0]], list):
        raise ConfigError("give exactly one of the lists texts, images and inputs")
    contents = [_contents(given[0], value, number) for number, value in enumerate(request[given[0]])]
    z_BD = embed_contents(index, contents, dim)
    return {
        "id": str(uuid.uuid4()),
        "embeddings": {name: _formatted(z_BD, name) for name in types},
        "texts": request["texts"] if given == ["texts"] else [],
        "meta": {"api_version": {"version": "2"}, "billed_units": {}},
        "response_type": "embeddings_by_type",
    }


def _contents(field: str, value: Any, number: int) -> list[Content]:
    if field == "texts":
        return [_text(value, f"texts[{number}]")]
    if field == "images":
        return [Content(*read_data_uri(value, f"images[{number}]"))]
    what = f"inputs[{number}]"
    check_fields(value, ("content",), required=("content",))
    if not isinstance(value["content"], list):
        raise ConfigError(f"{what}.content must be a list")
    return [_part(part, f"{what}.content[{place}]") for place, part in enumerate(value["content"])]


def _part(part: Any, what: str) -> Content:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return _text(part.get("text"), f"{what}.text")
    if kind in ("image_url", "audio_url"):
        link = part.get(kind)
        return Content(*read_data_uri(link.get("url") if isinstance(link, Mapping) else link, f"{what}.{kind}"))
    raise ConfigError(f"{what}.type must be text, image_url or audio_url, got {kind!r}")


def _text(value: Any, what: str) -> Content:
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be a string, got {type(value).__name__}")
    return Content("text", value)


def _formatted(z_BD: NDArray[np.float32], name: str) -> list[Any]:
    if name == "float":
        return list(z_BD.tolist())
    if name == "base64":
        return [base64.b64encode(z_D.astype("<f4").tobytes()).decode() for z_D in z_BD]
    packed_Bb = np.packbits(z_BD > 0, axis=1)
    # `binary` stores bytes with an offset of 128, as signed integers.
    return list((packed_Bb if name == "ubinary" else packed_Bb.astype(np.int16) - 128).tolist())
