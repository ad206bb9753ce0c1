"""Train an encoder, and compare it with those that are loaded from its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import encoder_models as models
from unialign.config import TuneConfig
from unialign.encoders import (
    Encoder,
    check_unchanged,
    encode_media,
    load,
    save,
    save_adapter,
    trained_encoder,
    tune_parameters,
)
from unialign.encoders._reference import base, fingerprint_of
from unialign.errors import DataError

LAST = TuneConfig(mode="last", blocks=1)
LORA = TuneConfig(mode="lora", r=2, alpha=4.0)
ALL = TuneConfig(mode="all")


def features(encoder: Encoder) -> torch.Tensor:
    return encode_media(encoder, models.inputs(encoder.media))


def change(encoder: Encoder, tuning: TuneConfig) -> None:
    """Take a step without computing a gradient."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in tune_parameters(encoder, tuning).values():
            parameter.add_(0.05 * torch.randn(parameter.shape))


def as_json(reference: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(reference))
    return found


def check(encoder: Encoder, tuning: TuneConfig, tmp_path: Path) -> Encoder:
    """Train an encoder, and compare it with those that are loaded from its files."""
    assert trained_encoder(encoder) is encoder
    before, fingerprint, initial = features(encoder), encoder.fingerprint, encoder.reference
    tune_parameters(encoder, tuning)
    assert trained_encoder(encoder) is encoder
    check_unchanged(encoder)
    change(encoder, tuning)
    with pytest.raises(DataError, match=f"changed since its fingerprint {fingerprint[:12]} was computed"):
        check_unchanged(encoder)
    trained = trained_encoder(encoder)
    check_unchanged(trained)
    assert encoder.fingerprint == fingerprint
    assert encoder.reference == initial
    assert trained.fingerprint != fingerprint
    assert trained.module is encoder.module
    reference = as_json(trained.reference)
    assert reference["fingerprint"] == fingerprint_of(reference)
    assert reference["stored"] == ("adapter" if tuning.mode == "lora" else "inside")
    assert not torch.equal(features(trained), before)
    assert trained_encoder(trained) is trained
    writers = {"all": save, "adapter": save_adapter} if tuning.mode == "lora" else {"all": save}
    for name, write in writers.items():
        target = tmp_path / tuning.mode / name
        target.mkdir(parents=True)
        saved = as_json(write(trained, target))
        assert saved["fingerprint"] == trained.fingerprint
        assert saved["witness"] == reference["witness"]
        if name == "adapter":
            assert [path.name for path in target.iterdir()] == ["adapter.safetensors"]
            assert base(saved)["fingerprint"] == fingerprint
        with pytest.raises(DataError, match="in a folder; pass the folder"):
            load(saved)
        loaded = load(saved, folder=target, device="cpu")
        assert loaded.fingerprint == trained.fingerprint
        assert torch.equal(features(loaded), features(trained))
        assert trained_encoder(loaded) is loaded
    return trained
