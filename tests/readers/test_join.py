"""Test joining files by ids of any name, type and order, with absent items."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import unialign as ua
from small_files import ITEMS, Space
from unialign.data import EmbeddingStore, load_dataset, open_collection
from unialign.errors import ConfigError, DataError, ShapeError

ORDER = np.random.default_rng(0).permutation(ITEMS)
KEYS = np.array([f"k{i}" for i in range(ITEMS)])


def write_table(file: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({key: list(value) for key, value in columns.items()}), file)
    return file


@pytest.mark.parametrize(("first", "second"), [("id", "id"), ("key", "uuid"), ("imageId", "ids"), ("ids", "__key__")])
def test_ids_are_found_under_usual_names(tmp_path: Path, space: Space, first: str, second: str) -> None:
    a = write_table(tmp_path / "a.parquet", image=space["image"], **{first: KEYS})
    np.savez(tmp_path / "b.npz", text=space["text"][ORDER], **{second: KEYS[ORDER]})
    collection = open_collection([a, tmp_path / "b.npz"])
    np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])
    np.testing.assert_array_equal(collection.modalities["text"].rows.take([3, 9]), space["text"][[3, 9]])
    assert len(collection.notes) == (first != "ids") + (second != "ids")
    assert all("are guessed to be" in note for note in collection.notes)


def test_a_given_name_comes_first(tmp_path: Path, space: Space) -> None:
    wrong = KEYS[::-1]
    a = write_table(tmp_path / "a.parquet", image=space["image"], id=wrong, serial=KEYS)
    b = write_table(tmp_path / "b.parquet", text=space["text"][ORDER], id=wrong, serial=KEYS[ORDER])
    for name in ("serial", f"{a}: serial", "'serial'"):
        collection = open_collection([a, b], id=name)
        np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])
        assert collection.notes == ()
    with pytest.raises(ConfigError, match=r"no file has ids called 'serials'; .*id, serial; did you mean"):
        open_collection([a, b], id="serials")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.arange(ITEMS), np.arange(ITEMS).astype(str)),
        (np.arange(ITEMS).astype("S"), np.arange(ITEMS)),
        (KEYS, KEYS.astype("S")),
        (np.arange(ITEMS, dtype=np.uint8), np.arange(ITEMS, dtype=np.int64)),
    ],
)
def test_ids_of_another_type_are_equal(tmp_path: Path, space: Space, first: np.ndarray, second: np.ndarray) -> None:
    np.savez(tmp_path / "a.npz", image=space["image"], ids=first)
    for order in (ORDER, np.arange(ITEMS)):
        np.savez(tmp_path / "b.npz", text=space["text"][order], ids=second[order])
        collection = open_collection([tmp_path / "a.npz", tmp_path / "b.npz"])
        np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])


def test_items_that_a_file_lacks_are_absent(tmp_path: Path, space: Space) -> None:
    mine, theirs = np.arange(40), ORDER[ORDER >= 20]
    a = write_table(tmp_path / "a.parquet", image=space["image"][mine], id=KEYS[mine])
    np.savez(tmp_path / "b.npz", text=space["text"][theirs], ids=KEYS[theirs], labels=theirs % 3, names=KEYS[theirs])
    collection = open_collection([a, tmp_path / "b.npz"])
    items = np.array([int(key[1:]) for key in collection.values["ids"]])
    assert items[:40].tolist() == mine.tolist()
    for name, kept in (("image", mine), ("text", theirs)):
        modality, present = collection.modalities[name], np.isin(items, kept)
        np.testing.assert_array_equal(modality.present_N, present)
        np.testing.assert_array_equal(modality.load()[present], space[name][items[present]])
        np.testing.assert_array_equal(modality.rows.take(np.flatnonzero(present)), space[name][items[present]])
        assert name in collection.masked
    labeled = np.isin(items, theirs)
    np.testing.assert_array_equal(collection.values["labels"], np.where(labeled, items % 3, -1))
    assert any("a.parquet has 40 of the 60 items" in note for note in collection.notes)
    with pytest.warns(UserWarning, match="of the 60 items"):
        store = load_dataset([a, tmp_path / "b.npz"])
    assert store.keys == tuple(collection.values["ids"].tolist())
    assert store.present("image").sum() == 40
    report = ua.diagnose([a, tmp_path / "b.npz"], resamples=100, sample=60)
    stats = report.numbers["modalities"]
    assert {name: stats[name]["rows"] for name in ("image", "text")} == {"image": 40, "text": 40}


def test_texts_that_are_one_number_are_different_ids(space: Space) -> None:
    texts = np.array(["7", "007", *map(str, range(100, 98 + ITEMS))])
    numbers = np.array([7, 8, *range(100, 98 + ITEMS)])
    collection = open_collection([{"image": space["image"], "ids": texts}, {"text": space["text"], "ids": numbers}])
    assert collection.values["ids"].tolist() == [*texts.tolist(), "8"]
    present = collection.modalities["text"].present_N
    assert present is not None
    assert np.flatnonzero(~present).tolist() == [1]
    padded = [f"{i:09d}" for i in range(ITEMS)]
    collection = open_collection([{"image": space["image"], "ids": padded}, {"text": space["text"], "ids": ORDER}])
    np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"][np.argsort(ORDER)])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint64])
def test_labels_of_any_integers_are_missing_where_a_file_lacks_the_item(space: Space, dtype: type) -> None:
    labels = np.arange(40).astype(dtype) % 3
    collection = open_collection(
        [
            {"image": space["image"], "ids": KEYS},
            {"text": space["text"][:40], "ids": KEYS[:40], "labels": labels},
        ]
    )
    np.testing.assert_array_equal(collection.values["labels"], [*labels.tolist(), *[-1] * 20])


def test_one_row_may_belong_to_several_items(tmp_path: Path, space: Space) -> None:
    """The row of an image belongs to all five of its captions, which share an id."""
    images = write_table(tmp_path / "images.parquet", image=space["image"][:12], image_id=KEYS[:12])
    captions = write_table(tmp_path / "captions.parquet", text=space["text"], image_id=np.repeat(KEYS[:12], 5))
    collection = open_collection([images, captions])
    assert collection.items == ITEMS
    np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])
    np.testing.assert_array_equal(collection.modalities["image"].load(), np.repeat(space["image"][:12], 5, axis=0))
    assert collection.ids_N is not None
    np.testing.assert_array_equal(collection.ids_N, np.repeat(np.arange(12), 5))
    report = ua.diagnose([images, captions], resamples=100, sample=60)
    assert report.numbers["modalities"]["image"]["rows"] == ITEMS


def test_ids_beside_plain_arrays_are_used(tmp_path: Path, space: Space) -> None:
    for folder, name, order in (("one", "image", np.arange(ITEMS)), ("two", "text", ORDER)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / f"{name}.npy", space[name][order])
        np.save(tmp_path / folder / ("ids.npy" if name == "image" else "text_ids.npy"), KEYS[order])
    plain = [tmp_path / "one/image.npy", tmp_path / "two/text.npy"]
    for sources in (plain, [*plain, tmp_path / "one/ids.npy", f"ids={tmp_path}/two/text_ids.npy"]):
        collection = open_collection(sources)
        np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])
    assert any("one/ids.npy" in note for note in open_collection(plain).notes)
    np.save(tmp_path / "one/ids.npy", KEYS[:-1])
    assert any("59" in note for note in open_collection(plain[0]).notes)


def test_ids_beside_relative_paths_are_used(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression test: only absolute paths of arrays were compared with the folder of `ids.npy`."""
    np.save(tmp_path / "image.npy", space["image"])
    np.save(tmp_path / "ids.npy", np.arange(ITEMS) // 2)
    monkeypatch.chdir(tmp_path)
    for source in ("image.npy", Path("./image.npy"), f"image=../{tmp_path.name}/image.npy"):
        found = open_collection(source).ids_N
        assert found is not None
        np.testing.assert_array_equal(found, np.arange(ITEMS) // 2)


def test_files_that_cannot_be_joined_raise(tmp_path: Path, space: Space) -> None:
    np.savez(tmp_path / "a.npz", image=space["image"], ids=KEYS)
    np.savez(tmp_path / "b.npz", text=space["text"], ids=np.char.add("x", KEYS))
    with pytest.raises(DataError, match=r"have no common value .*'k0'.*'xk0'.*--id NAME"):
        open_collection([tmp_path / "a.npz", tmp_path / "b.npz"])
    np.savez(tmp_path / "c.npz", text=space["text"][:50], ids=KEYS[ORDER[:50]])
    np.save(tmp_path / "d.npy", space["text"][:50])
    with pytest.raises(
        DataError, match=r"d\.npy has no ids, but the ids of .*a\.npz and .*c\.npz have different values"
    ):
        open_collection([tmp_path / "a.npz", tmp_path / "c.npz", tmp_path / "d.npy"])
    with pytest.raises(DataError, match=r"store `ids` in both files"):
        open_collection([tmp_path / "a.npz", tmp_path / "d.npy"])


def test_guessed_ids_without_a_common_value_leave_the_order_of_the_rows(tmp_path: Path, space: Space) -> None:
    a = write_table(tmp_path / "a.parquet", image=space["image"], path=[f"{i}.png" for i in range(ITEMS)])
    b = write_table(tmp_path / "b.parquet", text=space["text"], path=[f"{i}.txt" for i in range(ITEMS)])
    collection = open_collection([a, b])
    np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])
    assert "rows are matched by their order" in collection.notes[-1]
    assert "ids" not in collection.values
    write_table(tmp_path / "a.parquet", image=space["image"], id=np.arange(ITEMS))
    write_table(tmp_path / "b.parquet", text=space["text"], id=np.arange(ITEMS)[::-1] + ITEMS - 4)
    assert "only 4 common values" in open_collection([a, b]).notes[-1]
    assert open_collection([a, b], id="id").items == 2 * ITEMS - 4


def test_given_ids_replace_guessed_ones_and_may_be_those_of_a_data_frame(tmp_path: Path, space: Space) -> None:
    table = write_table(tmp_path / "a.parquet", **space, id=KEYS)
    given = np.array([f"x{i // 2}" for i in range(ITEMS)], dtype=object)
    collection = open_collection(table, ids=given, labels=given)
    assert collection.ids_N is not None
    np.testing.assert_array_equal(collection.ids_N, np.arange(ITEMS) // 2)
    np.savez(tmp_path / "b.npz", **space, ids=KEYS)
    with pytest.raises(DataError, match="the argument `ids` differs from the ids in the files"):
        open_collection(tmp_path / "b.npz", ids=given)
    with pytest.raises(ShapeError, match=r"'ids' must be .*integers or strings; got ndarray of objects"):
        open_collection(space, ids=np.array([*given[:-1], None], dtype=object))
    with pytest.raises(ShapeError, match=r"'image' must be .*numpy\.stack.*; got ndarray of objects"):
        open_collection({"image": np.array([None, [1.0]], dtype=object)})


def test_ids_may_be_hashes_of_64_bits(space: Space) -> None:
    hashes = np.arange(ITEMS, dtype=np.uint64) + np.uint64(2**63)
    with pytest.warns(UserWarning, match="no array `split`"):
        store = load_dataset(space | {"ids": hashes})
    assert store.keys is not None
    assert store.keys[1] == str(2**63 + 1)


def test_row_numbers_are_no_ids(tmp_path: Path, space: Space) -> None:
    """Equal row numbers may mean different items, since a data frame may be renumbered after rows are dropped."""
    a = write_table(tmp_path / "a.parquet", image=space["image"], __index_level_0__=np.arange(ITEMS))
    b = write_table(tmp_path / "b.parquet", text=space["text"][5:], __index_level_0__=np.arange(ITEMS - 5))
    with pytest.raises(DataError, match="has 55 rows"):
        open_collection([a, b])
    b = write_table(tmp_path / "b.parquet", text=space["text"][5:], __index_level_0__=np.arange(5, ITEMS))
    a = write_table(tmp_path / "a.parquet", image=space["image"][ORDER], __index_level_0__=ORDER)
    collection = open_collection([a, b])
    present = ORDER >= 5
    np.testing.assert_array_equal(collection.modalities["text"].present_N, present)
    np.testing.assert_array_equal(collection.modalities["text"].load()[present], space["text"][ORDER[present]])


def test_a_store_holds_text_ids_and_is_joined_by_them(tmp_path: Path, space: Space) -> None:
    store = EmbeddingStore.write(tmp_path / "store", {"image": space["image"]}, ids=KEYS)
    assert store.keys == tuple(KEYS)
    assert EmbeddingStore.open(tmp_path / "store").keys == store.keys
    assert store.fingerprint == EmbeddingStore.from_arrays({"image": space["image"]}, ids=KEYS.tolist()).fingerprint
    assert store.fingerprint != EmbeddingStore.from_arrays({"image": space["image"]}).fingerprint
    np.testing.assert_array_equal(store.ids, np.arange(ITEMS))
    store.verify()
    np.savez(tmp_path / "b.npz", text=space["text"][ORDER], ids=KEYS[ORDER])
    collection = open_collection([tmp_path / "store", tmp_path / "b.npz"])
    np.testing.assert_array_equal(collection.modalities["text"].load(), space["text"])
    repeated = EmbeddingStore.from_arrays({"image": space["image"]}, ids=np.repeat(KEYS[:30], 2))
    np.testing.assert_array_equal(repeated.ids, np.repeat(np.arange(30), 2))
    assert EmbeddingStore.from_arrays({"image": space["image"]}, ids=np.arange(ITEMS)).keys is None
    with pytest.raises(DataError, match="ids: row 1 holds None"):
        EmbeddingStore.from_arrays({"image": space["image"][:2]}, ids=["a", None])  # type: ignore[list-item]
    text = json.loads((tmp_path / "store/keys.json").read_text())
    (tmp_path / "store/keys.json").write_text(json.dumps([*text[:-1], "k5xx"], indent=0))
    with pytest.raises(DataError, match=r"keys\.json has"):
        _ = EmbeddingStore.open(tmp_path / "store").keys
