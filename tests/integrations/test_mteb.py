"""Test that mteb evaluates a saved folder on in-memory tasks of each modality."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import tiny_towers
import unialign as ua
from mteb_tasks import LETTERS, retrieval_task
from unialign.errors import ConfigError

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(find_spec("mteb") is None, reason="needs the environment of `make test-integrations`"),
]


def rows(prefix: str, kind: str) -> Any:
    from datasets import Dataset

    if kind == "audio":
        media = [sound["audio"] for sound in tiny_towers.sounds()]
    else:
        media = tiny_towers.TEXTS if kind == "text" else tiny_towers.images()
    return Dataset.from_dict({"id": [f"{prefix}{place}" for place in range(len(media))], kind: media})


def task(query: str, document: str, relevant: dict[str, dict[str, int]]) -> Any:
    category = f"{LETTERS[query]}2{LETTERS[document]}"
    return retrieval_task(category, rows("q", query), rows("d", document), relevant)


def nearest(vectors: dict[str, np.ndarray], query: str, document: str) -> dict[str, dict[str, int]]:
    places = (vectors[query] @ vectors[document].T).argmax(1)
    return {f"q{place}": {f"d{nearest}": 1} for place, nearest in enumerate(places)}


@pytest.mark.parametrize(("query", "document"), [("text", "image"), ("image", "text"), ("text", "audio")])
def test_a_task_finds_the_nearest_items_of_the_space(
    folder: Path,
    vectors: dict[str, np.ndarray],
    query: str,
    document: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mteb
    from mteb.cache import ResultCache

    # mteb imports torchaudio for sounds, and uses it only if the sampling rate differs.
    monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
    model = ua.integrations.mteb.wrap(folder, device="cpu")
    relevant = nearest(vectors, query, document)
    result = mteb.evaluate(model, task(query, document, relevant), cache=ResultCache(tmp_path), show_progress_bar=False)
    assert result.model_name == "unialign/my-space"
    (scores,) = result.task_results[0].scores["test"]
    assert scores["ndcg_at_1"] == 1
    wrong = {key: {f"d{(int(next(iter(docs))[1:]) + 1) % 3}": 1} for key, docs in relevant.items()}
    (scores,) = mteb.evaluate(model, task(query, document, wrong), cache=None).task_results[0].scores["test"]
    assert scores["ndcg_at_1"] == 0


def test_the_wrapper_of_mteb_alone_loses_images(folder: Path) -> None:
    """`wrap` may no longer be needed if this test fails."""
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    meta = SentenceTransformerEncoderWrapper(str(folder), device="cpu").mteb_model_meta
    assert meta.modalities == ["text"]


def test_the_metadata_of_the_model(folder: Path, tmp_path: Path) -> None:
    meta = ua.integrations.mteb.wrap(folder).mteb_model_meta
    assert meta.modalities == ["text", "image", "audio"]
    assert meta.name == "unialign/my-space"
    assert len(meta.revision) == 40
    assert ua.integrations.mteb.wrap(folder).mteb_model_meta.revision == meta.revision
    named = ua.integrations.mteb.wrap(folder, name="me/space", revision="v2").mteb_model_meta
    assert (named.name, named.revision) == ("me/space", "v2")
    # Different weights give a different revision, so that mteb does not reuse cached results.
    other = tiny_towers.make_space(head="linear")
    other.save_pretrained(tmp_path, format="sentence-transformers", encoders=tiny_towers.towers())
    assert ua.integrations.mteb.wrap(tmp_path).mteb_model_meta.revision != meta.revision


def test_a_model_object(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    assert ua.integrations.mteb.wrap(model).mteb_model_meta.modalities == ["text", "image", "audio"]
    assert ua.integrations.mteb.wrap(model).model is model


def test_media_without_an_encoder(space: ua.Space, tmp_path: Path) -> None:
    import mteb
    from torch.utils.data import DataLoader

    space.save_pretrained(tmp_path, format="sentence-transformers", encoders={"text": tiny_towers.text_tower()})
    model = ua.integrations.mteb.wrap(tmp_path, device="cpu")
    images = task("text", "image", {"q0": {"d0": 1}})
    with pytest.raises(ValueError, match=r"supports \['text'\], but none overlap"):
        mteb.evaluate(model, images, cache=None, show_progress_bar=False)
    options = {"task_metadata": images.metadata, "hf_split": "test", "hf_subset": "default"}
    with pytest.raises(ConfigError, match="the task has image, but the model encodes text"):
        model.encode(DataLoader(rows("d", "image")), **options)


def test_sounds_are_resampled_to_the_rate_of_the_encoder(folder: Path, tmp_path: Path) -> None:
    assert ua.integrations.mteb.wrap(folder).target_sampling_rate == 16000
    tower = tiny_towers.audio_tower()
    tower[1].sampling_rate = 8000
    try:
        space = tiny_towers.make_space()
        space.save_pretrained(tmp_path, format="sentence-transformers", encoders={"audio": tower})
    finally:
        tower[1].sampling_rate = 16000
    assert ua.integrations.mteb.wrap(tmp_path).target_sampling_rate == 8000


def test_invalid_arguments(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match="mteb evaluates a SentenceTransformer, its folder or its Hub name, got Space"
    ):
        ua.integrations.mteb.wrap(tiny_towers.make_space())
    with pytest.raises(ConfigError, match="has the form 'owner/name', got 'space'"):
        ua.integrations.mteb.wrap(folder, name="space")
