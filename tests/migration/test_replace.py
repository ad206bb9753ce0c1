"""Test the replacement of the encoder of one modality of a space."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.data import EmbeddingStore, Items
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.space import Space

ITEMS, PAIRS = 400, 250


def features(seed: int = 0, items: int = ITEMS) -> dict[str, Any]:
    """Return old and new features of the images of items with a common latent, and features of their texts."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(items, 6))
    mixes = {"old": 12, "new": 20, "text": 9}
    return {
        name: (latent @ rng.normal(size=(6, dim)) + 0.2 * rng.normal(size=(items, dim)) + 2).astype(np.float32)
        for name, dim in mixes.items()
    }


@pytest.fixture(params=["mlp", "linear", "kernel", "unit"])
def space(request: pytest.FixtureRequest) -> Space:
    torch.manual_seed(0)
    kinds: dict[str, dict[str, Any]] = {"unit": {"head": "mlp", "input_norm": "unit"}}
    found = Space({"image": 12, "text": 9}, dim=5, **kinds.get(request.param, {"head": request.param}))
    x = features()
    store = EmbeddingStore.from_arrays({"image": x["old"], "text": x["text"]}, split=["train"] * ITEMS)
    return found.fit_normalizer(store, store.rows("train")).eval()


def reference(x_nW: Any, y_nD: Any, penalty: float, query_QW: Any) -> Any:
    """Solve the normal equations of ridge regression in float64, and restore the lengths of the offsets."""
    mean, std = x_nW.mean(0), x_nW.std(0)
    x, offset = (x_nW - mean) / std, y_nD - y_nD.mean(0)
    weight = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ offset)
    d = (query_QW - mean) / std @ weight
    z = y_nD.mean(0) + np.linalg.norm(offset, axis=1).mean() * d / np.linalg.norm(d, axis=1, keepdims=True)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_new_embeddings_equal_the_formula_and_others_are_bitwise_equal(space: Space, tmp_path: Path) -> None:
    x = features()
    state = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    found = ua.replace_encoder(space, "image", old=x["old"][:PAIRS], new=x["new"][:PAIRS], items=ITEMS)
    assert all(torch.equal(tensor, space.state_dict()[name]) for name, tensor in state.items())
    assert found.space.dims == {"image": 20, "text": 9}
    y = space.encode({"image": x["old"][:PAIRS]})["image"].double().numpy()
    expected = reference(x["new"][:PAIRS].astype(float), y, found.penalty, x["new"].astype(float))
    z = found.space.encode({"image": x["new"]})["image"]
    np.testing.assert_allclose(z.numpy(), expected, atol=2e-5)
    text = space.encode({"text": x["text"]})["text"]
    assert torch.equal(found.space.encode({"text": x["text"]})["text"], text)
    found.space.save_pretrained(tmp_path / "space")
    loaded = Space.from_pretrained(tmp_path / "space")
    assert loaded.linear == ("image",)
    assert torch.equal(loaded.encode({"image": x["new"]})["image"], z)
    assert torch.equal(loaded.encode({"text": x["text"]})["text"], text)
    (entry,) = loaded.metadata["replaced"]
    assert entry["overlap"] == found.overlap.to_dict()
    card = (tmp_path / "space" / "README.md").read_text("utf-8")
    assert f"| image | not recorded | not recorded | {PAIRS} | {found.overlap.estimate:.3f} (" in card


def test_the_interval_holds_the_overlap_of_other_items() -> None:
    """For each of ten random samples, the other items are queries in the index of all items."""
    items = 1500
    torch.manual_seed(0)
    x = features(items=items)
    space = Space({"image": 12, "text": 9}, dim=5, head="linear").eval()
    index = space.encode({"image": x["old"]})["image"]
    inside = 0
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(items)
        pairs, rest = order[:PAIRS], order[PAIRS:]
        found = ua.replace_encoder(space, "image", old=x["old"][pairs], new=x["new"][pairs], items=items)
        z = found.space.encode({"image": x["new"][rest]})["image"]
        true, mapped = index[rest] @ index.T, z @ index.T
        for scores in (true, mapped):
            scores[torch.arange(len(rest)), torch.from_numpy(rest)] = -torch.inf
        first, second = true.topk(10).indices, mapped.topk(10).indices
        overlap = float((first[:, :, None] == second[:, None, :]).any(2).double().mean())
        inside += found.overlap.low <= overlap <= found.overlap.high
        assert abs(found.overlap.estimate - overlap) < 0.1
    assert inside >= 8


def test_stores_are_joined_by_ids_or_by_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = features()
    space = Space({"image": 12, "text": 9}, dim=5, head="linear").eval()
    kept = np.arange(ITEMS) % 5 != 0
    whole = ua.replace_encoder(space, "image", old=x["old"][kept], new=x["new"][kept], items=ITEMS)
    old = EmbeddingStore.from_arrays({"image": x["old"]}, ids=np.arange(ITEMS))
    order = np.random.default_rng(0).permutation(np.flatnonzero(kept))
    shuffled = EmbeddingStore.from_arrays({"image": x["new"][order]}, ids=order)
    damaged = x["new"].copy()
    damaged[~kept] = np.nan
    # Text ids are joined by their text: their numbers follow the order of each store.
    names = np.array([f"item{i}" for i in range(ITEMS)])
    text_old = EmbeddingStore.from_arrays({"image": x["old"]}, ids=names)
    text_new = EmbeddingStore.from_arrays({"image": x["new"][order]}, ids=names[order])
    by_text = ua.replace_encoder(space, "image", old=text_old, new=text_new)
    by_number = ua.replace_encoder(space, "image", old=old, new=shuffled)
    assert by_text.cosine == pytest.approx(by_number.cosine, abs=1e-6)
    others = EmbeddingStore.from_arrays({"image": x["new"]}, ids=np.char.add("other", names))
    with pytest.raises(DataError, match="no ids in common, such as"):
        ua.replace_encoder(space, "image", old=text_old, new=others)
    masked = EmbeddingStore.from_arrays({"image": damaged}, present={"image": kept}, ids=np.arange(ITEMS))
    for new in (shuffled, masked):
        found = ua.replace_encoder(space, "image", old=old, new=new)
        assert (found.pairs, found.items) == (int(kept.sum()), ITEMS)
        torch.testing.assert_close(
            found.space.encode({"image": x["new"][kept]}), whole.space.encode({"image": x["new"][kept]})
        )


def shuffled_pair() -> tuple[Space, EmbeddingStore, EmbeddingStore, Any]:
    """Return a space, a store of old features, and one of new features in another order; ids are texts."""
    torch.manual_seed(0)
    x = features()
    order = np.random.default_rng(1).permutation(ITEMS)
    ids = np.array([f"item {row}" for row in range(ITEMS)])
    old = EmbeddingStore.from_arrays({"image": x["old"]}, ids=ids)
    new = EmbeddingStore.from_arrays({"image": x["new"][order]}, ids=ids[order])
    return Space({"image": 12, "text": 9}, dim=5, head="linear").eval(), old, new, x


def test_text_ids_are_joined_by_value() -> None:
    """Codes of the text ids are 0, 1, ... in both stores."""
    space, old, new, x = shuffled_pair()
    found = ua.replace_encoder(space, "image", old=old, new=new)
    by_row = ua.replace_encoder(space, "image", old=x["old"], new=x["new"])
    assert found.cosine == pytest.approx(by_row.cosine, abs=1e-6)
    z, expected = (one.space.encode({"image": x["new"]})["image"] for one in (found, by_row))
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ids", ["none", "numbered", "unique", "repeated"])
def test_embedded_tables_are_joined_by_ids_or_keys(tmp_path: Path, ids: str) -> None:
    values = {
        "none": [None] * 60,
        "numbered": [None] * 60,
        "unique": [f"i{i}" for i in range(60)],
        "repeated": [f"i{i // 2}" for i in range(60)],
    }
    records = [
        {
            "id": str(i) if ids == "numbered" else f"k{i}",
            "text": f"word {i} {'abc'[i % 3] * (i % 7)}",
            "ids": own,
        }
        for i, own in enumerate(values[ids])
    ]
    items = Items.from_records(records)
    order = np.random.default_rng(0).permutation(60)
    options: dict[str, Any] = {"progress": "none", "device": "cpu", "workers": 0}
    old = ua.embed(items, {"text": "builtin:chars?dim=12"}, tmp_path / "old", **options)
    straight, shuffled = (
        ua.embed(table, {"text": "builtin:bag?dim=8"}, tmp_path / name, **options)
        for name, table in (("straight", items), ("shuffled", items.rows_of(order)))
    )
    torch.manual_seed(0)
    space = Space({"text": 12, "image": 9}, dim=4, head="linear").eval()
    found = [ua.replace_encoder(space, "text", old=old, new=new) for new in (straight, shuffled)]
    assert found[0].pairs == found[1].pairs == 60
    assert found[1].cosine == pytest.approx(found[0].cosine, abs=1e-6)


def test_ids_that_do_not_identify_items_raise() -> None:
    space, old, new, x = shuffled_pair()
    other = EmbeddingStore.from_arrays({"image": x["new"]}, ids=[f"other {row}" for row in range(ITEMS)])
    same = EmbeddingStore.from_arrays({"image": x["new"]}, ids=["x"] * ITEMS)
    none = EmbeddingStore.from_arrays({"image": x["new"]})
    numbers = EmbeddingStore.from_arrays({"image": x["old"]}, ids=np.arange(ITEMS) + 7)
    shorter = EmbeddingStore.from_arrays({"image": x["old"][:300]})
    cases = [
        (old, other, "no ids in common, such as 'item 0' in 'old' and 'other 0' in 'new'"),
        (old, same, "id 'x' repeats in 'new'"),
        (old, none, "'old' has text ids, but 'new' has none, or only row numbers"),
        (numbers, new, "'new' has text ids, but 'old' has integers"),
        (shorter, none, "'old' has 300 items and 'new' 400; without ids"),
    ]
    for first, second, message in cases:
        with pytest.raises(DataError, match=message):
            ua.replace_encoder(space, "image", old=first, new=second)


def test_a_repaired_modality_keeps_its_embeddings() -> None:
    """The targets are the embeddings after an output affine map, which the new head includes."""
    torch.manual_seed(0)
    x = features()
    plain = Space({"image": 12, "text": 9}, dim=5, head="linear").eval()
    layers = {name: (torch.eye(5) * 0.7, torch.full((5,), 0.3)) for name in ("image", "text")}
    space = plain.with_output_affine(layers)
    found = ua.replace_encoder(space, "image", old=x["old"], new=x["new"]).space
    assert found.output_affine == ("image", "text")
    old, new = space.encode({"image": x["old"]})["image"], found.encode({"image": x["new"]})["image"]
    assert float((old * new).sum(1).mean()) > 0.9


def test_invalid_arguments() -> None:
    x = features()
    space = Space({"image": 12, "text": 9}, dim=5, head="linear").eval()
    repeated = EmbeddingStore.from_arrays({"image": x["new"][:300]}, ids=np.arange(300) // 2)
    old = EmbeddingStore.from_arrays({"image": x["old"]}, ids=np.arange(ITEMS))
    damaged = x["new"].copy()
    damaged[7, 3] = np.nan
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ConfigError, "no modality 'video'; it has image, text", {"modality": "video"}),
        (DataError, "'new' 300; without ids, both must list the same items", {"new": x["new"][:300]}),
        (DataError, "15 items with features of both encoders", {"old": x["old"][:15], "new": x["new"][:15]}),
        (DataError, "id 0 repeats in 'new'", {"old": old, "new": repeated}),
        (DataError, "'old' has no column 'image'", {"old": EmbeddingStore.from_arrays({"text": x["text"]})}),
        (ShapeError, r"'image' has shape \(400, 9\)", {"old": x["text"]}),
        (ShapeError, "'new' must be a store or an array of features", {"new": x["new"][0]}),
        (NonFiniteError, "'image' row", {"new": damaged}),
        (ConfigError, "items must be an integer of at least 400", {"items": 10}),
        (ConfigError, "seed", {"seed": -1}),
    ]
    for error, message, options in cases:
        arguments = {"modality": "image", "old": x["old"], "new": x["new"]} | options
        with pytest.raises(error, match=message):
            ua.replace_encoder(space, **arguments)
