"""Test spaces whose embeddings are mapped by an affine map after normalization."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, NonFiniteError, ShapeError


def store() -> EmbeddingStore:
    rng = np.random.default_rng(0)
    return EmbeddingStore.from_arrays({name: rng.normal(size=(60, 12)).astype(np.float32) for name in ("a", "b")})


def make(**options: Any) -> ua.Space:
    torch.manual_seed(0)
    space = ua.Space({"a": 12, "b": 12}, dim=8, **options)
    return space.fit_normalizer(store(), np.arange(60)).eval()


def layers() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return {
        "b": (
            torch.randn(8, 8, generator=generator, dtype=torch.float64),
            torch.randn(8, generator=generator, dtype=torch.float64),
        )
    }


@pytest.mark.parametrize(
    "options",
    [
        {"head": "mlp"},
        {"head": "linear"},
        {"head": "kernel"},
        {"head": "linear", "input_norm": "unit"},
        {"head": "linear", "input_norm": "none"},
        {"head": "mlp", "frozen": {"b": "whiten"}},
    ],
    ids=str,
)
def test_every_head_holds_the_map(options: dict[str, Any], tmp_path: Path) -> None:
    plain = make(**options)
    space = plain.with_output_affine(layers())
    x = {name: torch.tensor(store().array(name)[:20]) for name in ("a", "b")}
    before, after = plain.encode(x), space.encode(x)
    weight, bias = layers()["b"]
    expected = torch.nn.functional.normalize(before["b"].double() @ weight + bias, dim=1)
    assert torch.equal(after["a"], before["a"])
    assert float((after["b"].double() - expected).abs().max()) < 1e-6
    assert plain.output_affine == ()
    assert space.output_affine == ("b",)
    space.save_pretrained(tmp_path)
    loaded = ua.Space.from_pretrained(tmp_path)
    assert loaded.output_affine == ("b",)
    assert all(torch.equal(loaded.encode(x)[name], after[name]) for name in x)


def test_absent_rows_stay_zero_and_rows_are_differentiable() -> None:
    space = make().with_output_affine(layers())
    x = torch.randn(5, 12)
    x[2] = torch.nan
    present = {"b": torch.tensor([True, True, False, True, True])}
    assert float(space.encode({"b": x}, present=present)["b"][2].abs().max()) == 0
    space({"b": x}, present=present)["b"].sum().backward()
    gradients = [p.grad for p in space.heads[1].parameters() if p.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(g).all()) for g in gradients)


def test_spaces_without_a_map_are_unchanged() -> None:
    space = make()
    assert "output_affine" not in space.get_config()
    assert not any(key.startswith("outputs") for key in space.state_dict())


def test_a_map_is_not_inverted_or_trained_further() -> None:
    frozen = make(frozen={"b": "whiten"}).with_output_affine(layers())
    with pytest.raises(ConfigError, match="not inverted"):
        frozen.inverse_transform("b", torch.eye(8))
    data = store()
    with pytest.raises(ConfigError, match="affine map"):
        ua.fit(data, ua.TrainConfig(dim=8, epochs=1), init_from=make().with_output_affine(layers()))


def test_invalid_maps_are_rejected() -> None:
    space = make()
    weight, bias = layers()["b"]
    with pytest.raises(ConfigError, match="unknown modality"):
        space.with_output_affine({"c": (weight, bias)})
    with pytest.raises(ConfigError, match="already has"):
        space.with_output_affine(layers()).with_output_affine(layers())
    with pytest.raises(ShapeError, match="bias"):
        space.with_output_affine({"a": (weight, bias[:3])})
    with pytest.raises(NonFiniteError, match="weight"):
        space.with_output_affine({"a": (weight * torch.nan, bias)})
    with pytest.raises(ConfigError, match="output_affine"):
        ua.Space({"a": 3}, output_affine=["d"])
