"""Test masked GCCA against a dense float64 reference, and in special cases."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import unialign as ua
from reference.closed_form import masked_gcca
from unialign.closed_form import _eigenproblem, gcca, ridge
from unialign.closed_form._modality import linear_basis
from unialign.closed_form._training_rows import selection_rows
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.space import kernel_basis

TRAIN, TEST = 60, 25
DIMS = {"image": 7, "text": 5, "audio": 90}


def columns(seed: int = 0, items: int = TRAIN + TEST) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(items, 4))
    return {
        name: (np.tanh(latent @ rng.normal(size=(4, dim))) + 0.2 * rng.normal(size=(items, dim)) + 3).astype(np.float32)
        for name, dim in DIMS.items()
    }


def masks(seed: int = 1, items: int = TRAIN + TEST) -> dict[str, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    return {"image": rng.random(items) > 0.1, "text": rng.random(items) > 0.3, "audio": rng.random(items) > 0.4}


def store_of(x: dict[str, Any], present: dict[str, NDArray[np.bool_]] | None = None, **options: Any) -> EmbeddingStore:
    options.setdefault("split", ["train"] * TRAIN + ["test"] * (len(next(iter(x.values()))) - TRAIN))
    return EmbeddingStore.from_arrays(x, present=present or {}, **options)


def similarities(embeddings: dict[str, Any]) -> NDArray[np.float64]:
    """Return the cosines between all rows of all modalities, since cosines do not depend on rotations and signs."""
    z = np.concatenate([np.asarray(embeddings[name], dtype=np.float64) for name in DIMS])
    return np.asarray(z @ z.T)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("kernel", "power"), [("linear", 0.0), ("linear", 1.0), ("rbf", 0.0), ("rbf", 0.5)])
def test_gcca_equals_the_dense_reference(kernel: Any, power: float, missing: bool) -> None:
    x, present = columns(), masks()
    store = store_of(x, present if missing else None)
    if not missing:
        present = {name: np.ones(TRAIN + TEST, dtype=bool) for name in DIMS}
    used = np.flatnonzero(sum(present[name][:TRAIN].astype(int) for name in DIMS) >= 2)
    assert not missing or len(used) < TRAIN
    expected, values = masked_gcca(
        {name: x[name][used].astype(np.float64) for name in DIMS},
        {name: present[name][used] for name in DIMS},
        {name: x[name][TRAIN:].astype(np.float64) for name in DIMS},
        kernel=kernel,
        regularization=0.02,
        power=power,
        dim=6,
    )
    space = gcca(store, kernel=kernel, dim=6, regularization=0.02, spectrum_power=power)
    found = space.encode({name: x[name][TRAIN:] for name in DIMS})
    np.testing.assert_allclose(similarities(found), similarities(expected), atol=2e-5)
    assert values[0] <= 1 + 1e-9
    facts = space.metadata["closed_form"]
    assert facts["rows"] == len(used)
    assert facts["absent"] == {name: int((~present[name][used]).sum()) for name in DIMS}
    assert facts["rows_with_one_modality"] == (sum(present[name][:TRAIN].astype(int) for name in DIMS) == 1).sum()


def test_item_side_and_component_side_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    x = columns()
    store = store_of(x, masks())
    for kernel in ("linear", "rbf"):
        spaces = []
        for most in (0, 5000):
            monkeypatch.setattr("unialign.closed_form._eigenproblem._solves_items", lambda *_, most=most: most > 0)
            monkeypatch.setattr("unialign.closed_form._item_blocks._BLOCK_ITEMS", 7)
            monkeypatch.setattr("unialign.space._prepare._BLOCK_ROWS", 11 if most == 0 else 1024)
            spaces.append(gcca(store, kernel=kernel, dim=5, regularization=0.05, spectrum_power=0.5))
        first, second = (similarities(space.encode(x)) for space in spaces)
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_smaller_matrix_is_solved(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    original = _eigenproblem.leading_eigenvectors

    def record(matrix: torch.Tensor, **options: Any) -> Any:
        solved.append(len(matrix))
        return original(matrix, **options)

    monkeypatch.setattr(_eigenproblem, "leading_eigenvectors", record)
    for kernel, smaller in (("rbf", TRAIN), ("linear", sum(min(TRAIN - 1, dim) for dim in DIMS.values()))):
        gcca(store_of(columns()), kernel=kernel, dim=3, regularization=0.1, spectrum_power=0)  # type: ignore[arg-type]
        assert solved.pop() == min(smaller, TRAIN)
    assert _eigenproblem._solves_items(6000, 6000)
    assert not _eigenproblem._solves_items(6001, 6000)


def test_landmarks_of_all_rows_are_exact_and_fewer_approximate() -> None:
    x = columns()
    store = store_of(x)
    spaces = {
        most: gcca(store, dim=5, regularization=0.05, spectrum_power=0, landmarks=most) for most in (TRAIN, 59, 30)
    }
    exact = similarities(spaces[TRAIN].encode(x))
    assert spaces[TRAIN].kernel_sizes == {name: [TRAIN, TRAIN - 1] for name in DIMS}
    assert {sizes[0] for sizes in (spaces[30].kernel_sizes or {}).values()} == {30}
    near, far = (np.abs(similarities(spaces[most].encode(x)) - exact).mean() for most in (59, 30))
    assert near < 0.03
    assert near < far < 0.2


def test_automatic_landmarks_are_all_rows_or_a_random_part(monkeypatch: pytest.MonkeyPatch) -> None:
    x = columns()
    options: dict[str, Any] = {"dim": 5, "regularization": 0.05, "spectrum_power": 0}
    assert gcca(store_of(x), **options).kernel_sizes == {name: [TRAIN, TRAIN - 1] for name in DIMS}
    monkeypatch.setattr("unialign.space._kernel_basis._MOST_EXACT_ROWS", 50)
    monkeypatch.setattr("unialign.space._kernel_basis._LANDMARKS", 20)
    space = gcca(store_of(x), **options)
    assert space.kernel_sizes == {name: [20, 20] for name in DIMS}
    assert space.get_config()["landmarks"] == "auto"


def test_a_wide_gaussian_kernel_has_the_components_of_a_linear_kernel() -> None:
    x_nW = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_nW -= x_nW.mean(0)
    wide = 1e6
    rbf = kernel_basis(lambda _=None: iter([x_nW]), 40, name="x", landmarks=40, bandwidth=wide)
    linear = linear_basis(lambda _=None: iter(x_nW.split(9)), 40, 6, name="x")
    torch.testing.assert_close(rbf.spectrum_r[:6] * wide, linear.spectrum_r, rtol=1e-4, atol=0)
    assert float(rbf.spectrum_r[6]) < 1e-4 * float(rbf.spectrum_r[5])
    cosines_6 = (rbf.vectors(x_nW)[:, :6] * linear.vectors(x_nW)).sum(0).abs()
    torch.testing.assert_close(cosines_6, torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        linear_basis(lambda _=None: iter([x_nW[:5]]), 5, 6, name="x").spectrum_r, _spectrum(x_nW[:5])
    )


def _spectrum(x_nW: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(x_nW) ** 2


def test_the_stored_map_equals_the_float64_map() -> None:
    x = columns()
    space = gcca(store_of(x), dim=5, regularization=1e-3, spectrum_power=0)
    single = space.encode(x)
    double = space.double().encode({name: x[name].astype(np.float64) for name in DIMS})
    for name in DIMS:
        torch.testing.assert_close(single[name].double(), double[name], atol=2e-5, rtol=0)


def test_settings_are_chosen_on_the_validation_split() -> None:
    x = columns()
    split = ["train"] * 50 + ["val"] * 20 + ["test"] * 15
    labels = np.arange(TRAIN + TEST) % 3
    store = store_of(x, split=split, labels=labels)
    space = gcca(store, kernel="linear", dim=6)
    facts = space.metadata["closed_form"]
    assert facts["selection"]["source"] == "validation split"
    assert facts["selection"]["items"] == 20
    metrics = ua.evaluate(store, space, split="val").metrics
    for name, value in facts["selection"]["metrics"].items():
        assert metrics[name] == pytest.approx(value, abs=1e-6), name
    best = sum(np.log(value) for value in facts["selection"]["metrics"].values())
    for regularization in (1.0,):
        other = gcca(store, kernel="linear", dim=6, regularization=regularization, spectrum_power=1)
        found = ua.evaluate(store, other, split="val").metrics
        assert sum(np.log(found[name]) for name in ("recall@1", "joint_recall@1", "label_map")) <= best + 1e-9


def test_without_validation_rows_training_groups_are_held_out() -> None:
    store = store_of(columns(), groups=np.arange(TRAIN + TEST) // 2)
    held_out = selection_rows(store, tuple(DIMS), store.rows("train"), seed=0)
    assert held_out is not None
    assert set(held_out.score_N // 2).isdisjoint(held_out.fit_N // 2)
    assert sorted([*held_out.score_N, *held_out.fit_N]) == list(range(TRAIN))
    assert 7 <= len(held_out.score_N) <= 11
    space = gcca(store, kernel="linear", dim=6, regularization=0.1)
    facts = space.metadata["closed_form"]
    assert facts["selection"]["source"] == "random 15% of the training rows, by groups"
    assert facts["rows"] == TRAIN


def test_equal_arguments_give_equal_spaces_and_do_not_change_the_random_state(tmp_path: Any) -> None:
    store = store_of(columns(), masks())
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = gcca(store, dim=5, regularization=0.01, spectrum_power=0.5)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(4)
    second = gcca(store, dim=5, regularization=0.01, spectrum_power=0.5)
    assert first.get_config() == second.get_config()
    assert first.metadata == second.metadata
    first.save_pretrained(tmp_path / "space")
    loaded = ua.Space.from_pretrained(tmp_path / "space")
    assert loaded.metadata == first.metadata
    x = columns(seed=5)
    for name in DIMS:
        assert torch.equal(first.encode(x)[name], second.encode(x)[name])
        assert torch.equal(first.encode(x)[name], loaded.encode(x)[name])


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_two_items_and_more_dimensions_than_directions(kernel: Any) -> None:
    x = {name: rows[:6] for name, rows in columns().items()}
    store = EmbeddingStore.from_arrays(x, split=["train"] * 3 + ["test"] * 3)
    space = gcca(store, kernel=kernel, dim=16)
    facts = space.metadata["closed_form"]
    assert 1 <= facts["directions"] <= 3
    assert facts["selection"]["source"] == "defaults, since no rows could be held out"
    for z in space.encode({name: rows[3:] for name, rows in x.items()}).values():
        assert torch.count_nonzero(z, dim=1).max() <= facts["directions"]
        torch.testing.assert_close(z.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_a_constant_modality_is_rejected(kernel: Any) -> None:
    x = columns() | {"text": np.full((TRAIN + TEST, 5), 2.5, dtype=np.float32)}
    with pytest.raises(DataError, match=r"all \d+ training rows of 'text' are equal.*omit 'text'"):
        gcca(store_of(x), kernel=kernel)


@pytest.mark.parametrize("method", [gcca, ridge])
def test_rows_that_differ_only_by_rounding_are_rejected(method: Any) -> None:
    noise = np.random.default_rng(0).normal(size=(TRAIN + TEST, 3))
    x = columns() | {"text": (1 + 1e-7 * noise).astype(np.float32)}
    with pytest.raises(DataError, match=r"all \d+ training rows of 'text' are equal, except for rounding"):
        method(store_of(x), dim=2)
    x["text"] = (1 + 1e-5 * noise).astype(np.float32)
    assert bool(torch.isfinite(method(store_of(x), dim=2, regularization=0.1).encode(x)["text"]).all())


@pytest.mark.parametrize("method", [gcca, ridge])
def test_a_head_with_one_weight_is_finite(method: Any) -> None:
    x = {"image": columns()["image"][:, :1], "text": columns()["text"]}
    options = {"kernel": "linear"} if method is gcca else {}
    space = method(store_of(x), dim=1, regularization=0.1, **options)
    sizes = [parameter.abs().max() for parameter in space.parameters()]
    torch.testing.assert_close(sizes[0], torch.tensor(3**-0.5))
    assert bool(torch.isfinite(torch.stack(sizes)).all())
    kernel = gcca(EmbeddingStore.from_arrays({name: rows[:2] for name, rows in x.items()}), dim=1)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in kernel.parameters())


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squared_distances_that_float32_cannot_hold_are_rejected(scale: float) -> None:
    x = {name: (rows * np.float32(scale)).astype(np.float32) for name, rows in columns().items()}
    with pytest.raises(DataError, match=r"float32 cannot hold the squared distances of 'image'.*standardize"):
        gcca(store_of(x), dim=3, regularization=0.1, spectrum_power=0, input_norm="none")
    space = gcca(store_of(x), dim=3, regularization=0.1, spectrum_power=0)
    assert bool(torch.isfinite(space.encode(x)["image"]).all())


def test_equal_landmarks_are_not_called_all_training_rows() -> None:
    x = columns()
    x["text"][: TRAIN - 1] = x["text"][0]
    with pytest.raises(DataError, match=r"3 random rows of 60 training rows, are equal.*use more landmarks"):
        gcca(store_of(x), landmarks=3, regularization=0.1, spectrum_power=0)


def test_mostly_equal_rows_have_a_positive_bandwidth() -> None:
    x = columns()
    x["text"][: TRAIN - 8] = x["text"][0]
    space = gcca(store_of(x), dim=4, regularization=0.01, spectrum_power=0)
    assert all(bool(torch.isfinite(z).all()) for z in space.encode(x).values())


def test_a_modality_without_partners_is_rejected() -> None:
    present = {"audio": np.zeros(TRAIN + TEST, dtype=bool)}
    present["audio"][:1] = True
    with pytest.raises(DataError, match="'audio' is in 1 training row"):
        gcca(store_of(columns(), present))
    # The error names the absent modality, and not the modality without a partner.
    pair = {name: columns()[name] for name in ("image", "audio")}
    with pytest.raises(DataError, match=r"'audio' is in 0 training rows of .*; .* omit 'audio'"):
        gcca(store_of(pair, {"audio": np.zeros(TRAIN + TEST, dtype=bool)}))


def test_values_that_float32_cannot_hold_are_rejected() -> None:
    x: dict[str, Any] = {name: rows.astype(np.float64) for name, rows in columns().items()}
    x["text"][4, 2] = 1e300
    with pytest.raises(NonFiniteError, match="'text' is not finite in float32"):
        gcca(store_of(x))
    x["text"][4, 2], x["text"][53, 1] = 0, 1e300
    with pytest.raises(NonFiniteError, match=r"'text' is not finite in float32.* in row 53 of the store"):
        gcca(store_of(x, split=["train"] * 50 + ["val"] * 20 + ["test"] * 15))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "cosine"}, "unknown kernel 'cosine'"),
        ({"dim": 0}, "dim must be"),
        ({"landmarks": 1}, "landmarks must be"),
        ({"regularization": 0}, "regularization must be 'auto' or a positive"),
        ({"spectrum_power": -1}, "spectrum_power must be"),
        ({"modalities": ["image", "txet"]}, "unknown modality 'txet'.*did you mean 'text'"),
        ({"modalities": ["image"]}, "at least two distinct modalities"),
        ({"modalities": "image"}, "must be a list"),
        ({"kernel": "linear", "input_norm": "unit"}, "needs input_norm='standardize'"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gcca(store_of(columns()), **options)


@pytest.mark.slow
def test_kernel_gcca_on_the_shipped_data() -> None:
    """R@1 and joint R@1 must exceed limits slightly below the measured values (15.2, 32.5, 43.6 and 66.8 %)."""
    emoji, digits = ua.data.load_dataset("emoji"), ua.data.load_dataset("digits")
    space = gcca(emoji)
    facts = space.metadata["closed_form"]
    assert (facts["regularization"], facts["spectrum_power"]) == (0.001, 0.0)
    for store, found, recall, joint, linear in (
        (emoji, space, 0.145, 0.31, (1.0, 0.0)),
        (digits, gcca(digits, regularization=1e-4, spectrum_power=1), 0.43, 0.66, (0.01, 1.0)),
    ):
        metrics = ua.evaluate(store, found).metrics
        assert metrics["recall@1"] > recall
        assert metrics["joint_recall@1"] > joint
        other = gcca(store, kernel="linear", regularization=linear[0], spectrum_power=linear[1])
        assert metrics["recall@1"] > ua.evaluate(store, other).metrics["recall@1"]
