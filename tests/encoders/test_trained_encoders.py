"""Test references of trained encoders: they change exactly with the weights, and give the same bits after loading."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import encoder_models as models
from trained_encoder_checks import ALL, LAST, LORA, as_json, change, check, features
from unialign import embed
from unialign.config import TuneConfig
from unialign.encoders import (
    check_unchanged,
    create,
    load,
    own_encoder,
    save,
    save_adapter,
    trained_encoder,
    tune_parameters,
    wrap,
)
from unialign.encoders._reference import fingerprint_of
from unialign.errors import ConfigError, DataError
from unialign.items import Items

# The others load and save their files in the same way.
FAST = (("clip", "image"), ("bert", "text"), ("clap", "audio"), ("whisper", "audio"))
CASES = [
    pytest.param(name, media, marks=() if (name, media) in FAST else pytest.mark.slow)
    for name, dims in models.DIMS.items()
    for media in dims
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models")
    for name in models.DIMS:
        models.save_model(name, target / name)
    return target


@pytest.mark.parametrize("tuning", [LAST, LORA, ALL], ids=["last", "lora", "all"])
@pytest.mark.parametrize(("name", "media"), CASES)
def test_transformers(folder: Path, tmp_path: Path, name: str, media: Any, tuning: TuneConfig) -> None:
    if tuning is LORA:
        pytest.importorskip("peft")
    check(create(f"transformers:{folder / name}", media=media, device="cpu"), tuning, tmp_path)


@pytest.mark.parametrize("name", ["conv?size=32", "bag?dim=8", "logmel-conv", "frames:builtin:conv?size=32"])
def test_built_in(tmp_path: Path, name: str) -> None:
    check(create(f"builtin:{name}", device="cpu"), ALL, tmp_path)


def test_adapters_of_frames_and_convolutions(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    check(create(f"builtin:frames:transformers:{folder / 'vit'}", device="cpu"), LORA, tmp_path / "frames")
    tuning = LORA.replace(targets=("layers.3", "layers.12"))
    trained = check(create("builtin:conv?size=32", device="cpu"), tuning, tmp_path / "conv")
    assert trained.reference["adapter"]["targets"] == ["12", "3"]


@pytest.mark.parametrize("tuning", [LORA, ALL], ids=["lora", "all"])
def test_sentence_transformers(tmp_path: Path, tuning: TuneConfig) -> None:
    library = pytest.importorskip("sentence_transformers")
    if tuning is LORA:
        pytest.importorskip("peft")
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    source = models.save_model("bert", tmp_path / "source")
    modules = [Transformer(str(source)), Pooling(16, "max"), Dense(16, 5)]
    library.SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(tmp_path / "saved"), create_model_card=False
    )
    encoder = create(f"sentence-transformers:{tmp_path / 'saved'}", media="text", device="cpu")
    assert encoder.reference["architecture"]["modules"] == ["Transformer", "Pooling", "Dense"]
    parameters = tune_parameters(encoder, tuning)
    batch = encoder.collate([encoder.prepare(text) for text in models.TEXTS])
    encoder.encode(batch).square().sum().backward()
    assert all(parameter.grad is not None for parameter in parameters.values())
    last = tune_parameters(create(str(encoder.reference["kind"]) + f":{tmp_path / 'saved'}", media="text"), LAST)
    assert {name.partition(".")[0] for name in last} == {"0", "2"}
    check(create(f"sentence-transformers:{tmp_path / 'saved'}", media="text", device="cpu"), tuning, tmp_path)


def test_an_adapter_above_trained_weights(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    encoder = create(f"transformers:{folder / 'bert'}", device="cpu")
    change(encoder, ALL)
    first = trained_encoder(encoder)
    change(first, LORA)
    both = trained_encoder(first)
    reference = both.reference
    assert reference["stored"] == "inside"
    assert reference["adapter"]["r"] == 2
    assert len({encoder.fingerprint, first.fingerprint, both.fingerprint}) == 3
    saved = save(both, tmp_path)
    loaded = load(as_json(saved), folder=tmp_path, device="cpu")
    assert torch.equal(features(loaded), features(both))
    # Training an adapter that was loaded continues with it.
    parameters = tune_parameters(loaded, LORA)
    assert torch.equal(features(loaded), features(both))
    assert sum(float(one.detach().abs().sum()) for name, one in parameters.items() if name.endswith("B")) > 0
    change(loaded, LORA)
    assert trained_encoder(loaded).fingerprint not in {both.fingerprint, first.fingerprint}


def test_damaged_adapters(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    encoder = create(f"transformers:{folder / 'vit'}", device="cpu")
    change(encoder, LORA)
    reference = as_json(save_adapter(trained_encoder(encoder), tmp_path))
    path = tmp_path / "adapter.safetensors"
    data = path.read_bytes()

    def fails(message: str, **entries: Any) -> None:
        adapter = {**reference["adapter"], **entries}
        altered = {**reference, "adapter": adapter}
        altered["fingerprint"] = fingerprint_of(altered)
        with pytest.raises(DataError, match=message):
            load(altered, folder=tmp_path, device="cpu")

    fails("does not describe an adapter: r must be an integer", r=0)
    fails("does not describe an adapter: alpha must be", alpha=-1)
    fails("does not describe an adapter: targets must be strings", targets=[3])
    fails("does not describe an adapter: 'NoneType'", targets=None)
    fails("it has matrices for other layers, or of a rank other than r", r=3)
    fails("it has matrices for other layers", targets=["q_proj"])
    fails("does not fit .* no layer 'other'", targets=["other"])
    fails("was altered or truncated", sha256="0" * 64)
    with pytest.raises(DataError, match="was altered: its fingerprint"):
        load({**reference, "adapter": {**reference["adapter"], "alpha": 5.0}}, folder=tmp_path)
    for place in (9, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        fails("was altered or truncated")
    path.unlink()
    fails(r"adapter\.safetensors")
    # Matrices of other shapes, with a matching checksum.
    tensors = load_file_of(data, tmp_path)
    name = next(one for one in tensors if one.endswith(".lora_B"))
    save_file({**tensors, name: tensors[name][:1].contiguous()}, path)
    from unialign.io import digest

    fails(f"{name} has shape", sha256=digest(path.read_bytes()))


def load_file_of(data: bytes, folder: Path) -> dict[str, torch.Tensor]:
    (folder / "original.safetensors").write_bytes(data)
    return load_file(folder / "original.safetensors")


def test_the_weights_below_an_adapter_are_checked(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    source = models.save_model("vit", tmp_path / "model")
    encoder = create(f"transformers:{source}", device="cpu")
    change(encoder, LORA)
    (tmp_path / "adapter").mkdir()
    reference = as_json(save_adapter(trained_encoder(encoder), tmp_path / "adapter"))
    tensors = load_file(source / "model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="is not the file that the reference names: its sha256"):
        load(reference, folder=tmp_path / "adapter", device="cpu")


def test_copies_are_independent(folder: Path) -> None:
    pytest.importorskip("peft")
    for name in (f"transformers:{folder / 'bert'}", "builtin:bag?dim=8"):
        given = create(name, device="cpu")
        own = own_encoder(given)
        assert own.module is not given.module
        assert own.reference == given.reference
        before = features(given)
        assert torch.equal(features(own), before)
        change(own, ALL)
        assert torch.equal(features(given), before)
        trained = trained_encoder(own)
        assert torch.equal(features(own_encoder(trained)), features(trained))
        with pytest.raises(DataError, match="changed since its fingerprint"):
            own_encoder(own)
        check_unchanged(given)
    adapted = create(f"transformers:{folder / 'bert'}", device="cpu")
    change(adapted, LORA)
    trained = trained_encoder(adapted)
    own = own_encoder(trained)
    expected = features(trained)
    change(own, LORA)
    assert torch.equal(features(trained), expected)
    assert not torch.equal(features(own), expected)
    color = create("builtin:color")
    assert own_encoder(color) is color


def as_vector(text: str) -> dict[str, Any]:
    return {"input": np.frombuffer(text.encode()[:3].ljust(3), np.uint8).astype(np.float32)}


class Named(nn.Linear):
    """A layer whose input is named `input`."""


def test_wrapped_modules(tmp_path: Path) -> None:
    encoder = wrap(Named(3, 4), media="text", dim=4, prepare=as_vector)
    assert own_encoder(encoder) is encoder
    fingerprint = encoder.fingerprint
    change(encoder, ALL)
    trained = trained_encoder(encoder)
    assert trained.fingerprint != fingerprint
    assert trained.fingerprint == wrap(encoder.module, media="text", dim=4, prepare=as_vector).fingerprint  # type: ignore[arg-type]
    items = Items.from_records([{"text": "a"}, {"text": "b"}], kinds={"text": "text"})
    with pytest.raises(DataError, match=r"the weights of the encoder module:Named changed since its fingerprint"):
        embed(items, {"text": encoder}, tmp_path / "store", workers=0, progress="none")
    store = embed(items, {"text": trained}, tmp_path / "store", workers=0, progress="none")
    assert store.provenance["columns"]["text"]["fingerprint"] == trained.fingerprint


class Foreign:
    """An encoder of another package."""

    def __init__(self) -> None:
        self._inner = create("builtin:bag?dim=8")

    def __getattr__(self, name: str) -> Any:
        if name in ("save_files", "with_reference"):
            raise AttributeError(name)
        return getattr(self.__dict__["_inner"], name)


def test_encoders_of_other_packages() -> None:
    encoder: Any = Foreign()
    assert list(tune_parameters(encoder, ALL)) == ["weight_KD"]
    with pytest.raises(ConfigError, match="cannot describe its trained weights; wrap its module"):
        trained_encoder(encoder)
    with pytest.raises(ConfigError, match="cannot be copied; pass its name instead of an instance"):
        own_encoder(encoder)


def test_a_module_with_an_adapter_of_its_own() -> None:
    peft = pytest.importorskip("peft")
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["1"]), module)

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = module

        def forward(self, input: torch.Tensor) -> Any:
            return self.layers(input)

    held = Held().requires_grad_(True)
    encoder = wrap(held, media="text", dim=4, prepare=as_vector)
    with pytest.raises(ConfigError, match=r"has an adapter of peft already; merge it into the weights"):
        tune_parameters(encoder, LORA.replace(targets=("0",)))
    change(encoder, ALL)
    trained = trained_encoder(encoder)
    assert trained.fingerprint != encoder.fingerprint
    assert trained.reference["weights"] != encoder.reference["weights"]
    assert "adapter" not in trained.reference
