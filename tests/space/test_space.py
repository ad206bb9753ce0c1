"""Test the shapes, the presence and the errors when a space maps features to unit vectors."""

import numpy as np
import pytest
import torch

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.space import Space

DIMS = {"image": 6, "text": 4}


def features(rows: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(rows, dim, generator=generator) for name, dim in DIMS.items()}


@pytest.fixture
def space() -> Space:
    torch.manual_seed(0)
    return Space(DIMS, dim=5, hidden=7)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("inputs", ["standardize", "unit", "none"])
def test_rows_have_length_one(head: str, inputs: str) -> None:
    out = Space(DIMS, dim=5, hidden=7, head=head, input_norm=inputs).encode(features())  # type: ignore[arg-type]
    for z in out.values():
        assert z.shape == (9, 5)
        assert z.dtype == torch.float32
        assert not z.requires_grad
        torch.testing.assert_close(z.norm(dim=1), torch.ones(9))


def test_a_subset_of_modalities_in_any_order(space: Space) -> None:
    x = features()
    both = space.encode({"text": x["text"], "image": x["image"]})
    assert list(both) == ["text", "image"]
    assert torch.equal(space.encode({"text": x["text"]})["text"], both["text"])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_arrays_and_tensors_agree(space: Space, dtype: type) -> None:
    x = (features()["image"] * 10).numpy().astype(dtype)
    by_array = space.encode({"image": x})["image"]
    assert torch.equal(by_array, space.encode({"image": torch.from_numpy(x)})["image"])


def test_read_only_arrays(space: Space) -> None:
    x = features()["image"].numpy()
    x.flags.writeable = False
    space.encode({"image": x})


def test_batch_size_changes_nothing(space: Space) -> None:
    whole = space.encode(features())
    for name, z in space.encode(features(), batch_size=2).items():
        torch.testing.assert_close(z, whole[name])


def test_no_rows(space: Space) -> None:
    assert space.encode({"image": torch.zeros(0, 6)})["image"].shape == (0, 5)


def test_absent_rows_are_zero(space: Space) -> None:
    x = features()
    present = {"image": torch.arange(9) % 3 != 0}
    clean = space.encode(x, present=present)
    x["image"][~present["image"]] = torch.nan
    dirty = space.encode(x, present={"image": present["image"].numpy()})
    assert torch.equal(clean["image"], dirty["image"])
    assert bool((dirty["image"][~present["image"]] == 0).all())


def test_no_gradient_through_absent_rows(space: Space) -> None:
    x = features()
    present = {"image": torch.arange(9) != 4}
    x["image"][4] = torch.nan
    x["image"].requires_grad_()
    out = space(x, present=present)["image"]
    assert bool((out[4] == 0).all())
    out.square().sum().backward()
    assert bool((x["image"].grad[4] == 0).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in space.heads[0].parameters())


def test_encode_ignores_dropout_and_keeps_the_mode() -> None:
    space = Space(DIMS, dim=5, dropout=0.5).train()
    space.heads[0].eval()
    first, second = space.encode(features()), space.encode(features())
    assert torch.equal(first["image"], second["image"])
    assert space.training
    assert not space.heads[0].training
    assert space.heads[1].training


def test_names_of_module_attributes() -> None:
    """A submodule with one of these names would cause an error or hide a method of the module."""
    space = Space({"type": 3, "rna.seq": 3, "forward": 3})
    assert set(space.encode({name: torch.randn(2, 3) for name in space.modalities})) == {"type", "rna.seq", "forward"}


def test_unknown_modality(space: Space) -> None:
    with pytest.raises(ConfigError, match="unknown modality 'audio' in `inputs`; this space has 'image', 'text'"):
        space.encode({"audio": torch.zeros(2, 3)})
    with pytest.raises(ConfigError, match="unknown modality 'audio' in `present`"):
        space.encode(features(), present={"audio": torch.ones(9, dtype=torch.bool)})
    with pytest.raises(ConfigError, match="'audio'"):
        space({"audio": torch.zeros(2, 3)})


def test_wrong_shapes_and_types(space: Space) -> None:
    for shape in ((9, 5), (9,), (9, 6, 1)):
        with pytest.raises(ShapeError, match=r"'image' has shape .*expected \(B, 6\)"):
            space.encode({"image": torch.zeros(shape)})
    for bad in (np.zeros((2, 6), dtype=bool), np.array([["a"] * 6]), np.zeros((2, 6), dtype=complex)):
        with pytest.raises(ShapeError, match="'image' has dtype"):
            space.encode({"image": bad})
    for mask in (torch.ones(8, dtype=torch.bool), torch.ones(9)):
        with pytest.raises(ShapeError, match=r"present\['image'\]"):
            space.encode(features(), present={"image": mask})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_rows_are_named(space: Space, value: float) -> None:
    x = features()
    x["text"][7, 2] = value
    with pytest.raises(NonFiniteError, match=f"'text' row 7 holds {value} at column 2"):
        space.encode(x, batch_size=3)


def test_a_row_without_direction_is_named() -> None:
    x = features()
    x["text"][5] = 0
    with pytest.raises(NonFiniteError, match="'text' row 5 maps to an embedding that has norm zero"):
        Space(DIMS, head="linear", input_norm="unit").encode(x)


def test_huge_features() -> None:
    out = Space(DIMS, head="linear", input_norm="unit").encode({"text": features()["text"] * 1e37})
    torch.testing.assert_close(out["text"].norm(dim=1), torch.ones(9))


def test_invalid_options() -> None:
    cases: list[tuple[dict, str]] = [
        ({"head": "deep"}, "unknown head 'deep'"),
        ({"input_norm": "whiten"}, "unknown input_norm 'whiten'"),
        ({"dim": 0}, "dim must be"),
        ({"dim": 10**30}, "dim must be"),
        ({"hidden": True}, "hidden must be"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"dims": {}}, "at least one modality"),
        ({"dims": {"image": 0}}, "dim of 'image'"),
        ({"dims": {1: 3}}, "must be strings"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigError, match=message):
            Space(**({"dims": DIMS} | options))


def test_a_head_larger_than_the_memory_raises() -> None:
    for options in ({"hidden": 1 << 20}, {"head": "linear"}):
        with pytest.raises(ConfigError, match=r"head from dim 1,048,576 to dim 1,048,576 needs .* GB of memory"):
            Space({"image": 1 << 20}, dim=1 << 20, **options)


def test_a_notebook_shows_modalities() -> None:
    text = Space({"image": 6, "<b>": 1500}, dim=4, frozen={"image": "whiten"})._repr_html_()
    assert "image</th><td>6</td><td>whiten</td>" in text
    assert "&lt;b&gt;</th><td>1,500</td><td>mlp</td>" in text


def test_batch_size_is_checked(space: Space) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        space.encode(features(), batch_size=0)


# --- input statistics ---------------------------------------------------------------------------------------------


def store_of(text: np.ndarray, present: np.ndarray) -> EmbeddingStore:
    image = np.random.default_rng(2).normal(5, 3, size=(len(text), 6))
    split = ["train"] * (len(text) - 3) + ["test"] * 3
    return EmbeddingStore.from_arrays({"image": image, "text": text}, present={"text": present}, split=split)


def test_statistics_use_present_training_rows_only() -> None:
    rng = np.random.default_rng(3)
    text = rng.normal(-7, 2, size=(40, 4))
    present = np.arange(40) % 4 != 1
    text[~present] = np.nan
    store = store_of(text, present)
    rows = store.rows("train")
    space = Space(DIMS).fit_normalizer(store, rows)
    used = text[rows][present[rows]]
    torch.testing.assert_close(space.features[1].mean, torch.tensor(used.mean(0)).float())
    torch.testing.assert_close(space.features[1].std, torch.tensor(used.std(0)).float())
    x = space.prepare("text", torch.tensor(used).float())
    torch.testing.assert_close(x.mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_a_constant_column_becomes_zeros() -> None:
    text = np.random.default_rng(4).normal(size=(40, 4)) * 1e-3
    text[:, 2] = 123.456
    store = store_of(text, np.ones(40, dtype=bool))
    space = Space(DIMS).fit_normalizer(store, store.rows("train"))
    x = space.prepare("text", torch.tensor(text).float())
    assert float(x[:, 2].abs().max()) < 1e-3
    assert float(x[:, 0].std()) == pytest.approx(1, abs=0.2)


def test_a_modality_without_training_rows() -> None:
    present = np.arange(40) >= 37
    store = store_of(np.ones((40, 4)), present)
    with pytest.raises(DataError, match="'text' is absent from all 37 training rows"):
        Space(DIMS).fit_normalizer(store, store.rows("train"))


def test_a_store_of_another_dim() -> None:
    store = store_of(np.ones((40, 3)), np.ones(40, dtype=bool))
    with pytest.raises(ShapeError, match="'text' has dim 3 in the store, but dim 4 in the space"):
        Space(DIMS).fit_normalizer(store, store.rows("train"))
