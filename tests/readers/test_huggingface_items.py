"""Test the items of data sets of `datasets`: folders of `save_to_disk`, and Parquet files with its schema."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unialign.data import Items
from unialign.errors import DataError
from unialign.media import Cell, load_cell

MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "image": {"_type": "Image"},
    "sound": {"_type": "Audio", "sampling_rate": 16000},
    "label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
    "caption": {"dtype": "string", "_type": "Value"},
    "vector": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"},
}


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 3), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def table(rows: list[dict[str, Any]], features: dict[str, Any] | None = None) -> pa.Table:
    schema = pa.schema(
        [
            ("image", MEDIA), ("sound", MEDIA), ("label", pa.int64()), ("caption", pa.string()),
            ("vector", pa.list_(pa.float32())),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": FEATURES if features is None else features}})},
    )  # fmt: skip
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


ROWS: list[dict[str, Any]] = [
    {"image": {"bytes": png(10), "path": "a.png"}, "label": 1, "caption": "one", "vector": [1, 2]},
    {"image": None, "sound": {"bytes": b"RIFF", "path": None}, "label": -1, "caption": "", "vector": None},
    {"image": {"bytes": None, "path": "sub/c.png"}, "sound": {"bytes": None, "path": None}, "label": 0, "vector": []},
    {"image": {"bytes": png(40), "path": None}, "label": None, "caption": "four", "vector": [3, 4]},
]


def save(folder: Path, rows: list[dict[str, Any]], *, files: int = 2, split: str | None = None, **state: Any) -> Path:
    """Write the files of `Dataset.save_to_disk`."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    for name, part in zip(names, np.array_split(np.arange(len(rows)), files), strict=True):
        data = table([rows[i] for i in part])
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, data.schema) as stream:
            stream.write_table(data, max_chunksize=1)
    body = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": split} | state
    (folder / "state.json").write_text(json.dumps(body))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def check(items: Items, file: str) -> None:
    assert items.kinds == {"image": "image", "sound": "audio", "caption": "text", "vector": "array"}
    assert items.label_names == ("cat", "dog")
    assert items.labels.tolist() == [1, -1, 0, -1]  # -1 and null are no label
    assert items.present("image").tolist() == [True, False, True, True]
    assert items.present("sound").tolist() == [False, True, False, False]
    assert items.present("caption").tolist() == [True, False, False, True]
    assert items.present("vector").tolist() == [True, False, False, True]
    cell = items.cell(0, "image")
    assert cell == Cell(table=file, column="image.bytes", row=0)
    assert items.cell(2, "image") == Cell(path="sub/c.png")  # only the path is stored
    for row, red in ((0, 10), (3, 40)):
        image = load_cell(items.cell(row, "image"), "image", roots=items.roots)  # type: ignore[arg-type]
        assert isinstance(image, np.ndarray)
        assert image.shape == (3, 2, 3)
        assert image[0, 0].tolist() == [red, 0, 0]
        vector = load_cell(items.cell(row, "vector"), "array", roots=items.roots)  # type: ignore[arg-type]
        assert np.asarray(vector).tolist() == ROWS[row]["vector"]


@pytest.mark.parametrize("group", [1, 2, 100])
def test_parquet_of_datasets(tmp_path: Path, group: int) -> None:
    pq.write_table(table(ROWS), tmp_path / "t.parquet", row_group_size=group)
    check(Items.open(tmp_path / "t.parquet"), "t.parquet")


def test_a_folder_of_save_to_disk(tmp_path: Path) -> None:
    items = Items.open(save(tmp_path / "pets", ROWS, files=1))
    check(items, "data-00000-of-00001.arrow")
    assert (items.name, items.keys.tolist(), items.has_split) == ("pets", ["0", "1", "2", "3"], False)
    items = Items.open(save(tmp_path / "parts", ROWS, files=3))
    check(items, "data-00000-of-00003.arrow")
    assert items.cell(3, "image") == Cell(table="data-00002-of-00003.arrow", column="image.bytes", row=0)


def test_a_dataset_dict_gives_the_splits(tmp_path: Path) -> None:
    for split, rows in (("train", ROWS), ("validation", ROWS[:1]), ("extra", ROWS[:2])):
        save(tmp_path / "d" / split, rows, files=1)
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "extra"]}))
    items = Items.open(tmp_path / "d")
    assert items.keys.tolist() == ["train/0", "train/1", "train/2", "train/3", "validation/0", "extra/0", "extra/1"]
    assert items.split.tolist() == [0, 0, 0, 0, 1, -1, -1]
    assert items.cell(4, "image") == Cell(table="validation/data-00000-of-00001.arrow", column="image.bytes", row=0)


def test_without_the_schema_of_datasets_names_and_paths_tell_the_kind(tmp_path: Path) -> None:
    pq.write_table(table(ROWS, features={}), tmp_path / "t.parquet")
    items = Items.open(tmp_path / "t.parquet", rules={"photo": "image", "text": "caption"}, label="label")
    assert items.kinds == {"photo": "image", "text": "text"}
    assert items.label_names == ("-1", "0", "1")  # integers without names are classes


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "state.json").write_text("{}"), "lists no Arrow files"),
        (lambda f: (f / "state.json").write_text("["), "state.json cannot be read"),
        (
            lambda f: (f / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}'),
            "lists no Arrow files",
        ),
        (
            lambda f: (f / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}'),
            "x.arrow cannot be read",
        ),
        (
            lambda f: (f / "data-00000-of-00002.arrow").write_bytes(b"\xff\xff\xff\xff" + b"x" * 90),
            "not a readable Arrow",
        ),
        (lambda f: (f.parent / "dataset_dict.json").write_text('{"splits": ["../train"]}'), "lists no splits"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, damage: Any, words: str) -> None:
    folder = save(tmp_path / "set" / "train", ROWS)
    damage(folder)
    with pytest.raises(DataError, match=words):
        Items.open(tmp_path / "set" if (tmp_path / "set" / "dataset_dict.json").exists() else folder)


def test_selections_and_links_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "a", ROWS, _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(DataError, match=r"a selection of rows; save it again with flatten_indices\(\)"):
        Items.open(folder)
    folder = save(tmp_path / "b", ROWS, files=1)
    (folder / "data-00000-of-00001.arrow").rename(tmp_path / "moved.arrow")
    (folder / "data-00000-of-00001.arrow").symlink_to(tmp_path / "moved.arrow")
    with pytest.raises(DataError, match="link out of the folder"):
        Items.open(folder)
