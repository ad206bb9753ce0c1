"""Test the embedding endpoints of two APIs as functions, against `Space.encode`."""

import base64
import io
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.encoders import create
from unialign.errors import ConfigError, MediaError
from unialign.serve._cohere import cohere_embed
from unialign.serve._openai import openai_embeddings

DIM = 8


@cache
def index() -> ua.Index:
    encoders = {
        "text": create("builtin:chars?dim=32", device="cpu"),
        "image": create("builtin:conv?size=32", device="cpu"),
    }
    torch.manual_seed(1)
    space = ua.Space({name: encoder.dim for name, encoder in encoders.items()}, dim=DIM, hidden=16).eval()
    space = space.with_encoders(encoders)
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(20, encoder.dim)).astype(np.float32) for name, encoder in encoders.items()}
    return ua.Index.from_store(ua.data.EmbeddingStore.from_arrays(arrays), space)


def picture(color: tuple[int, int, int]) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def encoded(name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    space = index().space
    assert space is not None
    return space.encode({name: values})[name].numpy()


RED, BLUE = picture((200, 10, 10)), picture((10, 10, 200))


def content(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2])


def test_openai_returns_texts_and_images_as_the_space_encodes_them() -> None:
    answer = openai_embeddings(index(), {"model": "m", "input": ["a red car", RED]})
    rows = np.array([entry["embedding"] for entry in answer["data"]])
    np.testing.assert_allclose(rows[:1], encoded("text", ["a red car"]), atol=1e-6)
    np.testing.assert_allclose(rows[1:], encoded("image", [content(RED)]), atol=1e-6)
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    packed = openai_embeddings(index(), {"input": "a red car", "encoding_format": "base64", "dimensions": 4})
    row = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    expected = encoded("text", ["a red car"])[0, :4]
    np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


def test_openai_embeds_a_text_that_looks_like_a_data_uri_if_the_modality_is_text() -> None:
    answer = openai_embeddings(index(), {"input": ["data:image/png is a prefix"], "modality": "text"})
    expected = encoded("text", ["data:image/png is a prefix"])
    np.testing.assert_allclose([answer["data"][0]["embedding"]], expected, atol=1e-6)


def test_cohere_returns_texts_images_and_mixed_inputs() -> None:
    texts = cohere_embed(index(), {"model": "m", "input_type": "search_query", "texts": ["one", "two"]})
    np.testing.assert_allclose(texts["embeddings"]["float"], encoded("text", ["one", "two"]), atol=1e-6)
    images = cohere_embed(index(), {"images": [BLUE], "embedding_types": ["float", "base64", "ubinary", "binary"]})
    row = encoded("image", [content(BLUE)])[0]
    found = images["embeddings"]
    np.testing.assert_allclose(found["float"][0], row, atol=1e-6)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found["base64"][0]), "<f4"), row, atol=1e-6)
    signs = np.unpackbits(np.array(found["ubinary"][0], np.uint8))
    assert (signs[:DIM] == (row > 0)).all()
    assert (np.array(found["binary"][0]) + 128 == found["ubinary"][0]).all()
    mixed = [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": {"url": BLUE}}]
    fused = cohere_embed(index(), {"inputs": [{"content": mixed}]})["embeddings"]["float"][0]
    mean = encoded("text", ["one"])[0] + row
    np.testing.assert_allclose(fused, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize(
    ("embed", "request_", "error", "message"),
    [
        (openai_embeddings, {}, ConfigError, "'input' is missing"),
        (openai_embeddings, {"input": "x", "inputs": 1}, ConfigError, "did you mean 'input'"),
        (openai_embeddings, {"input": [1, 2]}, ConfigError, "lists of tokens"),
        (openai_embeddings, {"input": []}, ConfigError, "from 1 to 256"),
        (openai_embeddings, {"input": " "}, ConfigError, "input 0 is blank"),
        (openai_embeddings, {"input": "x", "dimensions": 9}, ConfigError, "from 1 to 8"),
        (openai_embeddings, {"input": "x", "encoding_format": "hex"}, ConfigError, "float, base64"),
        (openai_embeddings, {"input": "http://host/a.png", "modality": "image"}, ConfigError, "does not fetch"),
        (openai_embeddings, {"input": "data:image/png;base64,####"}, ConfigError, "not valid base64"),
        (openai_embeddings, {"input": "data:image/png;base64,AAAA"}, MediaError, "image"),
        (openai_embeddings, {"input": "data:audio/wav;base64,AAAA"}, ConfigError, "cannot encode audio"),
        (cohere_embed, {"texts": ["a"], "images": [RED]}, ConfigError, "exactly one"),
        (cohere_embed, {"texts": "a"}, ConfigError, "exactly one"),
        (cohere_embed, {"texts": [3]}, ConfigError, r"texts\[0\] must be a string"),
        (cohere_embed, {"texts": ["a"], "embedding_types": ["int8"]}, ConfigError, "embedding_types"),
        (cohere_embed, {"images": ["https://host/a.png"]}, ConfigError, "does not fetch"),
        (cohere_embed, {"inputs": [{"content": [{"type": "video"}]}]}, ConfigError, "got 'video'"),
        (cohere_embed, {"inputs": [{"content": []}]}, ConfigError, "input 0 is empty"),
        (cohere_embed, {"inputs": [[]]}, ConfigError, "JSON object"),
    ],
)
def test_invalid_requests_raise(
    embed: Callable[[ua.Index, Mapping[str, Any]], Any], request_: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        embed(index(), request_)
