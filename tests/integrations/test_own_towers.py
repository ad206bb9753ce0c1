"""Test that a space saves its own encoders as a SentenceTransformer folder."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_towers
from unialign.encoders import create
from unialign.errors import ConfigError
from unialign.space import Space

pytestmark = pytest.mark.integrations
FORMAT: Any = "sentence-transformers"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    towers = {name: tower[:2] for name, tower in tiny_towers.towers().items()} | {"clip": tiny_towers.clip_tower()}
    for name, (model, processor) in towers.items():
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


def make_space(names: dict[str, str], kinds: dict[str, Any] | None = None, **changes: Any) -> Space:
    torch.manual_seed(0)
    encoders = {
        name: create(encoder, media=(kinds or {}).get(name, name), device="cpu") for name, encoder in names.items()
    }
    references = {name: {**encoder.reference, **changes} for name, encoder in encoders.items()}
    return Space({name: encoder.dim for name, encoder in encoders.items()}, dim=6, encoders=references).eval()


def check(space: Space, folder: Path, names: dict[str, str]) -> None:
    """`names` maps modalities to kinds of media."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    assert sorted(model.modalities) == sorted(names.values())
    sounds = [value["audio"] for value in tiny_towers.sounds()]
    raw = {"text": tiny_towers.TEXTS, "image": tiny_towers.images(), "audio": sounds}
    inputs = {**raw, "audio": tiny_towers.sounds()}
    loaded = Space.from_pretrained(folder)
    for name, kind in names.items():
        found = model.encode(inputs[kind])
        for other in (space, loaded):
            np.testing.assert_allclose(found, other.encode({name: raw[kind]})[name].numpy(), atol=1e-6, rtol=0)


def test_one_model_per_modality(models: Path, tmp_path: Path) -> None:
    names = {
        "text": "transformers:{}/text",
        "image": "transformers:{}/image",
        "audio": "transformers:{}/audio?pool=mean",
    }
    space = make_space({name: encoder.format(models) for name, encoder in names.items()})
    space.save_pretrained(tmp_path, format=FORMAT)
    check(space, tmp_path, {name: name for name in names})
    assert (
        "tags: [unialign, sentence-transformers, multimodal, text, image, audio]"
        in (tmp_path / "README.md").read_text()
    )


def test_two_modalities_of_one_model(models: Path, tmp_path: Path) -> None:
    kinds = {"photo": "image", "caption": "text"}
    space = make_space(dict.fromkeys(kinds, f"transformers:{models}/clip"), kinds)
    space.save_pretrained(tmp_path, format=FORMAT)
    check(space, tmp_path, kinds)
    assert len(list((tmp_path / "0_Router").glob("*_Transformer"))) == 1


def test_a_package_and_an_encoder_that_has_no_modules(tmp_path: Path) -> None:
    space = make_space({"text": "package:minilm-l6", "image": "builtin:color"})
    with pytest.warns(UserWarning, match="'image': builtin:color is not a model of transformers") as caught:
        space.save_pretrained(tmp_path, format=FORMAT)
    assert caught[0].filename == __file__
    check(space, tmp_path, {"text": "text"})
    assert "license: apache-2.0" in (tmp_path / "README.md").read_text()


def test_reasons(models: Path, tmp_path: Path) -> None:
    space = make_space({"text": "builtin:chars", "image": "builtin:color"})
    with pytest.raises(ConfigError, match=r"'text': builtin:chars is not a model .*; 'image': builtin:color is not"):
        space.save_pretrained(tmp_path, format=FORMAT)
    prefixed = make_space({"text": f"transformers:{models}/text?prefix=find "})
    with pytest.raises(ConfigError, match="cannot express its media or prefix"):
        prefixed.save_pretrained(tmp_path, format=FORMAT)
    assert not list(tmp_path.iterdir())
    two = make_space(dict.fromkeys(("de", "fr"), f"transformers:{models}/text"), {"de": "text", "fr": "text"})
    with pytest.warns(UserWarning, match="'fr': 'de' is also text, and a kind can have only one encoder"):
        two.save_pretrained(tmp_path, format=FORMAT)


def test_features_that_differ(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unialign.space import _own_towers

    original = _own_towers.encode_media
    monkeypatch.setattr(_own_towers, "encode_media", lambda *inputs: 1.01 * original(*inputs))
    with pytest.raises(ConfigError, match=r"computes features that differ by a fraction of 0\.0099"):
        make_space({"text": f"transformers:{models}/text"}).save_pretrained(tmp_path, format=FORMAT)


def test_licenses(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[str] = []

    def upload_folder(folder_path: Path, **options: Any) -> str:
        uploaded.extend(path.name for path in Path(folder_path).iterdir())
        return "commit"

    hub = types.SimpleNamespace(create_repo=lambda *_, **__: None, upload_folder=upload_folder)
    names = {"text": f"transformers:{models}/text"}
    closed = make_space(names, license="proprietary")
    with pytest.raises(ConfigError, match=r"its license \(proprietary\) does not permit copies"):
        closed.save_pretrained(tmp_path, format=FORMAT)
    unknown, free = make_space(names), make_space(names, license="MIT")
    from unialign.io import _hub

    monkeypatch.setattr(_hub, "import_module", lambda name: hub if name == "huggingface_hub" else sys.modules[name])
    with pytest.raises(ConfigError, match="the license of the encoder of 'text' is not known"):
        unknown.push_to_hub("someone/space", format=FORMAT)
    assert uploaded == []
    free.push_to_hub("someone/space", format=FORMAT)
    assert "modules.json" in uploaded
