"""Test that reading the formats of other tools gives the rows and ids that were written."""

import json
import struct
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from format_writers import IDS, WRITERS, write_csv, write_faiss

from small_files import DIM, ITEMS, Space
from unialign.data import open_collection
from unialign.errors import DataError, MissingDependencyError
from unialign.readers import Collection, _rows, _table


def rows_of(collection: Collection, name: str) -> np.ndarray:
    modality = collection.modalities[name]
    found = modality.rows.take(range(collection.items))
    np.testing.assert_array_equal(modality.rows.take([1, 8]), found[[1, 8]])
    np.testing.assert_array_equal(np.asarray(modality.load(), np.float64), found.astype(np.float64))
    if modality.source.order_N is None:
        np.testing.assert_array_equal(np.concatenate([chunk.copy() for chunk in modality.rows.chunks()]), found)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_gives_its_rows_and_ids(
    tmp_path: Path, space: Space, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_rows, "CHUNK_BYTES", 7 * DIM * 4)
    z = space["image"]
    WRITERS[name](tmp_path / name, z)
    collection = open_collection(tmp_path / name)
    (modality,) = collection.modalities
    found = rows_of(collection, modality)
    np.testing.assert_allclose(found[:, :DIM], z, rtol=1e-6)
    expected = np.arange(ITEMS) + 100 if name.endswith(("faiss", "index")) else np.array(IDS)
    np.testing.assert_array_equal(collection.values["ids"], expected)
    assert "score" not in collection.modalities


def test_a_table_says_which_columns_were_taken_and_left(tmp_path: Path, space: Space) -> None:
    write_csv(tmp_path / "a.csv", space["image"], ",")
    collection = open_collection(tmp_path / "a.csv")
    assert any("8 columns, e0 to e7" in note for note in collection.notes)
    assert any("guessed to be 'id'; choose other ids with --id NAME" in note for note in collection.notes)
    assert any("score (one number per item" in entry for entry in collection.ignored)


def test_tables_of_plain_numbers_are_one_matrix(tmp_path: Path, space: Space) -> None:
    np.savetxt(tmp_path / "a.csv", space["image"], delimiter=",")
    np.savetxt(tmp_path / "b.txt", space["text"], header="made by numpy")
    collection = open_collection([tmp_path / "a.csv", tmp_path / "b.txt"])
    for name, z in zip(("a", "b"), space.values(), strict=True):
        np.testing.assert_allclose(rows_of(collection, name), z, rtol=1e-6)


@pytest.mark.parametrize("first", [0, 1])
def test_a_line_of_column_numbers_is_a_header(tmp_path: Path, space: Space, first: int) -> None:
    header = ",".join(str(first + d) for d in range(DIM))
    np.savetxt(tmp_path / "a.csv", space["image"], delimiter=",", header=header, comments="")
    collection = open_collection(tmp_path / "a.csv")
    np.testing.assert_allclose(rows_of(collection, "a"), space["image"], rtol=1e-6)
    assert any("is read as column names, not as an item" in note for note in collection.notes)


def test_two_column_numbers_are_a_header_above_fractions_only(tmp_path: Path) -> None:
    (tmp_path / "frame.csv").write_text("0,1\n0.5,-0.25\n0.125,1.0\n")
    (tmp_path / "plain.csv").write_text("0,1\n3,2\n4,1\n")
    frame = open_collection(tmp_path / "frame.csv")
    np.testing.assert_equal(frame.modalities["frame"].rows.take(range(2)), [[0.5, -0.25], [0.125, 1.0]])
    assert any("is read as column names" in note for note in frame.notes)
    with pytest.raises(DataError, match=r"0 \(3,\) <i8, 1 \(3,\) <i8"):  # integers are no embeddings
        open_collection(tmp_path / "plain.csv")


def test_text_that_starts_like_a_comment_is_a_row(tmp_path: Path, space: Space) -> None:
    captions = [f"# {i}" if i % 3 == 0 else f"caption {i}" for i in range(ITEMS)]
    rows = [",".join([text, *map(str, z.tolist())]) for text, z in zip(captions, space["text"], strict=True)]
    names = ",".join(["ids", *(f"e{d}" for d in range(DIM))])
    (tmp_path / "a.csv").write_text("\n".join(["# a comment", names, *rows]))
    collection = open_collection(tmp_path / "a.csv")
    assert collection.values["ids"].tolist() == captions
    np.testing.assert_allclose(rows_of(collection, "a"), space["text"], rtol=1e-6)


def test_an_empty_name_among_digits_stays_empty(tmp_path: Path, space: Space) -> None:
    names = ["" if i == 3 else f"{i}" for i in range(ITEMS)]
    rows = [{"image": z.tolist(), "names": name} for z, name in zip(space["image"], names, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows[3]["names"] = None
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for file in ("a.jsonl", "b.jsonl"):
        assert open_collection(tmp_path / file).values["names"].tolist() == names


def test_missing_vectors_of_tables_are_absent(tmp_path: Path, space: Space) -> None:
    """Regression test: empty lists determined the dim of the column, which gave shape (60, 0)."""
    z, gone = space["image"], np.arange(ITEMS) % 3 == 0
    lists = [[] if i % 2 else None for i in range(ITEMS)]
    rows: list[Any] = [lists[i] if gone[i] else z[i].tolist() for i in range(ITEMS)]
    pq.write_table(pa.table({"image": rows, "text": list(space["text"])}), tmp_path / "a.parquet")
    lines = [
        {"text": space["text"][i].tolist()} | ({} if row is None else {"image": row}) for i, row in enumerate(rows)
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cells = ["" if row is None else json.dumps(row) for row in rows]
    body = "\n".join(f'"{cell}"|{json.dumps(text.tolist())}' for cell, text in zip(cells, space["text"], strict=True))
    (tmp_path / "c.csv").write_text("image|text\n" + body)
    for name in ("a.parquet", "b.jsonl", "c.csv"):
        collection = open_collection(tmp_path / name)
        np.testing.assert_array_equal(collection.modalities["image"].present_N, ~gone)
        np.testing.assert_allclose(rows_of_present(collection, "image"), z[~gone], rtol=1e-6)
        assert collection.modalities["text"].present_N.all()
    pq.write_table(pa.table({"v": pa.array([[]] * 9, pa.list_(pa.float32()))}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="every row is null or empty"):
        open_collection(tmp_path / "d.parquet")


def rows_of_present(collection: Collection, name: str) -> np.ndarray:
    modality = collection.modalities[name]
    return modality.rows.take(np.flatnonzero(modality.present_N).tolist())


def test_decimal_commas_and_empty_cells_of_tables(
    tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = space["image"]
    labels = ["" if i % 5 == 0 else "cat" for i in range(ITEMS)]
    lines = [
        ";".join(["" if i == 7 else f"k{i}", labels[i], *(f"{x:.6f}".replace(".", ",") for x in row)])
        for i, row in enumerate(z)
    ]
    (tmp_path / "a.csv").write_text("\n".join([";".join(["id", "labels", *(f"e{d}" for d in range(DIM))]), *lines]))
    collection = open_collection(tmp_path / "a.csv")
    np.testing.assert_allclose(rows_of(collection, "a"), z, atol=1e-6)
    assert collection.labels_N is not None
    np.testing.assert_array_equal(collection.labels_N < 0, np.arange(ITEMS) % 5 == 0)
    assert any("'id' has empty cells" in note and "not used as ids" in note for note in collection.notes)
    table = {"image": list(z), "labels": [None if i % 5 == 0 else i % 3 for i in range(ITEMS)]}
    pq.write_table(pa.table(table), tmp_path / "b.parquet")
    np.testing.assert_array_equal(open_collection(tmp_path / "b.parquet").labels_N < 0, np.arange(ITEMS) % 5 == 0)
    monkeypatch.setattr(_table, "_VALUE_ROWS", 3)  # Some batches have no empty cell.
    pq.write_table(pa.table({**table, "labels": pa.array(table["labels"], pa.uint8())}), tmp_path / "c.parquet")
    expected = [-1 if i % 5 == 0 else i % 3 for i in range(ITEMS)]
    assert open_collection(tmp_path / "c.parquet").values["labels"].tolist() == expected
    table["labels"][1] = 2**64 - 1
    pq.write_table(pa.table({**table, "labels": pa.array(table["labels"], pa.uint64())}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="give every row a value"):
        open_collection(tmp_path / "d.parquet")


def test_quantized_vectors_are_read_as_what_they_are(tmp_path: Path, space: Space) -> None:
    z = np.hstack(list(space.values()))
    codes = np.clip(np.round(z * 40), -127, 127).astype(np.int8)
    packed = np.packbits(z > 0, axis=1)
    arrays = {"codes": codes, "unsigned": (codes.astype(np.int16) + 128).astype(np.uint8), "packed": packed}
    arrays |= {"signed": (packed.astype(np.int16) - 128).astype(np.int8), "bools": z > 0}
    np.savez(tmp_path / "a.npz", **arrays)
    pq.write_table(pa.table({"codes": list(codes), "packed": list(packed)}), tmp_path / "b.parquet")
    collection = open_collection(tmp_path / "a.npz")
    signs = np.where(z > 0, 1, -1)
    for name, expected in {"codes": codes, "packed": signs, "signed": signs, "bools": signs}.items():
        np.testing.assert_array_equal(rows_of(collection, name), expected)
        assert any(f"a.npz: {name}: " in note for note in collection.notes)
    np.testing.assert_array_equal(rows_of(collection, "unsigned"), arrays["unsigned"])
    collection = open_collection(tmp_path / "b.parquet")
    np.testing.assert_array_equal(rows_of(collection, "codes"), codes)
    np.testing.assert_array_equal(rows_of(collection, "packed"), signs)
    header = struct.pack("<iiqBi", 8 * packed.shape[1], packed.shape[1], ITEMS, 1, 1)
    (tmp_path / "c.faiss").write_bytes(b"IBxF" + header + struct.pack("<Q", packed.size) + packed.tobytes())
    np.testing.assert_array_equal(rows_of(open_collection(tmp_path / "c.faiss"), "c"), signs)


def test_flat_indexes_are_those_that_faiss_writes(tmp_path: Path, space: Space) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexIDMap(faiss.IndexFlatIP(DIM))
    index.add_with_ids(space["image"], np.arange(ITEMS) + 100)
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    write_faiss(tmp_path / "b.faiss", space["image"])
    assert (tmp_path / "a.faiss").read_bytes() == (tmp_path / "b.faiss").read_bytes()


def write_anndata(group: Any, names: list[str], matrices: dict[str, np.ndarray], counts: np.ndarray) -> None:
    group.attrs["encoding-type"] = "anndata"
    obs = group.create_group("obs")
    obs.attrs["_index"] = "cells"
    obs["cells"] = names
    kind = obs.create_group("kind")
    kind.attrs["encoding-type"] = "categorical"
    kind["codes"], kind["categories"] = np.arange(len(names), dtype=np.int8) % 3 - 1, ["b", "t"]
    group.create_group("var")
    for key, z in matrices.items():
        group.require_group("obsm")[key] = z
    x = group.create_group("X")
    x.attrs["encoding-type"], x.attrs["shape"] = "csr_matrix", counts.shape
    rows, columns = np.nonzero(counts)
    x["data"], x["indices"] = counts[rows, columns], columns.astype(np.int32)
    x["indptr"] = np.searchsorted(rows, np.arange(len(counts) + 1)).astype(np.int32)


def test_anndata_gives_its_embeddings_and_cells(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rows, "CHUNK_BYTES", 7 * DIM * 4)
    counts = np.maximum(space["text"], 0)
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        write_anndata(file, IDS, {"X_pca": space["image"], "X_umap": space["image"][:, :2]}, counts)
    collection = open_collection(tmp_path / "a.h5ad")
    assert list(collection.modalities) == ["X_pca"]
    np.testing.assert_array_equal(rows_of(collection, "X_pca"), space["image"])
    assert collection.values["ids"].tolist() == IDS
    chosen = open_collection(tmp_path / "a.h5ad", modalities=["X", "obsm/X_umap"])
    np.testing.assert_array_equal(rows_of(chosen, "X"), counts)
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        x = file["X"]
        data, indices, indptr = (x[part][()] for part in ("data", "indices", "indptr"))
        bounds = list(pairwise(indptr))
        for part, values in {"data": data, "indices": indices}.items():
            del x[part]
            x[part] = np.concatenate([np.tile(values[a:b], 2) for a, b in bounds])
        x["indptr"][:] = 2 * indptr
    np.testing.assert_array_equal(rows_of(open_collection(tmp_path / "a.h5ad", modalities=["X"]), "X"), 2 * counts)
    kinds = open_collection(tmp_path / "a.h5ad", id="obs/kind").values["ids"]
    assert kinds[:3].tolist() == ["", "b", "t"]


def test_mudata_gives_each_modality_in_the_order_of_the_cells(tmp_path: Path, space: Space) -> None:
    """Cells that a modality lacks are absent; `obsmap` has the row number of each cell from 1, or 0 if absent."""
    order, kept = (
        np.random.default_rng(0).permutation(ITEMS)[:40],
        np.sort(np.random.default_rng(1).permutation(ITEMS)[:50]),
    )
    with h5py.File(tmp_path / "a.h5mu", "w", userblock_size=512) as file:
        assert file.userblock_size == 512
        file.attrs["encoding-type"] = "MuData"
        obs = file.create_group("obs")
        obs.attrs["_index"] = "_index"
        obs["_index"] = IDS
        for name, rows in {"rna": order, "prot": kept}.items():
            z = space["image" if name == "rna" else "text"]
            matrices = {"X_pca": z[rows]} if name == "rna" else {}
            write_anndata(file.create_group(f"mod/{name}"), [IDS[row] for row in rows], matrices, np.abs(z[rows]))
            if name == "rna":
                places = np.zeros(ITEMS, np.uint32)
                places[rows] = np.arange(len(rows)) + 1
                file[f"obsmap/{name}"] = places
        file["mod"].attrs["mod-order"] = ["rna", "prot"]
    with (tmp_path / "a.h5mu").open("r+b") as block:
        block.write(b"MuData (format-version=0.1.0;creator=muon;creator-version=0.2.0)")
    collection = open_collection(tmp_path / "a.h5mu")
    assert list(collection.modalities) == ["rna", "prot"]
    for name, rows, z in (("rna", order, space["image"]), ("prot", kept, np.abs(space["text"]))):
        present = np.isin(np.arange(ITEMS), rows)
        np.testing.assert_array_equal(collection.modalities[name].present_N, present)
        np.testing.assert_allclose(rows_of(collection, name)[present], z[present])


def test_formats_of_extras_name_them(tmp_path: Path, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module, extra in (("plain.h5", "h5py", "hdf5"), ("a.arrow", "pyarrow.ipc", "parquet")):
        WRITERS[name](tmp_path / name, space["image"])
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError, match=rf"unialign\[{extra}\]"):
            open_collection(tmp_path / name)
