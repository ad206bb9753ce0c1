"""Test that a mixture has the items of all sources, and reads their features where they are."""

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unialign.data import EmbeddingStore, Items, Mixture, RowReader, load_dataset, row_blocks
from unialign.embedding import embed
from unialign.errors import ConfigError, DataError, ShapeError


def rows(seed: int, items: int, dim: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).normal(size=(items, dim)).astype(dtype)


def photos(**options: Any) -> EmbeddingStore:
    return EmbeddingStore.from_arrays({"image": rows(0, 5, 3), "text": rows(1, 5, 2)}, name="a", **options)


def sounds(**options: Any) -> EmbeddingStore:
    return EmbeddingStore.from_arrays({"sound": rows(2, 4, 6), "text": rows(3, 4, 2)}, name="b", **options)


def store_of(mixture: Mixture) -> EmbeddingStore:
    assert isinstance(mixture.table, EmbeddingStore)
    return mixture.table


def test_the_table_has_the_rows_of_all_sources_and_the_modalities_of_all() -> None:
    a, b = photos(), sounds(present={"text": np.array([True, False, True, True])}, split=["train"] * 3 + ["val"])
    mixture = Mixture({"p": a, "s": b})
    table = store_of(mixture)
    assert (table.items, len(mixture), table.name) == (9, 9, "p+s")
    assert table.modalities == mixture.modalities == ("image", "text", "sound")
    assert {name: table.dim(name) for name in table.columns} == {"image": 3, "text": 2, "sound": 6}
    expected = {
        "image": np.concatenate([a.array("image"), np.zeros((4, 3))]),
        "text": np.concatenate([a.array("text"), b.array("text")]),
        "sound": np.concatenate([np.zeros((5, 6)), b.array("sound")]),
    }
    for name, array in expected.items():
        np.testing.assert_array_equal(np.asarray(table.array(name)), array)
        np.testing.assert_array_equal(RowReader(table.array(name)).read(np.array([8, 0, 5, 4])), array[[8, 0, 5, 4]])
        blocks = [(part, np.array(block)) for part, block in row_blocks(table.array(name), np.arange(1, 9), 3)]
        for part, block in blocks:
            np.testing.assert_array_equal(block, array[1:][part])
    assert table.present("image").tolist() == [True] * 5 + [False] * 4
    assert table.present("text").tolist() == [True] * 6 + [False, True, True]
    assert table.present("sound").tolist() == [False] * 5 + [True] * 4
    assert table.split.tolist() == [0] * 8 + [1]
    assert mixture.source_of.tolist() == [0] * 5 + [1] * 4
    assert list(mixture.sampling.rows("s")) == [5, 6, 7, 8]
    assert mixture.sampling.sizes(table.rows("train")) == {"p": 5, "s": 3}


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        slice(None),
        slice(1, 4),
        slice(2, 8),
        slice(5, 7),
        slice(8, 2, -2),
        [0, 8, 3],
        [-1, 4],
        (6, 1),
        ([2, 7], 0),
    ],
)
def test_indexing_equals_that_of_an_array(key: Any) -> None:
    column = store_of(Mixture({"p": photos(), "s": sounds()})).array("text")
    np.testing.assert_array_equal(column[key], np.asarray(column)[key])


def test_indexing_by_a_mask_and_out_of_bounds() -> None:
    column = store_of(Mixture({"p": photos(), "s": sounds()})).array("text")
    mask = np.arange(9) % 3 == 0
    np.testing.assert_array_equal(column[mask], np.asarray(column)[mask])
    with pytest.raises(IndexError, match="row 9 is out of bounds for 9 rows"):
        column[[2, 9]]


def test_features_stay_in_their_files_and_reading_rows_needs_no_memory_for_the_others(tmp_path: Path) -> None:
    items, dim = 20_000, 256
    written = {
        name: EmbeddingStore.write(tmp_path / name, {name: rows(0, items, dim), "text": rows(1, items, dim)}).path
        for name in ("image", "sound")
    }
    stores = {name: EmbeddingStore.open(path) for name, path in written.items() if path is not None}
    tracemalloc.start()
    table = store_of(Mixture(stores))
    column: Any = table.array("text")
    found = RowReader(column).read(np.arange(0, 2 * items, 400))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The column has 40 MB; an array that is not a memory map would be counted.
    assert column.nbytes == 2 * items * dim * 4
    assert peak < 2**20
    for part, store in zip(column.parts, stores.values(), strict=True):
        assert np.shares_memory(part, store.array("text"))
    assert np.shares_memory(column[30:50], stores["image"].array("text"))
    np.testing.assert_array_equal(found[:50], stores["image"].array("text")[::400])
    np.testing.assert_array_equal(found[50:], stores["sound"].array("text")[::400])


def test_half_and_single_precision_are_read_as_single() -> None:
    a = EmbeddingStore.from_arrays({"text": rows(0, 3, 2, "float16"), "image": rows(1, 3, 2)})
    b = EmbeddingStore.from_arrays({"text": rows(2, 3, 2), "sound": rows(3, 3, 2)})
    column = store_of(Mixture({"a": a, "b": b})).array("text")
    expected = np.concatenate([a.array("text").astype(np.float32), b.array("text")])
    assert column.dtype == np.float32
    np.testing.assert_array_equal(column[:], expected)
    np.testing.assert_array_equal(column[0:2], expected[:2])
    np.testing.assert_array_equal(RowReader(column).read(np.arange(6)), expected)


def test_equal_ids_and_groups_of_different_sources_stay_distinct() -> None:
    a = photos(ids=list("abacd"), groups=[0, 1, 0, 2, 3])
    b = sounds(ids=list("abce"), groups=[0, 1, 1, 3])
    table = store_of(Mixture({"p": a, "s": b}))
    assert table.has_ids
    assert _classes(table.ids) == [[0, 2], [1], [3], [4], [5], [6], [7], [8]]
    assert _classes(table.groups) == [[0, 2], [1], [3], [4], [5], [6, 7], [8]]
    assert table.keys == ("p:a", "p:b", "p:a", "p:c", "p:d", "s:a", "s:b", "s:c", "s:e")
    assert not store_of(Mixture({"p": photos(), "s": sounds()})).has_ids


@pytest.mark.parametrize("as_text", [True, False])
def test_shared_ids_join_the_groups_of_different_sources(as_text: bool) -> None:
    def ids(*numbers: int) -> list[Any]:
        return [f"x{number}" for number in numbers] if as_text else list(numbers)

    a = photos(ids=ids(7, 8, 7, 9, 5), groups=[0, 1, 0, 2, 2])
    b = sounds(ids=ids(7, 1, 5, 2), groups=[4, 4, 5, 6])
    table = store_of(Mixture({"p": a, "s": b}, shared_ids=True))
    assert _classes(table.ids) == [[0, 2, 5], [1], [3], [4, 7], [6], [8]]
    # Item 5 connects group 0 of p with group 4 of s, and item 7 connects group 2 with group 5.
    assert _classes(table.groups) == [[0, 2, 5, 6], [1], [3, 4, 7], [8]]
    assert table.keys == ((*a.keys, *b.keys) if as_text else None)  # type: ignore[misc]


def _classes(codes: Any) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for row, code in enumerate(codes.tolist()):
        found.setdefault(code, []).append(row)
    return sorted(found.values())


def test_labels_are_merged_by_name() -> None:
    a = photos(labels=[0, 1, -1, 1, 0], label_names=["dog", "cat"])
    b = sounds(labels=[1, 0, 1, -1], label_names=["cat", "bird"])
    table = store_of(Mixture({"p": a, "s": b}))
    names = [table.label_names[label] if label >= 0 else None for label in table.labels.tolist()]
    assert names == ["dog", "cat", None, "cat", "dog", "bird", "cat", "bird", None]
    assert sorted(table.label_names) == ["bird", "cat", "dog"]


def test_labels_without_names_are_different_classes_in_different_sources() -> None:
    table = store_of(Mixture({"p": photos(labels=[0, 1, -1, 1, 0]), "s": sounds(labels=[10**12, 0, 0, -1])}))
    names = [table.label_names[label] if label >= 0 else None for label in table.labels.tolist()]
    assert names == ["p:0", "p:1", None, "p:1", "p:0", f"s:{10**12}", "s:0", "s:0", None]
    only_one = store_of(Mixture({"p": photos(labels=[0, 3, -1, 1, 0]), "s": sounds()}))
    assert (only_one.labels.tolist(), only_one.label_names) == ([0, 3, -1, 1, 0, -1, -1, -1, -1], ())


def test_item_names_have_the_prefix_of_their_source() -> None:
    table = store_of(Mixture({"p": photos(names=list("abcde")), "s": sounds()}))
    assert table.item_names == ("p:a", "p:b", "p:c", "p:d", "p:e", "s:item 0", "s:item 1", "s:item 2", "s:item 3")
    assert [table.item_name(row) for row in (0, 4, 5, 8)] == ["p:a", "p:e", "s:item 0", "s:item 3"]


def test_the_fingerprint_depends_on_the_sources_but_not_on_weights_and_mode() -> None:
    first = Mixture({"p": photos(), "s": sounds()})
    assert first.fingerprint == store_of(first).fingerprint
    same = Mixture({"p": photos(), "s": sounds()}, weights={"p": 3}, mode="blend", epoch_steps=4)
    assert same.fingerprint == first.fingerprint
    others = [
        Mixture({"q": photos(), "s": sounds()}),
        Mixture({"s": sounds(), "p": photos()}),
        Mixture({"p": photos(split=[0, 0, 0, 1, 1]), "s": sounds()}),
        Mixture({"p": photos(ids=[5, 6, 7, 8, 9]), "s": sounds(ids=[5, 6, 1, 2])}),
        Mixture({"p": photos(ids=[5, 6, 7, 8, 9]), "s": sounds(ids=[5, 6, 1, 2])}, shared_ids=True),
    ]
    assert len({first.fingerprint, *(other.fingerprint for other in others[:-2])}) == 4
    assert others[-1].fingerprint != others[-2].fingerprint
    with pytest.raises(DataError, match="expected"):
        store_of(first).check_fingerprint(store_of(others[0]).fingerprint)


def test_a_selection_and_a_pickled_copy_keep_rows_and_shares() -> None:
    table = store_of(Mixture({"p": photos(), "s": sounds()}, weights={"s": 2}))
    for other in (table.select(["sound", "text"]), pickle.loads(pickle.dumps(table))):
        assert other.fingerprint == table.fingerprint
        assert other.sampling == table.sampling
        np.testing.assert_array_equal(np.asarray(other.array("text")), np.asarray(table.array("text")))
    assert table.select(["sound", "text"]).modalities == ("sound", "text")


def test_a_saved_mixture_is_a_store(tmp_path: Path) -> None:
    table = store_of(Mixture({"p": photos(ids=list("abcda"), names=list("vwxyz")), "s": sounds(labels=[0, 1, -1, 0])}))
    table.verify()
    saved = load_dataset(table.save(tmp_path / "both").path or "")
    assert saved.modalities == table.modalities
    for name in table.columns:
        np.testing.assert_array_equal(saved.array(name), np.asarray(table.array(name)))
        np.testing.assert_array_equal(saved.present(name), table.present(name))
    assert _classes(saved.ids) == _classes(table.ids)
    assert saved.keys == table.keys
    assert (saved.item_names, saved.labels.tolist()) == (table.item_names, table.labels.tolist())


def test_columns_state_an_encoder_only_if_all_sources_state_the_same() -> None:
    made = {"columns": {"text": {"model": "m", "revision": "1"}}}
    a, b = photos(provenance=made), sounds(provenance=made)
    assert store_of(Mixture({"p": a, "s": b})).provenance["columns"]["text"] == {"model": "m", "revision": "1"}
    assert "columns" not in store_of(Mixture({"p": a, "s": sounds()})).provenance
    other = sounds(provenance={"columns": {"text": {"model": "m", "revision": "2"}}})
    with pytest.raises(DataError, match=r"'text' was computed by different encoders in the sources 'p' .* and 's'"):
        Mixture({"p": a, "s": other})


def test_errors() -> None:
    a, b = photos(), sounds()
    with pytest.raises(ConfigError, match="at least two sources, got p"):
        Mixture({"p": a})
    with pytest.raises(ConfigError, match="the source 's' must be an EmbeddingStore or Items, got dict"):
        Mixture({"p": a, "s": {}})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="invalid name 'a/b' of a source"):
        Mixture({"a/b": a, "s": b})
    with pytest.raises(ConfigError, match=r"the unknown source 'photo'.*did you mean 'photos'"):
        Mixture({"photos": a, "s": b}, weights={"photo": 1})
    for weight in (0, -1, float("nan"), float("inf"), True, "2"):
        with pytest.raises(ConfigError, match="the weight of 'p'"):
            Mixture({"p": a, "s": b}, weights={"p": weight})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="mode"):
        Mixture({"p": a, "s": b}, mode="random")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="epoch_steps"):
        Mixture({"p": a, "s": b}, epoch_steps=0)
    narrow = EmbeddingStore.from_arrays({"text": rows(0, 4, 3), "sound": rows(1, 4, 3)})
    with pytest.raises(ShapeError, match=r"'text' has dim 2 in the source 'p' and dim 3 in 's'"):
        Mixture({"p": a, "s": narrow})
    with pytest.raises(ConfigError, match="'p' is a store of features, but 't' is a table of media"):
        Mixture({"p": a, "t": items("x")})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="needs ids in every source, but 's' has none"):
        Mixture({"p": photos(ids=[5, 6, 7, 8, 9]), "s": b}, shared_ids=True)
    with pytest.raises(ConfigError, match="'p' has text ids and 's' integers"):
        Mixture({"p": photos(ids=list("abcde")), "s": sounds(ids=[5, 6, 1, 2])}, shared_ids=True)
    with pytest.raises(DataError, match=r"different splits: .* crosses splits: .*Give every table a split column"):
        Mixture(
            {"p": photos(ids=[5, 6, 7, 8, 9]), "s": sounds(ids=[5, 6, 7, 2], split=[1, 1, 1, 1])},
            shared_ids=True,
        )


def items(*keys: str, **values: list[Any]) -> Items:
    records = [{"id": key, "text": f"text of {key}"} for key in keys]
    for name, column in values.items():
        records = [{**record, name: value} for record, value in zip(records, column, strict=True)]
    return Items.from_records(records)


def test_a_mixture_of_item_tables() -> None:
    a = items("cat", "dog", group=["g", None], label=["x", "y"], ids=["1", "1"])
    b = items("cat", "owl", group=["g", "g"], label=["y", "z"], ids=["1", None])
    mixture = Mixture({"p": a, "s": b}, weights={"p": 2})
    table = mixture.table
    assert isinstance(table, Items)
    assert (table.name, mixture.modalities, len(mixture)) == ("p+s", ("text",), 4)
    assert table.keys.tolist() == ["p:cat", "p:dog", "s:cat", "s:owl"]
    assert [str(table.cell(row, "text").value) for row in (0, 2)] == ["text of cat"] * 2  # type: ignore[union-attr]
    assert _classes(table.ids) == [[0, 1], [2], [3]]
    assert _classes(table.groups) == [[0], [1], [2, 3]]
    assert [table.label_names[label] for label in table.labels] == ["x", "y", "y", "z"]
    assert mixture.source_of.tolist() == [0, 0, 1, 1]
    assert table.fingerprint != Mixture({"q": a, "s": b}).table.fingerprint


def test_shared_ids_of_item_tables_are_their_keys_if_they_have_none() -> None:
    table = Mixture({"p": items("cat", "dog"), "s": items("cat", "owl", ids=[None, "dog"])}, shared_ids=True).table
    assert table.keys.tolist() == ["p:cat", "p:dog", "s:cat", "s:owl"]  # type: ignore[union-attr]
    assert _classes(table.ids) == [[0, 2], [1, 3]]


def test_errors_of_item_tables() -> None:
    with pytest.raises(ConfigError, match="the source 'p' has a split, but 's' has none"):
        Mixture({"p": items("a", split=["train"]), "s": items("b")})
    other = Items.from_records([{"id": "a", "text": [0.5, 1.0]}], kinds={"text": "array"})
    with pytest.raises(DataError, match="'text' is of kind 'text' in the source 'p' and of kind 'array' in 's'"):
        Mixture({"p": items("a"), "s": other})
    with pytest.raises(DataError, match="give the source a shorter name"):
        Mixture({"a-long-name": items("k" * 1020), "s": items("b")})


def embedded(folder: Path, table: Items) -> EmbeddingStore:
    return embed(table, {"text": "builtin:bag?dim=4"}, folder / table.name, progress="none", device="cpu", workers=0)


@pytest.mark.parametrize("repeats", [False, True])
def test_shared_ids_of_embedded_tables_are_their_values(tmp_path: Path, repeats: bool) -> None:
    """Codes of both stores are 0, 1, ..., but only the item `x` is in both."""
    a = items("k0", "k1", "k2", ids=["x", "x" if repeats else "w", "y"])
    b = items("l0", "l1", "l2", "y", ids=["q", "q" if repeats else "r", "x", None])
    stores = {"p": embedded(tmp_path / "p", a), "s": embedded(tmp_path / "s", b)}
    table = store_of(Mixture(stores, shared_ids=True))
    assert _classes(table.ids) == _classes(Mixture({"p": a, "s": b}, shared_ids=True).table.ids)
    assert _classes(table.ids) == ([[0, 1, 5], [2, 6], [3, 4]] if repeats else [[0, 5], [1], [2, 6], [3], [4]])
    assert table.keys == ("x", "x" if repeats else "w", "y", "q", "q" if repeats else "r", "x", "y")
    assert _classes(table.save(tmp_path / "both").ids) == _classes(table.ids)


def test_shared_ids_of_embedded_tables_without_ids_are_their_keys(tmp_path: Path) -> None:
    a, b = embedded(tmp_path / "p", items("cat", "dog")), embedded(tmp_path / "s", items("owl", "cat"))
    assert _classes(store_of(Mixture({"p": a, "s": b}, shared_ids=True)).ids) == [[0, 3], [1], [2]]
    texts = EmbeddingStore.from_arrays({"sound": rows(0, 2, 3)}, ids=["dog", "fox"])
    assert _classes(store_of(Mixture({"p": a, "s": texts}, shared_ids=True)).ids) == [[0], [1, 2], [3]]


def test_row_numbers_are_not_shared_ids(tmp_path: Path) -> None:
    numbered = items("0", "1")
    with pytest.raises(ConfigError, match="'s' has none, and its keys are row numbers; specify the column"):
        Mixture({"p": items("cat", "dog"), "s": numbered}, shared_ids=True)
    stores = {"p": embedded(tmp_path / "p", items("cat", "dog")), "s": embedded(tmp_path / "s", numbered)}
    with pytest.raises(ConfigError, match="'s' has none, or only row numbers"):
        Mixture(stores, shared_ids=True)
