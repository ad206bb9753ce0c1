"""All file formats give the same numbers, and unreadable files raise errors with a reason."""

import json
import math
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from spaces import ITEMS, WIDTH, healthy

import unialign as ua
from unialign.diagnostics import diagnose
from unialign.errors import ConfigError, DataError, MissingDependencyError, ShapeError
from unialign.readers import _rows

SPACE = healthy(("image", "text"))


def checked(sources, **options):
    """All rows are read; the sample is small, since only reading is tested here."""
    return diagnose(sources, resamples=100, **{"sample": 100} | options)


def parquet_list(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.array(list(z)) for name, z in SPACE.items()}
    pq.write_table(pa.table(columns), path, row_group_size=150)


def parquet_fixed(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: pa.FixedSizeListArray.from_arrays(pa.array(z.ravel()), WIDTH) for name, z in SPACE.items()}
    pq.write_table(pa.table(columns), path)


def files(tmp_path, kind):
    """Write the space in one format."""
    path = tmp_path / f"space.{kind}"
    if kind == "npz":
        np.savez(path, **SPACE)
    elif kind == "packed.npz":
        np.savez_compressed(path, **SPACE)
    elif kind == "columns.npz":
        np.savez_compressed(path, **{name: np.asfortranarray(z) for name, z in SPACE.items()})
    elif kind == "safetensors":
        save_file(SPACE, path)
    elif kind == "parquet":
        parquet_list(path)
    elif kind == "fixed.parquet":
        parquet_fixed(path)
    elif kind == "store":
        ua.data.EmbeddingStore.write(path, SPACE)
    elif kind == "columns.npy":
        for name, z in SPACE.items():
            np.save(tmp_path / f"{name}.npy", np.asfortranarray(z))
        return [tmp_path / f"{name}.npy" for name in SPACE]
    elif kind == "named":
        for i, z in enumerate(SPACE.values()):
            np.save(tmp_path / f"{i}.npy", z.astype(">f4"))
        return [f"{name}={tmp_path / f'{i}.npy'}" for i, name in enumerate(SPACE)]
    return [path]


@pytest.fixture(scope="module")
def reference():
    return checked(SPACE)


KINDS = [
    "npz", "packed.npz", "columns.npz", "safetensors", "parquet", "fixed.parquet", "store", "columns.npy", "named",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_numbers(tmp_path, monkeypatch, reference, kind):
    monkeypatch.setattr(_rows, "PIECE_BYTES", 7 * WIDTH * 4)  # many pieces, the last one ragged
    diagnosis = checked(files(tmp_path, kind))
    assert diagnosis.numbers == reference.numbers
    assert diagnosis.fingerprint == reference.fingerprint
    assert diagnosis.findings == reference.findings


def test_tensors_and_stores_in_memory_are_sources(reference):
    tensors = {name: torch.from_numpy(z) for name, z in SPACE.items()}
    assert checked(tensors).numbers == reference.numbers
    assert checked(ua.data.EmbeddingStore.from_arrays(SPACE)).numbers == reference.numbers
    assert checked([{"image": SPACE["image"]}, {"text": SPACE["text"]}]).numbers == reference.numbers


def test_the_input_is_not_changed():
    space = {name: z.copy() for name, z in SPACE.items()}
    space["text"][3] = np.nan
    space["image"][:, 0] = -0.0
    before = {name: z.copy() for name, z in space.items()}
    checked(space)
    for name, z in space.items():
        np.testing.assert_array_equal(z.view(np.uint32), before[name].view(np.uint32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read_exactly(tmp_path, dtype):
    from safetensors.torch import save_file as save

    tensors = {name: torch.from_numpy(z).to(dtype) for name, z in SPACE.items()}
    save(tensors, tmp_path / "x.safetensors")
    found, wide = checked(tmp_path / "x.safetensors"), checked({name: z.float() for name, z in tensors.items()})
    if dtype != torch.float64:
        assert found.fingerprint == wide.fingerprint
    assert found.summary["recall@1"] == pytest.approx(wide.summary["recall@1"])
    assert checked(tensors).fingerprint == found.fingerprint


def test_ids_labels_and_masks_are_recognized_by_their_keys(tmp_path):
    ids = np.arange(ITEMS) // 2
    present = np.arange(ITEMS) % 4 > 0
    extras = {"ids": ids, "labels": ids % 3, "present.text": present}
    save_file(SPACE | extras, tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", **SPACE, ids=[f"item {i}" for i in ids], labels=ids % 3, **{"present/text": present})
    first, second = checked(tmp_path / "a.safetensors"), checked(tmp_path / "b.npz")
    assert first.numbers == second.numbers
    assert first.details["ids"]
    assert first.numbers["modalities"]["text"]["absent"] == ITEMS // 4
    assert "label_map" in first.numbers


def test_parquet_nulls_are_absent_rows_and_text_columns_may_be_ids(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [None if i % 4 == 0 else row for i, row in enumerate(SPACE["text"])]
    ids = [f"item {i // 2}" for i in range(ITEMS)]
    table = {"image": pa.array(list(SPACE["image"])), "text": pa.array(rows), "ids": ids, "title": ids}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    diagnosis = checked(tmp_path / "a.parquet")
    present = np.arange(ITEMS) % 4 > 0
    other = checked(SPACE | {"ids": ids, "present.text": present})
    assert diagnosis.numbers["pairs"] == other.numbers["pairs"]
    assert "title" in diagnosis.findings_with("ignored")[0].text


def test_a_parquet_of_plain_columns_is_one_matrix(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, z in SPACE.items():
        pq.write_table(pa.table({f"{d:03d}": z[:, d] for d in range(WIDTH)}), tmp_path / f"{name}.parquet")
    diagnosis = checked([tmp_path / f"{name}.parquet" for name in SPACE])
    assert diagnosis.fingerprint == checked(SPACE).fingerprint


def test_ragged_lists_raise_with_their_row(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [[1.0, 2.0], [1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(ShapeError, match="'text' row 1 has 1 entries, the first row has 2"):
        checked(tmp_path / "a.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    parquet_list(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[parquet\]"):
        checked(tmp_path / "a.parquet")


def test_a_single_matrix_is_named_by_its_file_unless_it_has_a_name(tmp_path):
    np.savez(tmp_path / "image.npz", SPACE["image"])
    np.savez(tmp_path / "two.npz", words=SPACE["text"])
    assert list(checked([tmp_path / "image.npz", tmp_path / "two.npz"]).numbers["modalities"]) == ["image", "words"]


def test_equal_names_are_prefixed_by_their_files(tmp_path):
    for name, z in SPACE.items():
        np.savez(tmp_path / f"{name}.npz", z_train=z)
    assert list(checked([tmp_path / f"{n}.npz" for n in SPACE]).numbers["modalities"]) == ["image", "text"]
    np.savez(tmp_path / "a.npz", **SPACE)
    np.savez(tmp_path / "b.npz", **healthy(("image", "text"), seed=1))
    names = checked([tmp_path / "a.npz", tmp_path / "b.npz"]).numbers["modalities"]
    assert list(names) == ["a.image", "a.text", "b.image", "b.text"]
    with pytest.raises(ConfigError, match="two matrices are called"):
        checked([tmp_path / "a.npz", tmp_path / "a.npz"])


def test_a_shipped_set_is_a_source():
    assert list(checked("digits", modalities=["kar", "fou"]).numbers["modalities"]) == ["kar", "fou"]


def test_pickled_entries_raise_unless_they_are_not_selected(tmp_path):
    np.savez(tmp_path / "a.npz", **SPACE, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"'meta' holds pickled objects.*--modalities"):
        checked(tmp_path / "a.npz")
    assert checked(tmp_path / "a.npz", modalities=["image", "text"]).severity == "ok"
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="pickled"):
        checked(tmp_path / "b.npy")


class Bomb:
    def __reduce__(self):
        return (print, ("unpickled",))


def test_nothing_is_ever_unpickled(tmp_path, capsys):
    with (tmp_path / "a.npz").open("wb") as file:
        pickle.dump(Bomb(), file)
    torch.save({"image": torch.from_numpy(SPACE["image"])}, tmp_path / "b.pt")
    np.savez(tmp_path / "c.npz", ids=np.array([Bomb()] * ITEMS, dtype=object), **SPACE)
    for name, what in {"a.npz": "is a pickle", "b.pt": "torch.save", "c.npz": "expected integers or text"}.items():
        with pytest.raises((DataError, ShapeError), match=what):
            checked(tmp_path / name)
    assert "unpickled" not in capsys.readouterr().out


def test_unequal_rows_name_both_files(tmp_path):
    np.save(tmp_path / "image.npy", SPACE["image"])
    np.save(tmp_path / "text.npy", SPACE["text"][:-1])
    with pytest.raises(DataError, match=r"'text' \(.*text.npy\) has 399 rows, 'image' \(.*image.npy\) has 400"):
        checked([tmp_path / "image.npy", tmp_path / "text.npy"])


def test_files_in_another_order_are_matched_by_their_ids(tmp_path):
    order = np.random.default_rng(0).permutation(ITEMS)
    present = np.arange(ITEMS) % 5 > 0
    text = SPACE["text"].copy()
    text[7], text[12] = text[3], np.nan
    ids = np.array([f"item {i}" for i in range(ITEMS)])
    np.savez(tmp_path / "a.npz", image=SPACE["image"], ids=ids, labels=np.arange(ITEMS) % 3)
    second = {"text": text[order], "ids": ids[order], "labels": order % 3, "present.text": present[order]}
    np.savez(tmp_path / "b.npz", **second)
    found = checked([tmp_path / "a.npz", tmp_path / "b.npz"], sample=200)
    plain = checked({"image": SPACE["image"], "text": text, "labels": np.arange(ITEMS) % 3, "present.text": present},
                    sample=200)  # fmt: skip
    numbers, expected = found.numbers, plain.numbers
    for modality in (*numbers["modalities"].values(), *expected["modalities"].values()):
        del modality["fingerprint"]  # of the file as it is
    assert numbers == expected
    assert "b.npz" in found.findings_with("matched")[0].text
    np.savez(tmp_path / "c.npz", **{key: value[::-1] for key, value in second.items()})
    assert checked([tmp_path / "b.npz", tmp_path / "c.npz"]).findings_with("duplicate_modality")


def test_repeated_ids_in_another_order_cannot_be_matched(tmp_path):
    np.savez(tmp_path / "a.npz", image=SPACE["image"], ids=np.arange(ITEMS) // 2)
    np.savez(tmp_path / "b.npz", text=SPACE["text"], ids=np.arange(ITEMS)[::-1] // 2)
    with pytest.raises(DataError, match=r"ids in .*a.npz and .*b.npz differ: they are the same in another order"):
        checked([tmp_path / "a.npz", tmp_path / "b.npz"])
    np.savez(tmp_path / "b.npz", text=SPACE["text"], ids=np.arange(ITEMS) // 2)
    assert checked([tmp_path / "a.npz", tmp_path / "b.npz"]).severity == "ok"


def test_arrays_of_wrong_shape_or_type_raise():
    for extra, error, words in [
        ({"video": np.zeros((ITEMS, 4, WIDTH), np.float32)}, ShapeError, "average over tokens or frames"),
        ({"codes": np.zeros((ITEMS, WIDTH), np.int8)}, ShapeError, "quantised codes"),
        ({"empty": np.zeros((0, WIDTH), np.float32)}, ShapeError, "at least one row"),
        ({"present.text": np.ones(ITEMS, np.int64)}, ShapeError, "expected bool"),
        ({"present.text": np.zeros(ITEMS, np.bool_)}, DataError, "marks every row of 'text' as absent"),
        ({"ids": np.zeros(ITEMS)}, ShapeError, "integers or text"),
        ({"ids": np.zeros(3, np.int64)}, ShapeError, "integers or text"),
    ]:
        with pytest.raises(error, match=words):
            checked(SPACE | extra)


def test_other_files_raise_readable_errors(tmp_path):
    (tmp_path / "empty.npz").touch()
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / "junk.npz").write_bytes(b"no zip at all, and long enough")
    (tmp_path / "short.npz").write_bytes(b"PK\x03\x04 and nothing else")
    (tmp_path / "bad.safetensors").write_bytes(struct.pack("<Q", 20) + b'{"a": {"dtype": "F3')
    np.savez(tmp_path / "ids.npz", ids=np.arange(3))
    (tmp_path / "folder").mkdir()
    for name, words in {
        "missing.npz": "there is no file",
        "empty.npz": "is empty",
        "junk.npz": "junk.npz is damaged: it does not begin like a .npz file",
        "table.csv": "is of an unknown format",
        "short.npz": "damaged",
        "bad.safetensors": "safetensors",
        "ids.npz": "found no embeddings",
        "folder": "no EmbeddingStore",
    }.items():
        with pytest.raises(DataError, match=words):
            checked(tmp_path / name)
    with pytest.raises(ConfigError, match="at least one file"):
        checked([])
    with pytest.raises(ConfigError, match="unknown: \\['sound'\\]"):
        checked(SPACE, modalities=["sound"])


def test_truncated_files_raise(tmp_path):
    for kind in ("npz", "packed.npz", "safetensors", "columns.npy", "parquet"):
        paths = files(tmp_path, kind)
        content = paths[0].read_bytes()
        for fraction in (0.5, 0.98):
            paths[0].write_bytes(content[: int(fraction * len(content))])
            with pytest.raises(DataError, match=str(paths[0])):
                checked(paths)


def test_damaged_compressed_rows_raise(tmp_path):
    (path,) = files(tmp_path, "packed.npz")
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("image.npy").header_offset + 3000
    content = bytearray(path.read_bytes())
    content[place : place + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'image' is damaged"):
        checked(path)


def test_hostile_headers_raise(tmp_path):
    for header in [
        {"a": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 10]}},
        {"a": {"dtype": "F32", "shape": [4, -4], "data_offsets": [0, 64]}},
        {"a": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}},
        {"a": {"dtype": "F32", "shape": [4, 4]}},
        {"a": {"dtype": "F32", "shape": [math.inf, 4], "data_offsets": [0, 64]}},
        {"\ud800": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}},
        ["a"],
    ]:
        text = json.dumps(header).encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
        with pytest.raises(DataError, match=r"a\.safetensors"):
            checked(tmp_path / "a.safetensors")


def test_hostile_shapes_raise(tmp_path):
    for shape in ("(-1, 4)", "(-4, -4)", "(True, 4)"):
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
        with pytest.raises(DataError, match=r"a\.npy is not a plain \.npy array"):
            checked(tmp_path / "a.npy")


def test_names_that_are_not_utf8_raise(tmp_path):
    """File names that are not UTF-8 failed while results were written, after the configuration was."""
    path = f"{tmp_path}/\udcff.npz"
    np.savez(path, **SPACE)
    for sources in (path, f"\udcff={path}", {"\udcff": SPACE["image"]}):
        with pytest.raises(DataError, match="UTF-8"):
            checked(sources)


def test_a_mask_without_a_modality_is_reported(tmp_path):
    """A typo in the name of a mask silently made absent rows present."""
    mask = np.arange(ITEMS) > 3
    np.savez(tmp_path / "a.npz", **SPACE, **{"present.imgae": mask, "present.text": mask})
    (finding,) = checked(tmp_path / "a.npz").findings_with("ignored")
    assert "present.imgae (no array of that name)" in finding.text
    assert "present.text" not in finding.text


def test_both_spellings_of_a_mask_are_combined():
    """The second of two masks of one modality replaced the first."""
    first, second = np.arange(ITEMS) > 3, np.arange(ITEMS) < 90
    found = checked(SPACE | {"present.image": first, "present/image": second})
    assert found.numbers == checked(SPACE | {"present.image": first & second}).numbers


def test_advice_for_equal_names_can_be_followed(tmp_path):
    """NAME=FILE is for files with one matrix; it was also advised for files with several."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "a.npz", **SPACE)
    with pytest.raises(ConfigError, match="name it once"):
        checked([tmp_path / "one/a.npz", tmp_path / "one/a.npz"])
    with pytest.raises(ConfigError, match="rename one of the files"):
        checked([tmp_path / "one/a.npz", tmp_path / "two/a.npz"])


def test_damage_inside_parquet_is_one_line(tmp_path):
    """The message of pyarrow has several lines."""
    (path,) = files(tmp_path, "fixed.parquet")
    content = bytearray(path.read_bytes())
    content[4:64] = bytes(range(196, 256))
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'image' cannot be read") as caught:
        checked(path)
    assert "\n" not in str(caught.value)


def test_a_named_pipe_raises_without_waiting(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        checked(tmp_path / "pipe")
