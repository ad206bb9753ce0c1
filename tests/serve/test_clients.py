"""Test the embedding endpoints with the clients of OpenAI and Cohere, over HTTP."""

import base64
import io
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.encoders import create

pytestmark = pytest.mark.integrations
openai = pytest.importorskip("openai")
cohere = pytest.importorskip("cohere")

TOKEN = "a-token-of-more-than-16-characters"
TEXTS = ["a red car", "两辆红色汽车"]


def make_index() -> ua.Index:
    encoders = {
        "text": create("builtin:chars?dim=32", device="cpu"),
        "image": create("builtin:conv?size=32", device="cpu"),
    }
    torch.manual_seed(1)
    space = ua.Space({name: encoder.dim for name, encoder in encoders.items()}, dim=8, hidden=16).eval()
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(20, encoder.dim)).astype(np.float32) for name, encoder in encoders.items()}
    return ua.Index.from_store(ua.data.EmbeddingStore.from_arrays(arrays), space.with_encoders(encoders))


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ua.Index, str]]:
    """An index and the address of a service of it."""
    import uvicorn

    index = make_index()
    app = ua.serve.app({"toys": index}, token=TOKEN, burst=0, connections=0)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        threading.Event().wait(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield index, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def picture(color: tuple[int, int, int]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(out, "PNG")
    return out.getvalue()


def data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def encoded(index: ua.Index, name: str, values: list[Any]) -> np.ndarray[Any, Any]:
    return index.encode({name: values})[name].numpy()


def test_an_openai_client_gets_text_and_image_vectors(served: tuple[ua.Index, str]) -> None:
    index, address = served
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0)
    assert [model.id for model in client.models.list()] == ["toys"]
    answer = client.embeddings.create(model="toys", input=TEXTS)
    np.testing.assert_allclose([one.embedding for one in answer.data], encoded(index, "text", TEXTS), atol=1e-6)
    short = client.embeddings.create(model="toys", input=TEXTS[0], dimensions=4, encoding_format="float")
    assert len(short.data[0].embedding) == 4
    red = picture((200, 0, 0))
    image = client.embeddings.create(model="toys", input=data_uri(red), extra_body={"modality": "image"})
    np.testing.assert_allclose([image.data[0].embedding], encoded(index, "image", [red]), atol=1e-6)


def test_errors_reach_an_openai_client_in_its_own_form(served: tuple[ua.Index, str]) -> None:
    _, address = served
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=TOKEN, max_retries=0)
    with pytest.raises(openai.APIStatusError, match="lists of tokens"):
        client.embeddings.create(model="toys", input=[1, 2])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()


def test_a_cohere_client_gets_text_and_image_vectors(served: tuple[ua.Index, str]) -> None:
    index, address = served
    client = cohere.ClientV2(api_key=TOKEN, base_url=address)
    texts = client.embed(model="toys", input_type="search_query", texts=TEXTS, embedding_types=["float"])
    np.testing.assert_allclose(texts.embeddings.float_, encoded(index, "text", TEXTS), atol=1e-6)
    blue = picture((0, 0, 200))
    images = client.embed(
        model="toys", input_type="image", images=[data_uri(blue)], embedding_types=["float", "ubinary"]
    )
    row_1D = encoded(index, "image", [blue])
    np.testing.assert_allclose(images.embeddings.float_, row_1D, atol=1e-6)
    assert (np.unpackbits(np.array(images.embeddings.ubinary, np.uint8), axis=1) == (row_1D > 0)).all()
    with pytest.raises(cohere.errors.UnprocessableEntityError, match="exactly one"):
        client.embed(model="toys", input_type="search_query", embedding_types=["float"])
