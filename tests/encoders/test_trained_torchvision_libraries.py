"""Test the training of encoders of timm and open_clip, if these libraries can be imported."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.torchvision_shim import make_torchvision_importable
from trained_encoder_checks import ALL, LAST, LORA, check
from unialign.config import TuneConfig
from unialign.encoders import create, tune_parameters


@pytest.mark.parametrize("tuning", [LAST, LORA, ALL], ids=["last", "lora", "all"])
def test_timm(tmp_path: Path, tuning: TuneConfig) -> None:
    make_torchvision_importable()
    timm = pytest.importorskip("timm", exc_type=Exception)
    pytest.importorskip("peft")
    from timm.models._hub import save_for_hf

    options = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7, **options).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32)}
    save_for_hf(model, tmp_path / "model", safe_serialization=True, model_args=options)
    names = set(tune_parameters(create(f"timm:{tmp_path}/model"), tuning))
    expected = {"last": "norm.weight", "lora": "blocks.0.attn.qkv.lora_B", "all": "patch_embed.proj.weight"}
    assert expected[tuning.mode] in names
    assert not any(name.startswith(("blocks.0.", "patch_embed")) for name in names) or tuning is not LAST
    check(create(f"timm:{tmp_path}/model"), tuning, tmp_path)


@pytest.mark.parametrize("tuning", [LAST, LORA, ALL], ids=["last", "lora", "all"])
@pytest.mark.parametrize("media", ["image", "text"])
def test_open_clip(tmp_path: Path, media: Any, tuning: TuneConfig) -> None:
    make_torchvision_importable()
    open_clip = pytest.importorskip("open_clip", exc_type=Exception)
    pytest.importorskip("peft")
    vision = {"image_size": 32, "layers": 2, "width": 16, "patch_size": 16, "head_width": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    torch.manual_seed(0)
    model = open_clip.CLIP(embed_dim=12, vision_cfg=vision, text_cfg=text).eval()
    source = tmp_path / "model"
    source.mkdir()
    save_file(model.state_dict(), source / "open_clip_model.safetensors")
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    (source / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    encoder = create(f"open-clip:{source}", media=media)
    names = set(tune_parameters(encoder, tuning))
    # Attention is one fused matrix; the temperature does not affect the features.
    assert "logit_scale" not in names
    if tuning is LORA:
        assert {name.split(".")[-2] for name in names} == {"c_fc", "c_proj"}
    else:
        assert ("proj" if media == "image" else "text_projection") in names
    assert (tuning is LAST) is not any(".0." in name or "conv1" in name or "embedding" in name for name in names)
    check(create(f"open-clip:{source}", media=media), tuning, tmp_path)
