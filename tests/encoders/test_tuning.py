"""Test which weights of an encoder are trained, their gradients, and that all others keep their bits."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import encoder_models as models
from unialign.config import TuneConfig
from unialign.encoders import (
    Encoder,
    create,
    encode_media,
    load_tuned_tensors,
    set_training_mode,
    tune_parameters,
    tuned_tensors,
    wrap,
)
from unialign.encoders._lora import plain_state
from unialign.errors import CheckpointError, ConfigError

CASES = [(name, media) for name, dims in models.DIMS.items() for media in dims]
BUILT_IN = [("builtin:conv?size=32", "image"), ("builtin:bag?dim=8", "text"), ("builtin:logmel-conv", "audio")]

# Parameters that `last` with one block must train, and must not train.
LAST = {
    ("clip", "image"): ("visual_projection.weight", "vision_model.pre_layrnorm.weight"),
    ("clip", "text"): ("text_projection.weight", "text_model.embeddings.token_embedding.weight"),
    ("siglip", "image"): ("head.probe", "embeddings.position_embedding.weight"),
    ("siglip", "text"): ("head.weight", "encoder.layers.0.mlp.fc1.weight"),
    ("dinov2", "image"): ("layernorm.weight", "embeddings.cls_token"),
    ("vit", "image"): ("layernorm.bias", "layers.0.mlp.fc1.weight"),
    ("bert", "text"): ("encoder.layer.1.output.LayerNorm.weight", "encoder.layer.0.output.dense.weight"),
    ("clap", "audio"): ("audio_projection.linear1.weight", "audio_model.audio_encoder.batch_norm.weight"),
    ("clap", "text"): ("text_model.pooler.dense.weight", "text_model.embeddings.LayerNorm.weight"),
    ("clap_fusion", "audio"): (
        "audio_model.audio_encoder.norm.weight",
        "audio_model.audio_encoder.patch_embed.norm.bias",
    ),
    ("ast", "audio"): ("layernorm.weight", "embeddings.distillation_token"),
    ("whisper", "audio"): ("layer_norm.weight", "conv1.weight"),
    ("videomae", "video"): ("encoder.layer.1.layernorm_after.weight", "embeddings.patch_embeddings.projection.weight"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("models")
    for name in models.DIMS:
        models.save_model(name, target / name)
    return target


def make(folder: Path, name: str, media: Any) -> Encoder:
    options = "?window=0.5" if name == "whisper" else ""
    full = name if ":" in name else f"transformers:{folder / name}{options}"
    return create(full, media=media, device="cpu")


def batch_of(encoder: Encoder) -> dict[str, torch.Tensor]:
    return encoder.collate([encoder.prepare(value) for value in models.inputs(encoder.media)])


def features(encoder: Encoder) -> torch.Tensor:
    return encode_media(encoder, models.inputs(encoder.media))


def train(encoder: Encoder, parameters: dict[str, nn.Parameter], tuning: TuneConfig, steps: int = 2) -> None:
    assert encoder.module is not None
    set_training_mode(encoder.module, tuning)
    optimizer = torch.optim.AdamW(parameters.values(), 1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        encoder.encode(batch_of(encoder)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in parameters.values())
        optimizer.step()


def state(encoder: Encoder) -> dict[str, torch.Tensor]:
    assert encoder.module is not None
    return {name: tensor.clone() for name, tensor in plain_state(encoder.module).items()}


def check_gradients(encoder: Encoder, parameters: dict[str, nn.Parameter]) -> None:
    """Compare value and gradient with float64, and the latter with differences along random directions."""
    torch.manual_seed(0)
    batch, values = batch_of(encoder), list(parameters.values())
    found = encoder.encode(batch)
    assert found.dtype == torch.float32
    weights = torch.randn(found.shape).double()
    gradient = flat(torch.autograd.grad((found * weights).sum(), values))
    module = encoder.module
    assert module is not None
    module.double()
    exact = encoder._forward(batch)  # type: ignore[attr-defined]
    assert exact.dtype == torch.float64
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-4)
    expected = flat(torch.autograd.grad((exact * weights).sum(), values))
    assert (gradient - expected).norm() < 2e-3 * expected.norm() + 1e-7
    before = [parameter.detach().clone() for parameter in values]

    @torch.no_grad()
    def value(step: float, direction: list[torch.Tensor]) -> torch.Tensor:
        for parameter, start, change in zip(values, before, direction, strict=True):
            parameter.copy_(start + step * change)
        return (encoder._forward(batch) * weights).sum()  # type: ignore[attr-defined]

    for _ in range(2):
        direction = [torch.randn_like(parameter) for parameter in values]
        # Some models compute a softmax in float32, and others are far from linear.
        slopes = [(value(step, direction) - value(-step, direction)) / (2 * step) for step in (1e-4, 1e-5, 1e-6, 1e-8)]
        errors = [float(abs(slope - expected @ flat(direction))) for slope in slopes]
        assert min(errors) < 1e-3 * float(expected.norm()) + 1e-7


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


@pytest.mark.parametrize(("name", "media"), CASES + BUILT_IN)
def test_all(folder: Path, name: str, media: Any) -> None:
    encoder = make(folder, name, media)
    before, fingerprint = features(encoder), encoder.fingerprint
    parameters = tune_parameters(encoder, TuneConfig(mode="all"))
    assert encoder.module is not None
    named = dict(encoder.module.named_parameters())
    # The positions of Whisper are not trained, and the others do not affect the features.
    unused = {"dinov2": "mask_token", "whisper": "embed_positions", "clap_fusion": "patch_embed"}.get(name, "none")
    assert all(unused in one for one in set(named) - set(parameters))
    assert all(parameter.requires_grad is (one in parameters) for one, parameter in named.items())
    torch.testing.assert_close(features(encoder), before, atol=0, rtol=0)
    check_gradients(encoder, parameters)
    assert encoder.fingerprint == fingerprint


@pytest.mark.parametrize(("name", "media"), CASES)
def test_last(folder: Path, name: str, media: Any) -> None:
    encoder = make(folder, name, media)
    parameters = tune_parameters(encoder, TuneConfig(mode="last", blocks=1))
    inside, outside = LAST[name, media]
    assert encoder.module is not None
    assert inside in parameters
    assert outside not in parameters
    assert outside in dict(encoder.module.named_parameters())
    before = state(encoder)
    train(encoder, parameters, TuneConfig(mode="last", blocks=1), steps=1)
    changed = {one for one, tensor in state(encoder).items() if not torch.equal(tensor, before[one])}
    assert changed == set(parameters)
    both = tune_parameters(encoder, TuneConfig(mode="last", blocks=2))
    assert set(parameters) < set(both)
    assert tune_parameters(encoder, TuneConfig(mode="frozen")) == {}
    assert not any(parameter.requires_grad for parameter in encoder.module.parameters())
    with pytest.raises(ConfigError, match=r"has 2 blocks, got blocks=3; choose fewer, or mode 'all'"):
        tune_parameters(encoder, TuneConfig(mode="last", blocks=3))


@pytest.mark.parametrize(("name", "media"), CASES)
def test_lora(folder: Path, name: str, media: Any) -> None:
    pytest.importorskip("peft")
    encoder = make(folder, name, media)
    before, base = features(encoder), state(encoder)
    tuning = TuneConfig(mode="lora", r=2, alpha=3.0)
    random_state = torch.get_rng_state()
    parameters = tune_parameters(encoder, tuning, seed=3)
    assert torch.equal(torch.get_rng_state(), random_state)
    # The four linear layers of attention in two blocks.
    assert len(parameters) == 16
    assert torch.equal(features(encoder), before)
    assert tune_parameters(encoder, tuning) == parameters
    assert len({parameter.shape[0] for one, parameter in parameters.items() if one.endswith(".lora_A")}) == 1
    train(encoder, parameters, tuning)
    assert not torch.equal(features(encoder), before)
    after = state(encoder)
    assert all(torch.equal(tensor, after[one]) for one, tensor in base.items())
    assert set(after) == set(base)
    check_gradients(encoder, parameters)


def test_frames() -> None:
    encoder = create("builtin:frames:builtin:conv?size=32&frames=2", device="cpu")
    image = create("builtin:conv?size=32", device="cpu")
    parameters = tune_parameters(encoder, TuneConfig(mode="all"))
    assert encoder.module is not None
    assert image.module is not None
    videos = [encoder.prepare(video)["pixels"] for video in models.videos()]
    encoder.encode(batch_of(encoder)).square().sum().backward()
    image.module.double()
    total = torch.zeros((), dtype=torch.float64)
    for frames_FCHW in videos:
        rows = [image._forward({"pixels": torch.from_numpy(frame[None])})[0] for frame in frames_FCHW]  # type: ignore[attr-defined]
        total = total + torch.stack(rows).mean(0).square().sum()
    total.backward()
    for name, parameter in image.module.named_parameters():
        found = parameters[name].grad
        assert found is not None
        assert parameter.grad is not None
        assert (found - parameter.grad).norm() < 1e-4 * parameter.grad.norm() + 1e-6


@pytest.mark.parametrize(
    ("name", "media"), [("bert", "text"), ("clip", "image"), ("whisper", "audio"), ("clap", "audio")]
)
def test_gradients_in_bfloat16(folder: Path, name: str, media: Any) -> None:
    encoder = make(folder, name, media)
    parameters = list(tune_parameters(encoder, TuneConfig(mode="all")).values())
    batch = batch_of(encoder)
    exact = encoder.encode(batch)
    expected = flat(torch.autograd.grad(exact.sum(), parameters))
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder.encode(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)
    gradient = flat(torch.autograd.grad(found.sum(), parameters))
    assert torch.cosine_similarity(gradient, expected, dim=0) > 0.98


def test_features_do_not_depend_on_what_was_trained(folder: Path) -> None:
    # nn.MultiheadAttention chooses another kernel if no weight requires a gradient.
    encoder = make(folder, "siglip", "image")
    expected = features(encoder)
    for tuning in (TuneConfig(mode="frozen"), TuneConfig(mode="last", blocks=1), TuneConfig(mode="all")):
        tune_parameters(encoder, tuning)
        assert torch.equal(features(encoder), expected)


def test_training_mode(folder: Path) -> None:
    pytest.importorskip("peft")
    encoder = make(folder, "clap", "audio")
    tuning = TuneConfig(mode="lora", lora_dropout=0.5)
    tune_parameters(encoder, tuning)
    module = encoder.module
    assert module is not None

    def trained() -> set[str]:
        return {type(inner).__name__ for inner in module.modules() if inner.training}

    set_training_mode(module, tuning)
    assert trained() == {"ModuleDict", "Dropout"}
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    model = tuning.replace(dropout="model")
    set_training_mode(module, model)
    assert "BatchNorm2d" in {type(inner).__name__ for inner in module.modules()}
    assert "BatchNorm2d" not in trained()
    assert "ClapAudioLayer" in trained()
    encoder.encode(batch_of(encoder))
    assert all(torch.equal(buffer, before[name]) for name, buffer in module.named_buffers())
    assert encode_media(encoder, models.sounds()).isfinite().all()
    assert "ClapAudioLayer" in trained()


def test_training_mode_of_recurrent_layers() -> None:
    # cuDNN has no gradient of recurrent layers in evaluation mode.
    module = nn.Sequential(nn.GRU(2, 3), nn.LSTM(3, 3, num_layers=2, dropout=0.5), nn.Dropout(0.5)).eval()
    set_training_mode(module, TuneConfig(mode="all"))
    assert [inner.training for inner in module] == [True, False, False]
    set_training_mode(module, TuneConfig(mode="all", dropout="model"))
    assert all(inner.training for inner in module)


def test_tensors_of_a_checkpoint(folder: Path) -> None:
    pytest.importorskip("peft")
    for tuning in (TuneConfig(mode="lora", r=2), TuneConfig(mode="last", blocks=1), TuneConfig(mode="all")):
        encoder, other = make(folder, "bert", "text"), make(folder, "bert", "text")
        parameters = tune_parameters(encoder, tuning)
        train(encoder, parameters, tuning)
        saved = {name: tensor.clone() for name, tensor in tuned_tensors(encoder).items()}
        assert set(saved) == set(parameters)
        tune_parameters(other, tuning, seed=5)
        load_tuned_tensors(other, saved)
        assert torch.equal(features(other), features(encoder))
        name, tensor = next(iter(saved.items()))
        wrong = [{**saved, name: tensor[:, :1] if tensor.ndim > 1 else tensor[:1]}, {**saved, "x": tensor}]
        wrong.append({key: value for key, value in saved.items() if key != name})
        for tensors in wrong:
            with pytest.raises(CheckpointError, match="has shape"):
                load_tuned_tensors(other, tensors)
        assert torch.equal(features(other), features(encoder))
    assert tuned_tensors(create("builtin:color")) == {}


def test_adapters_of_equal_seeds_are_equal(folder: Path) -> None:
    pytest.importorskip("peft")
    encoders = [make(folder, "vit", "image") for _ in range(3)]
    first, second, third = (
        tune_parameters(encoder, TuneConfig(mode="lora"), seed=seed)
        for encoder, seed in zip(encoders, (4, 4, 5), strict=True)
    )
    for name, parameter in first.items():
        assert torch.equal(parameter, second[name])
        assert torch.equal(parameter, third[name]) is name.endswith(".lora_B")
        # Hidden size 12.
        assert parameter.abs().max() <= 12**-0.5


def test_targets(folder: Path) -> None:
    pytest.importorskip("peft")
    encoder = make(folder, "vit", "image")
    names = tune_parameters(encoder, TuneConfig(mode="lora", targets=("layers.1.mlp.fc1", "q_proj")))
    layers = {name.rpartition(".")[0] for name in names}
    assert layers == {"layers.0.attention.q_proj", "layers.1.attention.q_proj", "layers.1.mlp.fc1"}
    with pytest.raises(ConfigError, match=r"has an adapter with r=8, alpha=16, targets=\['1.mlp.fc1', 'q_proj'\], got"):
        tune_parameters(encoder, TuneConfig(mode="lora"))
    with pytest.raises(ConfigError, match=r"has an adapter, below which weights cannot be trained; choose mode 'lora'"):
        tune_parameters(encoder, TuneConfig(mode="all"))
    convolution = create("builtin:conv?size=32", device="cpu")
    names = tune_parameters(convolution, TuneConfig(mode="lora", r=4, targets=("layers.3", "layers.12")))
    assert {name: tuple(parameter.shape[:2]) for name, parameter in names.items()} == {
        "layers.3.lora_A": (4, 32),
        "layers.3.lora_B": (64, 4),
        "layers.12.lora_A": (4, 128),
        "layers.12.lora_B": (160, 4),
    }
    before, expected = features(convolution), state(convolution)
    train(convolution, names, TuneConfig(mode="lora"))
    assert not torch.equal(features(convolution), before)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state(convolution).items())


class Attending(nn.Module):
    """An embedding of bytes, a transformer layer of torch and a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(256, 8)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2))
        self.head, self.unused = nn.Linear(8, 4), nn.Linear(2, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.table(ids)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden.mean(1))


def ids(text: str) -> dict[str, Any]:
    import numpy as np

    return {"ids": np.frombuffer(text.encode()[:3].ljust(3), np.uint8).astype(np.int64)}


def wrapped(module: nn.Module, **options: Any) -> Encoder:
    return wrap(module, media="text", dim=4, prepare=ids, **options)


def test_wrapped_modules() -> None:
    pytest.importorskip("peft")
    torch.manual_seed(0)
    module = Attending().eval()
    module.table.requires_grad_(False)
    encoder = wrapped(module)
    everything = set(tune_parameters(encoder, TuneConfig(mode="all")))
    # A parameter that the caller froze stays frozen, and others are trained even if the example does not use them.
    assert everything == {name for name, _ in module.named_parameters() if not name.startswith("table")}
    last = set(tune_parameters(encoder, TuneConfig(mode="last", blocks=1)))
    assert {name.partition(".")[0] for name in last} == {"blocks", "head"}
    assert not any(name.startswith("blocks.0") for name in last)
    # A second wrapper of the module, whose flags are those of the last call.
    assert set(tune_parameters(wrapped(module), TuneConfig(mode="all"))) == everything
    # Layers of torch read the weights of their linear layers directly.
    assert set(tune_parameters(encoder, TuneConfig(mode="lora", targets=("head",)))) == {"head.lora_A", "head.lora_B"}
    for targets, message in (
        (
            ("linear1",),
            "no layer 'linear1' for mode 'lora': 'blocks.0.linear1' is a Linear, or part of a layer",
        ),
        (("table",), "'table' is a Embedding, or part of a layer"),
        (("query",), "its linear and convolutional layers are head, unused"),
        (("unused",), "does not affect its features, or its weights are used without calling it"),
    ):
        with pytest.raises(ConfigError, match=message):
            tune_parameters(wrapped(Attending()), TuneConfig(mode="lora", targets=targets))
    with pytest.raises(ConfigError, match=r"all parameters of the encoder module:Attending are frozen; call module"):
        tune_parameters(wrapped(Attending().requires_grad_(False)), TuneConfig(mode="all"))


def test_errors(folder: Path) -> None:
    for name, message in (
        ("builtin:color", "cannot be trained, since its features are computed without weights .* such as builtin:conv"),
        ("builtin:chars", "or an encoder with trainable weights, such as builtin:bag"),
        ("builtin:log1p?dim=3", "or a wrapped module"),
    ):
        encoder = create(name)
        assert tune_parameters(encoder, TuneConfig(mode="frozen")) == {}
        for mode in ("last", "lora", "all"):
            with pytest.raises(ConfigError, match=message):
                tune_parameters(encoder, TuneConfig(mode=mode))
    with pytest.raises(ConfigError, match="builtin:bag has no blocks of layers, so mode 'last' cannot be used"):
        tune_parameters(create("builtin:bag"), TuneConfig(mode="last"))
    with pytest.raises(ConfigError, match="no linear or convolutional layers of torch, so mode 'lora' cannot be used"):
        tune_parameters(create("builtin:bag"), TuneConfig(mode="lora"))
    with pytest.raises(ConfigError, match=r"needs `targets`, a list of layers .*are layers.0, layers.3.* mode 'all'"):
        tune_parameters(create("builtin:conv"), TuneConfig(mode="lora"))
    with pytest.raises(ConfigError, match="tuning must be a TuneConfig, got 'all'"):
        tune_parameters(create("builtin:conv"), "all")  # type: ignore[arg-type]
    half = create(f"transformers:{folder / 'bert'}", dtype="bfloat16", device="cpu")
    with pytest.raises(ConfigError, match=r"has weights in bfloat16 .* too coarse .* choose mode 'lora'"):
        tune_parameters(half, TuneConfig(mode="all"))


def test_a_rank_that_a_layer_does_not_accept() -> None:
    pytest.importorskip("peft")

    class Grouped(nn.Module):
        """Two convolutions, one with groups."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv1d(3, 4, 1), nn.Conv1d(4, 4, 1, groups=2)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(values[..., None]))[..., 0]

    module = Grouped()
    encoder = wrap(module, media="text", dim=4, prepare=lambda text: {"values": ids(text)["ids"].astype("float32")})
    names = [name for name, _ in module.named_parameters()]
    with pytest.raises(ConfigError, match=r"no adapter can be added to the encoder module:Grouped: ValueError"):
        tune_parameters(encoder, TuneConfig(mode="lora", r=3, targets=("first", "second")))
    # The module is as before.
    assert [name for name, _ in module.named_parameters()] == names
    assert set(tune_parameters(encoder, TuneConfig(mode="all"))) == set(names)
    assert len(tune_parameters(encoder, TuneConfig(mode="lora", r=2, targets=("first", "second")))) == 4


def test_an_adapter_of_half_precision(folder: Path) -> None:
    pytest.importorskip("peft")
    encoder = create(f"transformers:{folder / 'bert'}", dtype="bfloat16", device="cpu")
    before, expected = features(encoder), state(encoder)
    parameters = tune_parameters(encoder, TuneConfig(mode="lora"))
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    assert torch.equal(features(encoder), before)
    train(encoder, parameters, TuneConfig(mode="lora"))
    assert not torch.equal(features(encoder), before)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in state(encoder).items())


def test_modules_without_gradient() -> None:
    class Detached(nn.Linear):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return super().forward(values).detach()

    def values(text: str) -> dict[str, Any]:
        return {"values": ids(text)["ids"].astype("float32")}

    encoder = wrap(Detached(3, 4), media="text", dim=4, prepare=values)
    with pytest.raises(ConfigError, match="have no gradient, so it cannot be trained; its forward pass must not use"):
        tune_parameters(encoder, TuneConfig(mode="all"))
    with pytest.raises(ConfigError, match=r"has quantized weights \('codes' is torch.uint8\), which cannot be trained"):
        tune_parameters(wrap(Quantized(), media="text", dim=4, prepare=values), TuneConfig(mode="all"))


class Quantized(nn.Module):
    """A layer beside integers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.codes = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)

    def forward(self, values: torch.Tensor) -> Any:
        return self.inner(values)


def test_layers_without_statistics_are_named_in_a_warning() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
    encoder = wrap(net, media="array", dim=3, prepare=_vector, name="net", example=torch.zeros(4).numpy())
    with pytest.warns(UserWarning, match=r"module:net has layers with initial statistics of batches \(1: mean 0"):
        tune_parameters(encoder, TuneConfig(mode="all"))
    with torch.no_grad():
        net[1].running_mean.fill_(0.5)  # type: ignore[operator,union-attr]
    again = wrap(net, media="array", dim=3, prepare=_vector, name="net", example=torch.zeros(4).numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune_parameters(again, TuneConfig(mode="all"))
        tune_parameters(again, TuneConfig(mode="frozen"))


def _vector(value: Any) -> dict[str, Any]:
    return {"input": np.asarray(value, np.float32)}
