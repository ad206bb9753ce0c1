"""Test a space as an embedder of LightlyStudio, through the HTTP application of lightly_studio_serve."""

import io
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.encoders import create
from unialign.errors import ConfigError
from unialign.space import Space, space_fingerprint

needs_lightly = pytest.mark.skipif(
    find_spec("lightly_studio_serve") is None, reason="needs the environment of `make test-integrations`"
)
TEXTS = ["a red cat", "the sea at night", "   "]


@pytest.fixture(scope="module")
def space() -> Space:
    encoders = {
        "caption": create("builtin:chars?dim=32", device="cpu"),
        "photo": create("builtin:conv?size=32", device="cpu"),
    }
    torch.manual_seed(1)
    made = Space({name: encoder.dim for name, encoder in encoders.items()}, dim=8, hidden=16).eval()
    return made.with_encoders(encoders)


def picture(color: tuple[int, int, int]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(out, "PNG")
    return out.getvalue()


@pytest.mark.integrations
@needs_lightly
def test_the_application_describes_the_space_and_embeds_texts_and_images(space: Space) -> None:
    from fastapi.testclient import TestClient
    from lightly_studio_serve import create_app

    client = TestClient(create_app(ua.integrations.lightly_studio.embedder(space)))
    described = client.get("/v1/describe").json()
    assert space_fingerprint(space) in str(described)
    assert "image_bytes" in str(described)
    assert "text" in str(described)
    routes = set(client.get("/openapi.json").json()["paths"])
    texts = next(route for route in routes if "text" in route)
    answer = client.post(texts, json={"texts": TEXTS})
    assert answer.status_code == 200, answer.text
    assert kept(answer.json()) == [0, 1]


@pytest.mark.integrations
@needs_lightly
def test_embeddings_equal_those_of_the_space_and_broken_images_are_left_out(space: Space) -> None:
    found = ua.integrations.lightly_studio.embedder(space)
    images = [picture((200, 0, 0)), b"not an image", picture((0, 0, 200))]
    result = found.embed_image_bytes(images)
    assert result.kept_indices == [0, 2]
    expected = space.encode({"photo": [images[0], images[2]]})["photo"].numpy()
    np.testing.assert_allclose(result.embeddings, expected, atol=1e-6)
    texts = found.embed_text(TEXTS)
    assert texts.kept_indices == [0, 1]
    np.testing.assert_allclose(texts.embeddings, space.encode({"caption": TEXTS[:2]})["caption"].numpy(), atol=1e-6)
    empty = found.embed_text([])
    assert empty.embeddings.shape == (0, 8)
    assert empty.kept_indices == []


@pytest.mark.integrations
@needs_lightly
def test_spaces_without_encoders_and_unknown_modalities_raise(space: Space) -> None:
    with pytest.raises(ConfigError, match="no encoder of text or image"):
        ua.integrations.lightly_studio.embedder(Space({"a": 3, "b": 3}, dim=8))
    with pytest.raises(ConfigError, match="expected a modality that encodes text"):
        ua.integrations.lightly_studio.embedder(space, modalities={"text": "photo"})


def test_the_fingerprint_depends_on_weights_and_encoders(space: Space) -> None:
    digits = space_fingerprint(space)
    assert len(digits) == 64
    assert digits == space_fingerprint(space)
    assert digits != space_fingerprint(space, encoders=["caption"])
    torch.manual_seed(2)
    other = Space({name: space.encoder(name).dim for name in space.modalities}, dim=8, hidden=16)
    assert space_fingerprint(other) != space_fingerprint(space, encoders=[])


def kept(answer: Any) -> list[int]:
    return list(next(value for key, value in answer.items() if "kept" in key))
