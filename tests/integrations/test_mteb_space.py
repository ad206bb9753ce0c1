"""Test a space as an encoder of mteb: batches of all modalities, fused items, and tasks in memory."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import unialign as ua
from mteb_tasks import LETTERS, retrieval_task
from unialign.encoders import Encoder, create, wrap
from unialign.errors import ConfigError
from unialign.integrations._mteb_encoder import SpaceEncoder, chosen_modalities
from unialign.media import Decoding
from unialign.space import Space

needs_mteb = pytest.mark.skipif(find_spec("mteb") is None, reason="needs the environment of `make test-integrations`")

TEXTS = ["a red cat", "two dogs run", "the sea at night", "a green tree", "snow"]


class Clips(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.linear = nn.Linear(12, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(pixels.flatten(1)) + 0.1


def prepare_clip(media: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {"pixels": media.frames.mean((1, 2)).astype(np.float32) / 255}


@cache
def encoders() -> dict[str, Encoder]:
    return {
        "text": create("builtin:chars?dim=32", device="cpu"),
        "image": create("builtin:conv?size=32", device="cpu"),
        "audio": create("builtin:logmel", device="cpu"),
        "video": wrap(Clips(), media="video", dim=10, prepare=prepare_clip, decoding=Decoding(frames=4)),
    }


@cache
def space() -> Space:
    torch.manual_seed(1)
    made = Space({name: encoder.dim for name, encoder in encoders().items()}, dim=8, hidden=16).eval()
    return made.with_encoders(encoders())


@cache
def media(name: str) -> list[Any]:
    from PIL import Image

    rng = np.random.default_rng(len(name))
    if name == "text":
        return TEXTS
    if name == "image":
        return [Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)) for _ in range(5)]
    if name == "audio":
        tones = [np.sin(np.arange(12000) * 0.02 * (i + 1)) for i in range(5)]
        return [{"array": tone.astype(np.float32), "sampling_rate": 16000} for tone in tones]
    return [
        np.full((9, 8, 8, 3), 40 * i, np.uint8) + rng.integers(0, 15, (9, 8, 8, 3), dtype=np.uint8) for i in range(5)
    ]


def rows(name: str) -> np.ndarray[Any, Any]:
    return space().encode({name: media(name)})[name].double().numpy()


def encoder() -> SpaceEncoder:
    return SpaceEncoder(space(), chosen_modalities(space(), None), None)


def batches(columns: dict[str, list[Any]], size: int = 2) -> list[dict[str, list[Any]]]:
    count = len(next(iter(columns.values())))
    return [{key: x[start : start + size] for key, x in columns.items()} for start in range(0, count, size)]


@pytest.mark.parametrize("name", ["text", "image", "audio", "video"])
def test_batches_of_one_modality(name: str) -> None:
    z = encoder().encode(batches({name: media(name), "id": list("abcde"), "title": TEXTS}))
    assert z.dtype == np.float32
    np.testing.assert_allclose(z, rows(name), atol=2e-6)


def test_fused_items_are_normalized_means_of_unit_rows() -> None:
    names = ("image", "text", "audio")
    columns = {name: list(media(name)) for name in names}
    z = encoder().encode(batches(columns))
    mean = sum(rows(name) for name in names) / 3
    np.testing.assert_allclose(z, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=2e-6)
    # An absent value does not change the direction of the others.
    columns["image"][1] = None
    columns["text"][1] = " "
    z = encoder().encode(batches(columns))
    np.testing.assert_allclose(z[1], rows("audio")[1], atol=2e-6)


def test_items_without_a_value_have_a_zero_row() -> None:
    texts = ["a cat", "", "a dog"]
    with pytest.warns(UserWarning, match="1 item of 3 have no value"):
        z = encoder().encode(batches({"text": texts}))
    assert not z[1].any()
    assert torch.isfinite(encoder().similarity(z, z)).all()


def test_decoders_of_torchcodec_and_channels_first() -> None:
    clips = media("video")

    def decoder(clip: Any) -> Any:
        frames = torch.from_numpy(clip).permute(0, 3, 1, 2)
        asked: list[int] = []

        def get(places: list[int]) -> Any:
            asked.extend(places)
            return SimpleNamespace(data=frames[places])

        return SimpleNamespace(metadata=SimpleNamespace(num_frames=len(clip)), get_frames_at=get, asked=asked)

    decoders = [decoder(clip) for clip in clips]
    z = encoder().encode(batches({"video": decoders}))
    np.testing.assert_allclose(z, rows("video"), atol=2e-6)
    assert all(len(one.asked) == 4 for one in decoders)  # only the frames of the encoder are decoded
    first = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in clips]
    np.testing.assert_allclose(encoder().encode(batches({"video": first})), rows("video"), atol=2e-6)

    def sound(value: Any) -> Any:
        samples = SimpleNamespace(data=torch.from_numpy(value["array"])[None], sample_rate=value["sampling_rate"])
        return SimpleNamespace(get_all_samples=lambda: samples)

    sounds = [sound(value) for value in media("audio")]
    np.testing.assert_allclose(encoder().encode(batches({"audio": sounds})), rows("audio"), atol=2e-6)
    stereo = [{"array": np.stack([v["array"]] * 2), "sampling_rate": 16000} for v in media("audio")]
    np.testing.assert_allclose(encoder().encode(batches({"audio": stereo})), rows("audio"), atol=2e-6)


def test_modalities_that_the_space_lacks_are_not_dropped() -> None:
    small = space().with_encoders({"audio": None, "video": None})
    model = SpaceEncoder(small, chosen_modalities(small, None), None)
    assert model.modalities == {"text": "text", "image": "image"}
    with pytest.raises(ConfigError, match="the batch has audio and video, which the space does not encode"):
        model.encode([{"text": ["a"], "audio": [None], "video": [None]}])
    with pytest.raises(ConfigError, match="the batch has no known modality; the space encodes text and image"):
        model.encode([{"body": ["a"]}])
    assert model.encode([]).shape == (0, 8)


def test_the_choice_of_modalities() -> None:
    text = encoders()["text"]
    two = Space({"title": text.dim, "caption": text.dim}, dim=8).with_encoders({"title": text, "caption": text})
    with pytest.raises(ConfigError, match=r"several modalities of text \(title and caption\)"):
        chosen_modalities(two, None)
    assert chosen_modalities(two, {"text": "caption"}) == {"text": "caption"}
    one = two.with_encoders({"title": None})
    assert chosen_modalities(one, None) == {"text": "caption"}
    for given, message in (
        ({"sound": "audio"}, "modalities has the key 'sound'"),
        ({"image": "text"}, "modalities\\['image'\\] is 'text', which has an encoder of text"),
        ({"image": "photo"}, "is 'photo', which has no encoder"),
    ):
        with pytest.raises(ConfigError, match=message):
            chosen_modalities(space(), given)
    with pytest.raises(ConfigError, match="the space has no encoder of text, image, audio or video"):
        chosen_modalities(Space({"a": 3, "b": 4}, dim=2), None)


def test_similarities() -> None:
    x, y = rows("text"), 3 * rows("image")
    model = encoder()
    cosines = x @ (y / 3).T
    np.testing.assert_allclose(model.similarity(x, y).numpy(), cosines, atol=1e-6)
    np.testing.assert_allclose(model.similarity(torch.from_numpy(x), y).numpy(), cosines, atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(x, y).numpy(), cosines.diagonal(), atol=1e-6)
    half = torch.from_numpy(x).half()
    assert model.similarity(half, half).dtype == torch.float32


def dataset(prefix: str, names: str) -> Any:
    from datasets import Dataset

    kinds = [name for name, letter in LETTERS.items() if letter in names]
    columns: dict[str, list[Any]] = {"id": [f"{prefix}{place}" for place in range(5)]}
    # datasets stores arrays of four dimensions as nested lists.
    columns |= {name: [x.tolist() if name == "video" else x for x in media(name)] for name in kinds}
    return Dataset.from_dict(columns)


def expected(names: str) -> np.ndarray[Any, Any]:
    mean = sum(rows(name) for name, letter in LETTERS.items() if letter in names)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def task(category: str, relevant: dict[str, dict[str, int]]) -> Any:
    query, document = category.split("2")
    return retrieval_task(category, dataset("q", query), dataset("d", document), relevant)


@pytest.mark.integrations
@needs_mteb
@pytest.mark.parametrize("category", ["t2i", "i2t", "a2t", "t2v", "it2i", "t2it"])
def test_a_task_finds_the_nearest_items_of_the_space(category: str, tmp_path: Path) -> None:
    import mteb
    from mteb.cache import ResultCache

    model = ua.integrations.mteb.model(space())
    query, document = (expected(names) for names in category.split("2"))
    places = (query @ document.T).argmax(1)
    relevant = {f"q{place}": {f"d{nearest}": 1} for place, nearest in enumerate(places)}
    result = mteb.evaluate(model, task(category, relevant), cache=ResultCache(tmp_path), show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    assert scores["ndcg_at_1"] == 1
    wrong = {key: {f"d{(int(next(iter(docs))[1:]) + 1) % 5}": 1} for key, docs in relevant.items()}
    (scores,) = mteb.evaluate(model, task(category, wrong), cache=None).task_results[0].scores["test"]
    assert scores["ndcg_at_1"] == 0


@pytest.mark.integrations
@needs_mteb
def test_a_task_with_a_modality_that_the_space_lacks(tmp_path: Path) -> None:
    import mteb

    small = space().with_encoders({"image": None})
    model = ua.integrations.mteb.model(small)
    with pytest.raises(ConfigError, match="the batch has image, which the space does not encode"):
        mteb.evaluate(model, task("it2t", {"q0": {"d0": 1}}), cache=None, show_progress_bar=False)


@pytest.mark.integrations
@needs_mteb
def test_the_metadata_of_the_model(tmp_path: Path) -> None:
    from mteb.models import EncoderProtocol

    model = ua.integrations.mteb.model(space())
    assert isinstance(model, EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.modalities, meta.embed_dim) == ("unialign/space", ["text", "image", "audio", "video"], 8)
    assert len(meta.revision) == 40
    assert ua.integrations.mteb.model(space()).mteb_model_meta.revision == meta.revision
    named = ua.integrations.mteb.model(space(), name="me/space", revision="v2").mteb_model_meta
    assert (named.name, named.revision) == ("me/space", "v2")
    # Different weights or encoders give a different revision, so that mteb does not reuse cached results.
    other = space().with_encoders({"video": None})
    assert ua.integrations.mteb.model(other).mteb_model_meta.revision != meta.revision
    torch.manual_seed(9)
    fresh = Space(space().dims, dim=8, hidden=16).eval().with_encoders(encoders())
    assert ua.integrations.mteb.model(fresh).mteb_model_meta.revision != meta.revision
    other.save_pretrained(tmp_path / "saved")
    saved = ua.integrations.mteb.model(tmp_path / "saved").mteb_model_meta
    assert (saved.name, saved.modalities) == ("unialign/saved", ["text", "image", "audio"])
    with pytest.raises(ConfigError, match="has the form 'owner/name', got 'space'"):
        ua.integrations.mteb.model(space(), name="space")
