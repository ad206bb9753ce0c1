"""Test whitening of frozen modalities, the inverse of whitening, and invalid options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError, DataError, ShapeError
from unialign.space import Space, Whitening

N, W, D = 60, 7, 4


def store(rank: int = W) -> EmbeddingStore:
    rng = np.random.default_rng(0)
    deep = rng.normal(size=(N, rank)) * np.linspace(5, 0.5, rank)
    image = deep @ rng.normal(size=(rank, W)) + 3
    return EmbeddingStore.from_arrays({"image": image, "text": rng.normal(size=(N, 5))})


def fitted(mode: str = "whiten") -> Space:
    space = Space({"image": W, "text": 5}, dim=D, hidden=8, frozen={"image": mode})  # type: ignore[dict-item]
    return space.fit_normalizer(store(), np.arange(40))


@pytest.mark.parametrize("mode", ["whiten", "center"])
def test_statistics_use_only_the_training_rows(mode: str) -> None:
    frame = fitted(mode).features[0]
    assert isinstance(frame, Whitening)
    x = store().array("image")[:40]
    z = frame(torch.tensor(x).float()).double()
    torch.testing.assert_close(z.mean(0), torch.zeros(D, dtype=torch.float64), atol=1e-5, rtol=0)
    covariance = z.T @ z / 40
    torch.testing.assert_close(covariance, torch.diag(covariance.diag()), atol=1e-4, rtol=0)
    if mode == "whiten":
        torch.testing.assert_close(covariance.diag(), torch.ones(D, dtype=torch.float64), atol=1e-4, rtol=0)
    else:
        # The variances are the leading variances of the features, up to a common factor.
        _, values, _ = np.linalg.svd(x - x.mean(0))
        expected = torch.from_numpy(values[:D] ** 2)
        torch.testing.assert_close(covariance.diag() / covariance.trace(), expected / expected.sum())
    assert float(frame.length) == pytest.approx(float(z.norm(dim=1).mean()), rel=1e-5)


@pytest.mark.parametrize("mode", ["whiten", "center"])
def test_encoding_is_whitening(mode: str) -> None:
    space = fitted(mode)
    x = torch.tensor(store().array("image")).float()
    z = space.encode({"image": x})["image"]
    torch.testing.assert_close(z, torch.nn.functional.normalize(space.features[0](x), dim=1))
    assert not any(name.startswith(("heads.0", "features.0")) for name, _ in space.named_parameters())


@pytest.mark.parametrize("mode", ["whiten", "center"])
def test_inverse_transform_undoes_encoding(mode: str) -> None:
    space = fitted(mode)
    z = torch.nn.functional.normalize(torch.randn(9, D, generator=torch.Generator().manual_seed(1)), dim=1)
    features = space.inverse_transform("image", z)
    assert features.shape == (9, W)
    torch.testing.assert_close(space.encode({"image": features})["image"], z)
    framed = space.features[0](features)
    torch.testing.assert_close(framed.norm(dim=1), space.features[0].length.expand(9))
    half = space.inverse_transform("image", z / 2)
    torch.testing.assert_close(half - space.features[0].mean, (features - space.features[0].mean) / 2)


def test_whitening_with_all_directions_is_lossless() -> None:
    space = Space({"image": W, "text": 5}, dim=W, frozen={"image": "center"}).fit_normalizer(store(), np.arange(40))
    x = torch.tensor(store().array("image")).float()
    back = space.features[0].inverse_transform(space.features[0](x) / space.features[0].length)
    torch.testing.assert_close(back, x, atol=1e-4, rtol=1e-5)


def test_absent_rows_are_zero_and_not_in_the_statistics() -> None:
    image = store().array("image").copy()
    present = np.ones(N, dtype=bool)
    present[::3] = False
    image[~present] = np.nan
    some = EmbeddingStore.from_arrays({"image": image}, present={"image": present})
    kept = EmbeddingStore.from_arrays({"image": image[present]})
    one = Space({"image": W}, dim=D, frozen={"image": "whiten"}).fit_normalizer(some, np.arange(N))
    two = Space({"image": W}, dim=D, frozen={"image": "whiten"}).fit_normalizer(kept, np.arange(int(present.sum())))
    torch.testing.assert_close(one.features[0].axes, two.features[0].axes)
    z = one.encode({"image": image}, present={"image": present})["image"]
    assert not z[~torch.from_numpy(present)].any()
    assert bool(torch.isfinite(z).all())


def test_too_few_directions_raise() -> None:
    space = Space({"image": W, "text": 5}, dim=D, frozen={"image": "whiten"})
    with pytest.raises(DataError, match=r"'image' varies in 2 directions over its 60 training rows, fewer than dim=4"):
        space.fit_normalizer(store(rank=2), np.arange(N))
    with pytest.raises(DataError, match="varies in 0 directions"):
        space.fit_normalizer(store(), np.array([3]))


def test_invalid_options() -> None:
    cases: list[tuple[Any, str]] = [
        ("image", "frozen must map modalities to whitening modes"),
        ({"audio": "whiten"}, "unknown modality 'audio' in frozen; this space has"),
        ({"image": "rotate"}, "unknown transform '[a-z]+' for the frozen modality 'image'"),
        ({"text": "whiten"}, "'text' has dim 5, less than dim=6"),
    ]
    for frozen, message in cases:
        with pytest.raises(ConfigError, match=message):
            Space({"image": W, "text": 5}, dim=6, frozen=frozen)


def test_a_head_cannot_be_inverted() -> None:
    space = fitted()
    with pytest.raises(ConfigError, match="'text' has a trained head"):
        space.inverse_transform("text", torch.ones(1, D))
    with pytest.raises(ConfigError, match="unknown modality 'audio'"):
        space.inverse_transform("audio", torch.ones(1, D))
    with pytest.raises(ShapeError, match=r"z has shape \(1, 3\)"):
        space.inverse_transform("image", torch.ones(1, 3))


def test_saving_keeps_the_whitening(tmp_path: Path) -> None:
    space = fitted("center")
    space.save_pretrained(tmp_path)
    again = Space.from_pretrained(tmp_path)
    assert again.frozen == {"image": "center"}
    x = {"image": store().array("image"), "text": store().array("text")}
    for name, z in space.eval().encode(x).items():
        assert torch.equal(again.encode(x)[name], z)
    assert "frozen" not in Space({"image": W}).get_config()


def test_a_folder_with_an_unknown_whitening_mode_raises(tmp_path: Path) -> None:
    from unialign.io import read_json, write_json

    fitted().save_pretrained(tmp_path)
    body = read_json(tmp_path / "config.json")
    body["space"]["frozen"] = {"image": "magic"}
    (tmp_path / "config.json").unlink()
    write_json(tmp_path / "config.json", body)
    with pytest.raises(CheckpointError, match=r"unknown transform '[a-z]+' for the frozen modality 'image'"):
        Space.from_pretrained(tmp_path)
