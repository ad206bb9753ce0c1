"""Test pairwise ridge regression against a direct float64 computation, and in special cases."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import unialign as ua
from unialign.closed_form import ridge
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError

DIMS = {"image": 6, "text": 4, "audio": 3}
TRAIN, ITEMS = 40, 60


def make_store(*, missing: bool) -> tuple[EmbeddingStore, dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(2)
    latent = rng.normal(size=(ITEMS, 3))
    x = {name: (latent @ rng.normal(size=(3, dim)) + rng.normal(size=(ITEMS, dim)) + 2) for name, dim in DIMS.items()}
    x = {name: rows.astype(np.float32) for name, rows in x.items()}
    present = {name: np.ones(ITEMS, dtype=bool) for name in DIMS}
    if missing:
        present = {name: rng.random(ITEMS) > 0.3 for name in DIMS}
    return EmbeddingStore.from_arrays(x, present=present, split=["train"] * TRAIN + ["test"] * 20), x, present


def expected_cosines(
    x: dict[str, Any], present: dict[str, Any], regularization: float, dim: int
) -> tuple[NDArray[np.float64], int]:
    used = np.flatnonzero(sum(present[name][:TRAIN].astype(int) for name in DIMS) >= 2)
    mask = {name: present[name][used] for name in DIMS}
    rows, test = {}, {}
    for name in DIMS:
        known = x[name][used][mask[name]].astype(np.float64)
        rows[name] = np.where(mask[name][:, None], (x[name][used] - known.mean(0)) / known.std(0), 0)
        test[name] = (x[name][TRAIN:] - known.mean(0)) / known.std(0)
    targets = np.concatenate([rows[name] / np.sqrt(dim_) for name, dim_ in DIMS.items()], 1)
    axes = np.linalg.svd(targets, full_matrices=False)[2][:dim].T
    embedded = []
    for m in DIMS:
        parts = []
        for n, width in DIMS.items():
            both = mask[m] & mask[n]
            a, b = rows[m][both], rows[n][both]
            fit = np.linalg.solve(a.T @ a + regularization * len(a) * np.eye(a.shape[1]), a.T @ b)
            parts.append((test[m] if m == n else test[m] @ fit) / np.sqrt(width))
        z = np.concatenate(parts, 1) @ axes
        embedded.append(z / np.linalg.norm(z, axis=1, keepdims=True))
    z = np.concatenate(embedded)
    return z @ z.T, len(used)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dim", [4, 13])
def test_ridge_equals_the_direct_computation(dim: int, missing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    store, x, present = make_store(missing=missing)
    monkeypatch.setattr("unialign.closed_form._item_blocks._BLOCK_ITEMS", 7)
    space = ridge(store, dim=dim, regularization=0.2)
    found = space.encode({name: x[name][TRAIN:] for name in DIMS})
    z = np.concatenate([np.asarray(found[name], dtype=np.float64) for name in DIMS])
    expected, rows = expected_cosines(x, present, 0.2, dim)
    np.testing.assert_allclose(z @ z.T, expected, atol=1e-5)
    facts = space.metadata["closed_form"]
    assert (facts["rows"], facts["pairs_without_rows"]) == (rows, [])
    assert space.head == "linear"


def test_pairs_that_no_item_has_are_stated() -> None:
    _, x, _ = make_store(missing=False)
    present = {"text": np.arange(ITEMS) % 2 == 0, "audio": np.arange(ITEMS) % 2 == 1}
    store = EmbeddingStore.from_arrays(x, present=present, split=["train"] * TRAIN + ["test"] * 20)
    space = ridge(store, dim=5, regularization=0.2)
    assert space.metadata["closed_form"]["pairs_without_rows"] == ["text, audio"]
    assert ua.evaluate(store, space).metrics["recall@1"] > 0.1


def test_the_regularization_is_chosen_on_held_out_rows() -> None:
    store, _, _ = make_store(missing=True)
    facts = ridge(store, dim=5).metadata["closed_form"]
    assert facts["regularization"] in (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
    assert facts["selection"]["items"] >= 2


def test_invalid_data_and_options() -> None:
    store, x, _ = make_store(missing=False)
    constant = EmbeddingStore.from_arrays(x | {"text": np.ones((ITEMS, 4), np.float32)})
    with pytest.raises(DataError, match=r"all \d+ training rows of 'text' are equal"):
        ridge(constant)
    with pytest.raises(ConfigError, match="regularization must be"):
        ridge(store, regularization=-1.0)
    with pytest.raises(DataError, match="store must be an EmbeddingStore"):
        ridge(x)  # type: ignore[arg-type]
