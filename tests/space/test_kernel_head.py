"""Test spaces with kernel heads."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.space import kernel_basis, set_kernel_basis

DIMS = {"image": 5, "text": 4}


def make_store(items: int = 30, **options: Any) -> EmbeddingStore:
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(items, dim)).astype(np.float32) * 3 + 1 for name, dim in DIMS.items()}
    return EmbeddingStore.from_arrays(x, **options)


def fitted(**options: Any) -> ua.Space:
    torch.manual_seed(0)
    store = make_store()
    return ua.Space(DIMS, dim=3, head="kernel", **options).fit_normalizer(store, store.rows("train"))


def test_features_are_the_preconditioned_kernel_components() -> None:
    """Check f = sqrt(n) s^2 / (s^2 + eps n) V on the training rows, with a direct eigendecomposition."""
    store, space = make_store(), fitted(regularization=0.02)
    x = store.array("image").astype(np.float64)
    x = (x - x.mean(0)) / x.std(0)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    pairs = np.sort(squared[np.triu_indices(30, 1)])
    kernel = np.exp(-squared / (2 * pairs[(len(pairs) - 1) // 2]))
    center = np.eye(30) - 1 / 30
    values, vectors = np.linalg.eigh(center @ kernel @ center)
    weights = values / (values + 0.02 * 30)
    expected = 30 * vectors * weights**2 @ vectors.T
    f = space.prepare("image", torch.from_numpy(np.array(store.array("image")))).double()
    np.testing.assert_allclose(f @ f.T, expected, atol=2e-4)
    assert space.kernel_sizes == {"image": [30, 29], "text": [30, 29]}
    assert space.prepared_dims == {"image": 29, "text": 29}


def test_features_do_not_depend_on_the_precision_of_products() -> None:
    """The errors of TF32 and bfloat16 products are about 1e-3, and the weights of the features amplify them."""
    module = fitted(regularization=1e-4).features[0][1]
    x = torch.randn(8, DIMS["image"], generator=torch.Generator().manual_seed(1))
    expected = copy.deepcopy(module).double()(x.double()).float()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(module(x), expected)
    finally:
        torch.set_float32_matmul_precision(before)
    assert module(x).dtype == torch.float32
    torch.testing.assert_close(module(x), expected, atol=1e-3, rtol=1e-3)


def test_features_far_from_the_origin_keep_their_digits() -> None:
    rng = np.random.default_rng(0)
    x = {name: (rng.normal(size=(30, dim)) + 10_000).astype(np.float32) for name, dim in DIMS.items()}
    store = EmbeddingStore.from_arrays(x)
    for landmarks in (30, 12):
        torch.manual_seed(0)
        space = ua.Space(DIMS, dim=3, head="kernel", input_norm="none", landmarks=landmarks)
        space.fit_normalizer(store, store.rows("train"))
        single, double = space.encode(x), copy.deepcopy(space).double().encode(x)
        for name in DIMS:
            assert float((single[name].double() * double[name]).sum(1).min()) > 0.9999


def test_autocast_does_not_round_kernel_features() -> None:
    space, x = fitted(), torch.randn(4, 5)
    expected = space.prepare("image", x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(space.prepare("image", x), expected)


def test_only_the_rows_of_the_landmarks_are_read_to_choose_them() -> None:
    x_nW, asked = torch.randn(40, 3, dtype=torch.float64), []

    def blocks(chosen_n: Any = None) -> Any:
        asked.append(40 if chosen_n is None else len(chosen_n))
        yield from (x_nW if chosen_n is None else x_nW[torch.from_numpy(chosen_n)]).split(7)

    basis = kernel_basis(blocks, 40, name="x", landmarks=9)
    assert asked == [9, 40, 40]
    chosen = np.sort(np.random.default_rng(0).choice(40, 9, replace=False, shuffle=False))
    assert torch.equal(basis.landmarks_LW, x_nW[torch.from_numpy(chosen)])


def test_save_and_load(tmp_path: Path) -> None:
    space = fitted(landmarks=12, regularization=0.5, dropout=0.25)
    assert space.kernel_sizes == {"image": [12, 12], "text": [12, 12]}
    space.save_pretrained(tmp_path)
    loaded = ua.Space.from_pretrained(tmp_path)
    assert loaded.get_config() == space.get_config()
    x = {name: torch.randn(7, dim) for name, dim in DIMS.items()}
    for name, z in space.encode(x).items():
        assert torch.equal(z, loaded.encode(x)[name])
        torch.testing.assert_close(z.norm(dim=1), torch.ones(7))
    assert not any("features" in name for name, _ in space.named_parameters())


def test_absent_rows_are_zero_and_have_no_gradient() -> None:
    space = fitted()
    x = torch.full((2, 5), torch.nan)
    x[0] = 1.0
    z = space({"image": x}, present={"image": torch.tensor([True, False])})["image"]
    z.sum().backward()
    assert torch.equal(z[1], torch.zeros(3))
    assert all(bool(p.grad.isfinite().all()) for p in space.parameters() if p.grad is not None)


def test_a_space_without_landmarks_says_how_to_get_them() -> None:
    space = ua.Space(DIMS, dim=3, head="kernel")
    assert space.kernel_sizes is None
    with pytest.raises(ConfigError, match="call `fit_normalizer` with training rows first"):
        space.encode({"image": torch.randn(2, 5)})


def test_fitting_again_keeps_heads_of_the_same_size() -> None:
    space, store = fitted(), make_store()
    before = space.heads[0].state_dict()["1.weight"].clone()
    space.fit_normalizer(store, store.rows("train"))
    assert torch.equal(space.heads[0].state_dict()["1.weight"], before)
    space.fit_normalizer(store, store.rows("train")[:20])
    assert space.heads[0].state_dict()["1.weight"].shape == (3, 19)


def test_frozen_modalities_beside_kernel_heads() -> None:
    store = make_store()
    space = ua.Space(DIMS, dim=3, head="kernel", frozen={"text": "whiten"}).fit_normalizer(store, store.rows("train"))
    assert space.kernel_sizes == {"image": [30, 29]}
    assert space.prepared_dims == {"image": 29, "text": 3}
    assert space.encode({"text": torch.randn(2, 4)})["text"].shape == (2, 3)


def test_invalid_options(tmp_path: Path) -> None:
    for options, message in (
        ({"regularization": 0}, "regularization must be a positive"),
        ({"landmarks": 1}, "landmarks must be"),
        ({"kernel_sizes": {"image": [3, 2]}}, "kernel_sizes lacks 'text'"),
        ({"kernel_sizes": {"image": [3], "text": [3, 2]}}, r"kernel_sizes\['image'\] must be"),
        ({"kernel_sizes": 3}, "kernel_sizes must map"),
    ):
        with pytest.raises(ConfigError, match=message):
            ua.Space(DIMS, head="kernel", **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'image' has no kernel features"):
        set_kernel_basis(ua.Space(DIMS), "image", None)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="all 4 training rows of 'x' are equal"):
        kernel_basis(lambda _=None: iter([torch.zeros(4, 2, dtype=torch.float64)]), 4, name="x", landmarks=9)
    space = fitted()
    space.save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace("29", "28"))
    with pytest.raises(CheckpointError):
        ua.Space.from_pretrained(tmp_path)
