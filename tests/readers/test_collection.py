"""Test that all file formats give the same rows, and that invalid files raise a helpful error."""

import io
import json
import math
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from small_files import DIM, ITEMS, KINDS, Space
from unialign._datasets import datasets_folder
from unialign.data import EmbeddingStore, open_collection
from unialign.errors import ConfigError, DataError, MissingDependencyError, ShapeError
from unialign.readers import Collection, _rows

Write = Callable[[str], list[Path | str]]


def read(collection: Collection) -> dict[str, np.ndarray]:
    return {name: np.concatenate([c.copy() for c in m.rows.chunks()]) for name, m in collection.modalities.items()}


def assert_same(collection: Collection, space: Space) -> None:
    found = read(collection)
    assert list(found) == list(space)
    for name, z in space.items():
        np.testing.assert_array_equal(found[name], z)
        modality = collection.modalities[name]
        assert modality.rows.shape == z.shape
        for rows in ([0, 3, len(z) - 1], [7], []):
            np.testing.assert_array_equal(modality.rows.take(rows), z[rows])
        np.testing.assert_array_equal(modality.load(), z)


def test_every_kind_of_file_holds_the_same_rows(write: Write, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "CHUNK_BYTES", 7 * DIM * 4)
    for kind in KINDS:
        assert_same(open_collection(write(kind)), space)


def test_tensors_and_stores_in_memory_are_sources_too(space: Space) -> None:
    assert_same(open_collection({name: torch.from_numpy(z) for name, z in space.items()}), space)
    assert_same(open_collection(EmbeddingStore.from_arrays(space)), space)
    assert_same(open_collection([{name: z} for name, z in space.items()]), space)


def test_chunks_of_arrays_in_memory_are_copies(space: Space) -> None:
    collection = open_collection({"image": space["image"]})
    before = space["image"].copy()
    for chunk in collection.modalities["image"].rows.chunks():
        chunk[:] = 0
    np.testing.assert_array_equal(space["image"], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_exactly(tmp_path: Path, space: Space, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file as save

    tensors = {name: torch.from_numpy(z).to(dtype) for name, z in space.items()}
    save(tensors, tmp_path / "x.safetensors")
    expected = {name: z.double().numpy() for name, z in tensors.items()}
    assert_same(open_collection(tmp_path / "x.safetensors"), expected)
    assert_same(open_collection(tensors), expected)


def test_values_of_items_and_masks_are_found_by_their_keys(tmp_path: Path, space: Space) -> None:
    ids, present = np.arange(ITEMS) // 2, np.arange(ITEMS) % 4 > 0
    extras: dict[str, Any] = {"ids": ids, "labels": ids % 3, "groups": ids // 2, "present.text": present}
    save_file(space | extras, tmp_path / "a.safetensors")
    extras = extras | {"ids": [f"item {i}" for i in ids], "split": ["train"] * ITEMS, "names": ["x"] * ITEMS}
    np.savez(tmp_path / "b.npz", **space, **{key.replace(".", "/"): value for key, value in extras.items()})
    first, second = open_collection(tmp_path / "a.safetensors"), open_collection(tmp_path / "b.npz")
    for collection in (first, second):
        assert collection.ignored == ()
        assert collection.ids_N is not None
        assert collection.labels_N is not None
        np.testing.assert_array_equal(collection.ids_N, ids)
        np.testing.assert_array_equal(collection.labels_N, ids % 3)
        np.testing.assert_array_equal(collection.modalities["text"].present_N, present)
        assert collection.masked == {"text"}
    assert set(second.values) == {"ids", "labels", "groups", "split", "names"}


def test_arrays_that_share_a_reserved_key_stay_modalities(space: Space) -> None:
    collection = open_collection({"names": space["image"], "groups": space["text"]})
    assert list(collection.modalities) == ["names", "groups"]
    assert collection.values == {}


def test_parquet_nulls_are_absent_rows_and_text_columns_may_be_ids(tmp_path: Path, space: Space) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [None if i % 4 == 0 else row for i, row in enumerate(space["text"])]
    ids = [f"item {i // 2}" for i in range(ITEMS)]
    table = {"image": pa.array(list(space["image"])), "text": pa.array(rows), "ids": ids, "title": ids}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    collection = open_collection(tmp_path / "a.parquet")
    present = np.arange(ITEMS) % 4 > 0
    np.testing.assert_array_equal(collection.modalities["text"].present_N, present)
    np.testing.assert_array_equal(read(collection)["text"][present], space["text"][present])
    np.testing.assert_array_equal(collection.ids_N, np.arange(ITEMS) // 2)
    assert "title" in collection.ignored[0]


def test_a_parquet_of_plain_columns_is_one_matrix(tmp_path: Path, space: Space) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, z in space.items():
        pq.write_table(pa.table({f"{d:03d}": z[:, d] for d in range(DIM)}), tmp_path / f"{name}.parquet")
    assert_same(open_collection([tmp_path / f"{name}.parquet" for name in space]), space)


def test_ragged_lists_raise_with_their_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [[1.0, 2.0], [1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(ShapeError, match="'text' row 1 has 1 entries, but the first row has 2"):
        read(open_collection(tmp_path / "a.parquet"))


def test_parquet_without_pyarrow_names_the_extra(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = write("parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[parquet\]"):
        open_collection(sources)


def test_a_single_matrix_is_named_by_its_file_unless_it_has_a_name(tmp_path: Path, space: Space) -> None:
    np.savez(tmp_path / "image.npz", space["image"])
    np.savez(tmp_path / "two.npz", words=space["text"])
    assert list(open_collection([tmp_path / "image.npz", tmp_path / "two.npz"]).modalities) == ["image", "words"]


def test_equal_names_are_distinguished_by_their_files(tmp_path: Path, space: Space) -> None:
    for name, z in space.items():
        np.savez(tmp_path / f"{name}.npz", z_train=z)
    assert list(open_collection([tmp_path / f"{n}.npz" for n in space]).modalities) == ["image", "text"]
    np.savez(tmp_path / "a.npz", **space)
    np.savez(tmp_path / "b.npz", **space)
    names = list(open_collection([tmp_path / "a.npz", tmp_path / "b.npz"]).modalities)
    assert names == ["a.image", "a.text", "b.image", "b.text"]
    with pytest.raises(ConfigError, match="two matrices are called"):
        open_collection([tmp_path / "a.npz", tmp_path / "a.npz"])


def test_advice_for_equal_names_can_be_followed(tmp_path: Path, space: Space) -> None:
    """Regression test: the error advised NAME=FILE, which is invalid for files with several matrices."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", **space)
    with pytest.raises(ConfigError, match="pass it only once"):
        open_collection([tmp_path / "one/a.npz", tmp_path / "one/a.npz"])
    with pytest.raises(ConfigError, match="rename one of the files"):
        open_collection([tmp_path / "one/a.npz", tmp_path / "two/a.npz"])


def test_names_given_or_stored_twice_raise(tmp_path: Path, space: Space) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, z in space.items():
        np.save(tmp_path / f"{name}.npy", z)
    with pytest.raises(ConfigError, match=r"'x' was given to .*image\.npy and .*text\.npy"):
        open_collection([f"x={tmp_path / 'image.npy'}", f"x={tmp_path / 'text.npy'}"])
    np.savez(tmp_path / "b.npz", first=space["image"], second=space["text"])
    named = open_collection([f"first={tmp_path / 'image.npy'}", tmp_path / "b.npz"])
    assert list(named.modalities) == ["first", "b.first", "second"]
    columns = [pa.array(list(space["image"])), pa.array(list(space["text"]))]
    pq.write_table(pa.table(columns, names=["x", "x"]), tmp_path / "twice.parquet")
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.write(tmp_path / "image.npy", "x.npy")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.write(tmp_path / "text.npy", "x.npy")
    for file in ("twice.parquet", "twice.npz"):
        with pytest.raises(DataError, match=rf"{file} holds several \w+ called 'x'"):
            open_collection(tmp_path / file)


def test_a_parquet_column_of_nulls_is_reported(tmp_path: Path, space: Space) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    nulls = pa.array([None] * ITEMS, pa.list_(pa.float32()))
    pq.write_table(pa.table({"image": list(space["image"]), "text": nulls}), tmp_path / "a.parquet")
    collection = open_collection(tmp_path / "a.parquet")
    assert list(collection.modalities) == ["image"]
    assert "every row is null or empty, so every item is absent" in collection.ignored[0]


def test_a_shipped_set_is_a_source() -> None:
    assert list(open_collection("digits", modalities=["kar", "fou"]).modalities) == ["kar", "fou"]
    assert len(open_collection("digits").modalities) < len(EmbeddingStore.open(_digits()).columns) + 1


def _digits() -> Path:
    return datasets_folder("stores") / "digits"


def test_pickled_entries_raise_only_if_they_are_chosen_or_alone(tmp_path: Path, space: Space) -> None:
    """Regression test: pickled arrays that are not needed made the whole file unreadable."""
    for key in ("meta", "labels", "names", "split"):
        np.savez(tmp_path / "a.npz", **space, **{key: np.array([{"a": 1}] * ITEMS, dtype=object)})
        collection = open_collection(tmp_path / "a.npz")
        assert list(collection.modalities) == ["image", "text"]
        assert (
            f"a.npz: {key} (Python objects (a pickle), which are never read; save numpy.stack(list(x))"
            in collection.ignored[0]
        )
    np.savez(tmp_path / "a.npz", **space, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"'meta' holds pickled objects.*--modalities"):
        open_collection(tmp_path / "a.npz", modalities=["image", "meta"])
    np.savez(tmp_path / "c.npz", meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"'meta' holds pickled objects"):
        open_collection(tmp_path / "c.npz")
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="pickled"):
        open_collection(tmp_path / "b.npy")


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


def test_nothing_is_ever_unpickled(tmp_path: Path, space: Space, capsys: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        pickle.dump(Bomb(), file)
    torch.save({"image": torch.from_numpy(space["image"])}, tmp_path / "b.pt")
    np.savez(tmp_path / "c.npz", ids=np.array([Bomb()] * ITEMS, dtype=object), **space)
    for name, what in {"a.npz": "is a pickle", "b.pt": "torch.save", "c.npz": "expected integers or text"}.items():
        with pytest.raises((DataError, ShapeError), match=what):
            open_collection(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out


def test_unequal_rows_name_both_files(tmp_path: Path, space: Space) -> None:
    np.save(tmp_path / "image.npy", space["image"])
    np.save(tmp_path / "text.npy", space["text"][:-1])
    with pytest.raises(DataError, match=r"'text' \(.*text.npy\) has 59 rows, but 'image' \(.*image.npy\) has 60"):
        open_collection([tmp_path / "image.npy", tmp_path / "text.npy"])


def test_files_in_another_order_are_matched_by_their_ids(tmp_path: Path, space: Space) -> None:
    order = np.random.default_rng(0).permutation(ITEMS)
    present = np.arange(ITEMS) % 5 > 0
    ids = np.array([f"item {i}" for i in range(ITEMS)])
    np.savez(tmp_path / "a.npz", image=space["image"], ids=ids, labels=np.arange(ITEMS) % 3)
    second = {"text": space["text"][order], "ids": ids[order], "labels": order % 3, "present.text": present[order]}
    np.savez(tmp_path / "b.npz", **second)
    collection = open_collection([tmp_path / "a.npz", tmp_path / "b.npz"])
    text = collection.modalities["text"]
    np.testing.assert_array_equal(text.load(), space["text"])
    np.testing.assert_array_equal(text.rows.take([1, 9, 30]), space["text"][[1, 9, 30]])
    np.testing.assert_array_equal(text.present_N, present)
    np.testing.assert_array_equal(collection.labels_N, np.arange(ITEMS) % 3)
    assert "b.npz" in collection.matched[0]
    np.savez(tmp_path / "c.npz", **{key: value[::-1] for key, value in second.items()})
    both = open_collection([tmp_path / "b.npz", tmp_path / "c.npz"])
    np.testing.assert_array_equal(both.modalities["b"].load(), both.modalities["c"].load())


def test_repeated_ids_in_another_order_cannot_be_matched(tmp_path: Path, space: Space) -> None:
    np.savez(tmp_path / "a.npz", image=space["image"], ids=np.arange(ITEMS) // 2)
    np.savez(tmp_path / "b.npz", text=space["text"], ids=np.arange(ITEMS)[::-1] // 2)
    with pytest.raises(
        DataError, match=r"ids in .*a.npz and .*b.npz differ: they have the same values in a different order"
    ):
        open_collection([tmp_path / "a.npz", tmp_path / "b.npz"])
    np.savez(tmp_path / "b.npz", text=space["text"], ids=np.arange(ITEMS) // 2)
    assert open_collection([tmp_path / "a.npz", tmp_path / "b.npz"]).matched == ()


def test_incompatible_arrays_raise(tmp_path: Path, space: Space) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"present.text": np.ones(ITEMS, np.int64)}, ShapeError, "expected bool"),
        ({"present.text": np.zeros(ITEMS, np.bool_)}, DataError, "marks every row of 'text' as absent"),
        ({"ids": np.zeros(ITEMS)}, ShapeError, "integers or text"),
        ({"ids": np.zeros(3, np.int64)}, ShapeError, "integers or text"),
        ({"groups": np.zeros(3, np.int64)}, ShapeError, "integers or text"),
    ]
    for extra, error, words in cases:
        np.savez(tmp_path / "a.npz", **space, **extra)
        with pytest.raises(error, match=words):
            open_collection(tmp_path / "a.npz")


def test_unknown_and_damaged_files_raise_with_the_reason(tmp_path: Path, space: Space) -> None:
    (tmp_path / "empty.npz").touch()
    (tmp_path / "table.xyz").write_text("a,b\n1,2\n")
    (tmp_path / "junk.npz").write_bytes(b"no zip at all, and long enough")
    (tmp_path / "short.npz").write_bytes(b"PK\x03\x04 and nothing else")
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", 20) + b'{"a": {"dtype": "F3')
    np.savez(tmp_path / "ids.npz", ids=np.arange(3))
    (tmp_path / "folder").mkdir()
    for name, words in {
        "missing.npz": "there is no file",
        "empty.npz": "is empty",
        "junk.npz": "junk.npz is damaged: its first bytes do not match the .npz format",
        "table.xyz": r"unknown format; expected .*\.npz.*\.parquet",
        "short.npz": "damaged",
        "bad.safetensors": "safetensors",
        "ids.npz": "found no embeddings",
        "folder": "without files that can be read",
    }.items():
        with pytest.raises(DataError, match=words):
            open_collection(tmp_path / name)
    with pytest.raises(ConfigError, match="at least one file"):
        open_collection([])
    with pytest.raises(ConfigError, match="unknown: \\['sound'\\]"):
        open_collection(space, modalities=["sound"])


def test_a_truncated_file_raises(write: Write) -> None:
    for kind in ("npz", "packed.npz", "safetensors", "columns.npy", "parquet"):
        paths = write(kind)
        content = Path(paths[0]).read_bytes()
        for fraction in (0.5, 0.95):
            Path(paths[0]).write_bytes(content[: int(fraction * len(content))])
            with pytest.raises(DataError, match=str(paths[0])):
                read(open_collection(paths))


def test_fewer_rows_than_declared_raise(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((4, 3)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", buffer.getvalue()[:-24])
    with pytest.raises(DataError, match="has 200 bytes, but its header declares 224"):
        open_collection(tmp_path / "a.npz")
    rows = _rows.StreamRows(lambda: iter([np.ones((2, 3))]), (3, 3), "<f8")
    with pytest.raises(DataError, match="ends after 2 of 3 rows"):
        list(rows.chunks())


def test_a_file_that_shrinks_after_it_was_opened_raises(write: Write) -> None:
    paths = write("columns.npy")
    collection = open_collection(paths)
    os.truncate(paths[0], 1000)
    with pytest.raises(DataError, match=r"ends in the middle of an array"):
        read(collection)


def test_damaged_compressed_rows_raise(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"  # The array is large, so that the header is read before the damaged part.
    np.savez_compressed(path, image=np.random.default_rng(0).normal(size=(4000, 32)))
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("image.npy").header_offset + 300_000
    content = bytearray(path.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'image' is damaged"):
        read(open_collection(path))


def test_damage_inside_parquet_is_one_line(write: Write) -> None:
    """Errors have one line, although messages of pyarrow have several."""
    path = Path(write("fixed.parquet")[0])
    content = bytearray(path.read_bytes())
    content[4:64] = bytes(range(196, 256))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'image' cannot be read") as caught:
        read(open_collection(path))
    assert "\n" not in str(caught.value)


def test_hostile_headers_raise(tmp_path: Path) -> None:
    headers: list[Any] = [
        {"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 10]}},
        {"a": {"dtype": "F32", "shape": [4, -4], "data_offsets": [0, 64]}},
        {"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}},
        {"a": {"dtype": "F32", "shape": [4, 4]}},
        {"a": {"dtype": "F32", "shape": [math.inf, 4], "data_offsets": [0, 64]}},
        {"\ud800": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}},
        ["a"],
        {n: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} for n in "ab"},
        {"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [64, 128]}},
    ]
    for header in headers:
        text = json.dumps(header).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
        with pytest.raises(DataError, match=r"a\.safetensors"):
            open_collection(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**62) + b'{"a": 1}' + bytes(64))
    with pytest.raises(DataError, match=r"a\.safetensors"):
        open_collection(tmp_path / "a.safetensors")
    for shape in ("(-1, 4)", "(-4, -4)", "(True, 4)", "(4294967308, 18446744073709551620)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
        with pytest.raises(DataError, match=r"a\.npy(?: is not a plain \.npy array|: )"):
            open_collection(tmp_path / "a.npy")


def test_names_that_are_not_utf8_raise(tmp_path: Path, space: Space) -> None:
    """Regression test: names that are not UTF-8 were accepted and caused an error when results were written."""
    path = f"{tmp_path}/\udcff.npz"
    np.savez(path, **space)
    for sources in (path, f"\udcff={path}", {"\udcff": space["image"]}):
        with pytest.raises(DataError, match="UTF-8"):
            open_collection(sources)


def test_a_mask_without_an_array_of_its_name_is_listed(tmp_path: Path, space: Space) -> None:
    """Regression test: a mask with a misspelled name was ignored without a warning."""
    mask = np.arange(ITEMS) > 3
    np.savez(tmp_path / "a.npz", **space, **{"present.imgae": mask, "present.text": mask})
    (ignored,) = open_collection(tmp_path / "a.npz").ignored
    assert "present.imgae (no array with that name)" in ignored


def test_masks_in_both_spellings_are_combined(space: Space) -> None:
    """Regression test: of two masks of one modality, the second replaced the first."""
    first, second = np.arange(ITEMS) > 3, np.arange(ITEMS) < 20
    collection = open_collection(space | {"present.image": first, "present/image": second})
    np.testing.assert_array_equal(collection.modalities["image"].present_N, first & second)


def test_a_pipe_in_the_place_of_a_file_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        open_collection(tmp_path / "pipe")
