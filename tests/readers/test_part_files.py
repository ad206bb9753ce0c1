"""Test that part files, given by name, folder or pattern, are read as one modality in numeric order."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from small_files import ITEMS, Space
from unialign.data import load_dataset, open_collection
from unialign.errors import DataError, ShapeError
from unialign.readers import Collection

Rows = dict[str, np.ndarray]


def assert_rows(collection: Collection, expected: Rows) -> None:
    assert sorted(collection.modalities) == sorted(expected)
    for name, z in expected.items():
        modality = collection.modalities[name]
        np.testing.assert_array_equal(modality.load(), z)
        np.testing.assert_array_equal(modality.rows.take([0, 7, 31, ITEMS - 1]), z[[0, 7, 31, ITEMS - 1]])
        np.testing.assert_array_equal(np.concatenate([chunk.copy() for chunk in modality.rows.chunks()]), z)


def save_parts(z: np.ndarray, folder: Path, pattern: str, *, parts: int = 12) -> list[Path]:
    folder.mkdir(exist_ok=True, parents=True)
    bounds = np.linspace(0, len(z), parts + 1).astype(int) // 1
    paths = [folder / pattern.format(i) for i in range(parts)]
    for path, start, stop in zip(paths, bounds[:-1], bounds[1:], strict=True):
        np.save(path, z[start:stop])
    return paths


def test_numbered_files_are_parts_in_the_order_of_their_numbers(tmp_path: Path, space: Space) -> None:
    paths = [
        path
        for name, z in {"img_emb": space["image"], "text_emb": space["text"]}.items()
        for path in save_parts(z, tmp_path, f"{name}_{{}}.npy")
    ]
    expected = {"img_emb": space["image"], "text_emb": space["text"]}
    collection = open_collection(sorted(paths))
    assert_rows(collection, expected)
    assert "12 part files are concatenated" in collection.notes[0]
    assert_rows(open_collection(tmp_path), expected)
    assert_rows(open_collection(f"{tmp_path}/*.npy"), expected)
    patterns = [f"image={tmp_path}/img_emb_*.npy", f"text={tmp_path}/text_emb_*.npy"]
    assert_rows(open_collection(patterns), space)


def test_numbers_that_do_not_count_parts_are_names(tmp_path: Path, space: Space) -> None:
    """Files numbered by layer, view, year or seed are different modalities."""
    cases = [("layer_0", "layer_6"), ("view1", "view2"), ("emb_2019", "emb_2020"), ("run-seed_0", "run-seed_1")]
    for names in cases:
        paths = [tmp_path / f"{name}.npy" for name in names]
        for path, z in zip(paths, space.values(), strict=True):
            np.save(path, z)
        assert list(open_collection(paths).modalities) == list(names)
    for i, dim in enumerate((4, 8)):  # Files of different dim are not parts of one modality.
        np.save(tmp_path / f"emb_{i}.npy", space["image"][:, :dim])
    paths = [tmp_path / "emb_0.npy", tmp_path / "emb_1.npy"]
    assert list(open_collection(paths).modalities) == ["emb_0", "emb_1"]


def write_tables(space: Space, folder: Path, names: list[str]) -> list[Path]:
    folder.mkdir(exist_ok=True, parents=True)
    paths = [folder / name for name in names]
    for rows, path in zip(np.array_split(np.arange(ITEMS), len(paths)), paths, strict=True):
        text = [None if row % 25 == 3 else space["text"][row] for row in rows]
        columns: dict[str, Any] = {"image": list(space["image"][rows]), "text": text, "id": [f"k{row}" for row in rows]}
        pq.write_table(pa.table(columns), path)
    return paths


def test_shards_of_tables_are_one_table(tmp_path: Path, space: Space) -> None:
    paths = write_tables(space, tmp_path, [f"train-{i:05d}-of-00004.parquet" for i in range(4)])
    collection = open_collection(paths[::-1])
    np.testing.assert_array_equal(collection.modalities["image"].load(), space["image"])
    present = np.arange(ITEMS) % 25 != 3
    np.testing.assert_array_equal(collection.modalities["text"].present_N, present)
    assert collection.values["ids"].tolist() == [f"k{i}" for i in range(ITEMS)]
    with pytest.raises(DataError, match="3 of 4 parts of 'train' are given; missing parts: 2"):
        open_collection([paths[0], paths[1], paths[3]])
    alone = open_collection(paths[0])
    assert alone.items == 15
    assert f"{paths[0]} is one of 4 parts; '{paths[0].parent}/train*.parquet' reads all" in alone.notes
    assert not any("parts;" in note for note in collection.notes)


def test_shards_with_names_of_splits_give_the_split(tmp_path: Path, space: Space) -> None:
    plain = [f"train-{i:05d}-of-00002.parquet" for i in range(2)] + ["validation-00000-of-00001.parquet"]
    hashed = [name.replace(".parquet", "-0123456789abcdef.parquet") for name in plain]
    folders = ["train/data-0.parquet", "train/data-1.parquet", "validation/data-0.parquet"]
    for i, shards in enumerate((plain, hashed, folders)):
        for folder in {Path(name).parent for name in shards}:
            (tmp_path / str(i) / folder).mkdir(parents=True)
        write_tables(space, tmp_path / str(i), shards)
        with pytest.warns(UserWarning, match="part files"):
            store = load_dataset(tmp_path / str(i))
        assert store.modalities == ("image", "text")
        assert [len(store.rows(name)) for name in ("train", "val", "test")] == [40, 20, 0]


@pytest.mark.parametrize("place", ["{split}/{name}.npy", "{name}/{split}.npy"])
@pytest.mark.parametrize("dim", [8, 5])
def test_modalities_in_folders_of_splits_stay_apart(tmp_path: Path, space: Space, place: str, dim: int) -> None:
    data = {"image": space["image"], "text": space["text"][:, :dim]}
    for split, rows in {"train": slice(0, 40), "val": slice(40, ITEMS)}.items():
        for name, z in data.items():
            path = tmp_path / place.format(split=split, name=name)
            path.parent.mkdir(exist_ok=True)
            np.save(path, z[rows])
    collection = open_collection(tmp_path)
    assert_rows(collection, data)
    assert collection.values["split"].tolist() == ["train"] * 40 + ["val"] * 20


def test_a_folder_named_after_a_split_holds_modalities(tmp_path: Path, space: Space) -> None:
    (tmp_path / "test").mkdir()
    for name in ("image", "text"):
        np.save(tmp_path / "test" / f"{name}.npy", space[name])
    collection = open_collection(tmp_path / "test")
    assert_rows(collection, {"image": space["image"], "text": space["text"]})
    assert "split" not in collection.values


def test_folders_of_clip_retrieval(tmp_path: Path, space: Space) -> None:
    for name, z in {"img_emb": space["image"], "text_emb": space["text"]}.items():
        save_parts(z.astype(np.float16), tmp_path / name, f"{name}_{{}}.npy", parts=3)
    (tmp_path / "metadata").mkdir()
    for i, rows in enumerate(np.split(np.arange(ITEMS), 3)):
        names = [f"{row:09d}" for row in rows]
        columns = {"key": names, "caption": names, "similarity": rows / 7, "punsafe": rows / 9, "pwatermark": rows / 8}
        pq.write_table(pa.table(columns), tmp_path / "metadata" / f"metadata_{i}.parquet")
    (tmp_path / "stats.json").write_text(json.dumps({"items": 60}))
    collection = open_collection(tmp_path)
    assert_rows(
        collection, {"img_emb": space["image"].astype(np.float16), "text_emb": space["text"].astype(np.float16)}
    )
    assert collection.values["ids"][7] == "000000007"
    assert any("punsafe" in entry for entry in collection.ignored)
    np.save(tmp_path / "text_emb" / "text_emb_1.npy", space["text"][:19])
    np.save(tmp_path / "text_emb" / "text_emb_2.npy", space["text"][:21])
    with pytest.raises(DataError, match=r"text_emb_1\.npy has 19 rows, .*img_emb_1\.npy has 20"):
        open_collection(tmp_path)


def test_parts_that_do_not_fit_raise(tmp_path: Path, space: Space) -> None:
    np.save(tmp_path / "a-00000-of-00002.npy", space["image"])
    np.save(tmp_path / "a-00001-of-00002.npy", space["image"][:, :4])
    with pytest.raises(
        ShapeError, match=r"has shape \(60, 4\), but .* has \(60, 8\); parts of a modality must have the same dim"
    ):
        open_collection(tmp_path)
    with pytest.raises(DataError, match=re.escape("no file matches")):
        open_collection(f"{tmp_path}/nothing*.npy")
