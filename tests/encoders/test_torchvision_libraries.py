"""Test encoders of timm and open_clip, if these libraries can be imported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import encoder_models as models
from benchmarks.torchvision_shim import make_torchvision_importable
from unialign.encoders import create, encode_media, load, save
from unialign.encoders._transformer_model import normalized
from unialign.errors import ConfigError, DataError, MissingDependencyError


@pytest.fixture(autouse=True)
def _importable() -> None:
    make_torchvision_importable()


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [*models.images(), rng.integers(0, 256, (101, 77, 3), dtype=np.uint8)]


def check(name: str, media: Any, given: list[Any], tmp_path: Path) -> Any:
    encoder = create(name, media=media)
    features = encode_media(encoder, given)
    assert torch.equal(encode_media(load(json.loads(json.dumps(encoder.reference))), given), features)
    for change in (False, True):
        if change:
            with torch.no_grad():
                for parameter in encoder.module.parameters():
                    parameter.add_(0.01)
        target = tmp_path / f"{media}{change}"
        target.mkdir()
        saved = json.loads(json.dumps(save(encoder, target)))
        assert (saved["fingerprint"] == encoder.fingerprint) is not change
        assert torch.equal(encode_media(load(saved, folder=target), given), encode_media(encoder, given))
    return features


def test_timm(tmp_path):
    timm = pytest.importorskip("timm", exc_type=Exception)
    from timm.models._hub import save_for_hf

    options = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7, **options).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32)}
    save_for_hf(model, tmp_path / "model", safe_serialization=True, model_args=options)
    name = f"timm:{tmp_path}/model"
    features = check(name, "image", pictures(), tmp_path)
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    pixels = torch.stack([transform(Image.fromarray(image)) for image in pictures()])
    encoder = create(name)
    prepared = torch.stack([torch.from_numpy(encoder.prepare(image)["pixels"]) for image in pictures()])
    torch.testing.assert_close(normalized(prepared, encoder.prepare), pixels, atol=1e-6, rtol=0)
    model.reset_classifier(0)
    with torch.no_grad():
        torch.testing.assert_close(features, model(pixels), atol=1e-5, rtol=1e-5)
    average = create(f"{name}?pool=avg")
    assert average.fingerprint != encoder.fingerprint
    assert not torch.allclose(encode_media(average, pictures()), features, atol=1e-3)
    (tmp_path / "model" / "model.safetensors").rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(DataError, match="is a pickle"):
        create(name)


def test_open_clip(tmp_path):
    open_clip = pytest.importorskip("open_clip", exc_type=Exception)
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 2, "width": 16, "patch_size": 16, "head_width": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    torch.manual_seed(0)
    model = open_clip.CLIP(12, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**text)).eval()
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "open_clip_model.safetensors"
    )
    config = {"model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    name = f"open_clip:{tmp_path}"
    loaded, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    loaded.eval()
    with torch.no_grad():
        pixels = torch.stack([transform(Image.fromarray(image)) for image in pictures()])
        found = check(name, "image", pictures(), tmp_path)
        torch.testing.assert_close(found, loaded.encode_image(pixels), atol=1e-5, rtol=1e-4)
        tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(models.TEXTS)
        found = check(name, "text", models.TEXTS, tmp_path)
        torch.testing.assert_close(found, loaded.encode_text(tokens), atol=1e-5, rtol=1e-4)
    with pytest.raises(ConfigError, match="encodes image and text; pass media"):
        create(name)
    config["model_cfg"]["text_cfg"] = {**text, "hf_model_name": "owner/name"}  # type: ignore[index]
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="is a model of the Hugging Face Hub"):
        create(name, media="text")


def test_a_library_that_cannot_be_imported_says_so(tmp_path, monkeypatch):
    from unialign import _optional
    from unialign.encoders import _library_model

    def fails(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(_optional, "import_module", fails)
    with pytest.raises(MissingDependencyError, match=r"operator torchvision::nms .*pip install 'unialign\[timm\]'"):
        _library_model.import_library("timm", "timm:x", "timm")
