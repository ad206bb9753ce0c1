"""Test the items of CSV, JSON lines, Parquet and Arrow files, and of folders with a metadata file."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from unialign.data import Items
from unialign.errors import ConfigError, DataError
from unialign.media import Cell
from unialign.readers import csv as csv_reader

CAPTIONS = ["A cat, red.", 'two "lines"\nof text', " "]
ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "photo": "a.png",
        "caption": CAPTIONS[0],
        "speech_fr_file_name": "fr/a.ogg",
        "group": 1,
        "split": "dev",
    },
    {"id": "b", "photo": None, "caption": CAPTIONS[1], "speech_fr_file_name": "./b.ogg", "group": 1, "split": "train"},
    {"id": "ü", "photo": "gone.png", "caption": CAPTIONS[2], "speech_fr_file_name": None, "group": 2, "split": "test"},
]


def write_csv(path: Path, rows: list[dict[str, Any]], mark: str = ",") -> None:
    def cell(value: Any) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & {mark, '"', "\n"} else text

    lines = [mark.join(rows[0]), *(mark.join(map(cell, row.values())) for row in rows)]
    path.write_text("\n".join(lines), "utf-8-sig")


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "m.csv": write_csv,
    "m.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "m.jsonl": lambda path, rows: path.write_text("\n".join(json.dumps(row) for row in rows)),
    "m.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2),
    "m.feather": lambda path, rows: feather.write_feather(pa.Table.from_pylist(rows), path, chunksize=1),
}


def test_all_formats_give_the_same_items(tmp_path: Path) -> None:
    found = {}
    for name, write in WRITERS.items():
        write(tmp_path / name, ROWS)
        items = Items.open(tmp_path / name, root=tmp_path / "media")
        found[name] = list(items.records())
        assert items.kinds == {"photo": "image", "caption": "text", "speech_fr": "audio"}, name
        assert items.roots == (tmp_path / "media",)
        assert items.name == "m"
    assert found["m.csv"] == [
        {
            "id": "a",
            "cells": {
                "photo": {"path": "a.png"},
                "caption": {"value": "A cat, red."},
                "speech_fr": {"path": "fr/a.ogg"},
            },
            "group": "1",
            "split": "val",
        },
        {
            "id": "b",
            "cells": {"caption": {"value": 'two "lines"\nof text'}, "speech_fr": {"path": "b.ogg"}},
            "group": "1",
            "split": "train",
        },
        {"id": "ü", "cells": {"photo": {"path": "gone.png"}}, "group": "2", "split": "test"},
    ]
    assert all(records == found["m.csv"] for records in found.values())


def test_rules_choose_columns_by_name(tmp_path: Path) -> None:
    first = {"key": "x", "en": "a cat", "fr": "", "best": "b.wav", "other": "c.wav", "kind": "k", "same": 3}
    second = {"key": "y", "en": "", "fr": "un chien", "best": "", "other": "d.wav", "kind": "", "same": 3}
    write_csv(tmp_path / "m.csv", [first, second])
    items = Items.open(
        tmp_path / "m.csv",
        rules={"text": ["en", "fr"], "noise": ["best", "other"]},
        kinds={"noise": "audio"},
        label="kind",
        ids="same",
    )
    assert list(items.records()) == [
        {"id": "x", "cells": {"text": {"value": "a cat"}, "noise": {"path": "b.wav"}}, "label": "k", "ids": "3"},
        {"id": "y", "cells": {"text": {"value": "un chien"}, "noise": {"path": "d.wav"}}, "ids": "3"},
    ]
    assert items.notes == ()
    items = Items.open(tmp_path / "m.csv", rules={"text": "en"})
    assert items.notes == (f"{tmp_path / 'm.csv'}: columns without a rule are not used: fr, best, other, kind, same",)


def test_clips_are_spans_of_files(tmp_path: Path) -> None:
    lines = ["id,clip,clip.start,clip.end", "a,v.mp4,1.5,3", "b,v.mp4,,", "c,v.mp4,3,2", "d,v.mp4,x,2"]
    (tmp_path / "m.csv").write_text("\n".join(lines[:3]))
    items = Items.open(tmp_path / "m.csv")
    assert items.cell(0, "clip") == Cell(path="v.mp4", span=(1.5, 3.0))
    assert items.cell(1, "clip") == Cell(path="v.mp4")
    (tmp_path / "m.csv").write_text("\n".join(lines[:4]))
    with pytest.raises(DataError, match=r"m\.csv, line 4: the cell of 'clip' is not valid.*start < end"):
        Items.open(tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("\n".join([*lines[:3], lines[4]]))
    with pytest.raises(DataError, match=r"m\.csv, line 4: clip\.start and clip\.end are 'x' and '2', expected seconds"):
        Items.open(tmp_path / "m.csv")


def test_lists_of_captions_are_items_with_equal_ids(tmp_path: Path) -> None:
    rows = [
        {"key": "v1", "video": "v1.mp4", "caption": ["a", "b"]},
        {"key": "v2", "video": "v2.mp4", "caption": []},
        {"key": "v3", "video": "v3.mp4", "caption": ["c"]},
    ]
    for name in ("m.jsonl", "m.parquet"):
        WRITERS[name](tmp_path / name, rows)
        items = Items.open(tmp_path / name)
        assert items.keys.tolist() == ["v1/0", "v1/1", "v2/0", "v3/0"]
        assert items.ids.tolist() == items.groups.tolist() == [0, 0, 1, 2]
        assert [cell and cell.value for cell in (items.cell(row, "caption") for row in range(4))] == [
            "a",
            "b",
            None,
            "c",
        ]
        cells, index = items.column("video")
        assert (len(cells), index.tolist()) == (3, [0, 0, 1, 2])
        assert "each text in the lists of 'caption' is an item" in items.notes[0]


def test_vectors_are_values_in_text_and_references_in_tables(tmp_path: Path) -> None:
    rows = [{"id": "a", "gene": [1.0, 2.5]}, {"id": "b", "gene": None}, {"id": "c", "gene": []}]
    WRITERS["m.jsonl"](tmp_path / "m.jsonl", rows)
    items = Items.open(tmp_path / "m.jsonl")
    assert items.kinds == {"gene": "array"}
    assert items.cell(0, "gene") == Cell(value=(1.0, 2.5))
    (tmp_path / "m.csv").write_text('id,gene\na,"[1.0, 2.5]"\nb,\n')
    assert Items.open(tmp_path / "m.csv").cell(0, "gene") == Cell(value=(1.0, 2.5))
    for name in ("m.parquet", "m.feather"):
        WRITERS[name](tmp_path / name, rows)
        items = Items.open(tmp_path / name)
        assert items.cell(0, "gene") == Cell(table=name, column="gene", row=0)
        assert items.present("gene").tolist() == [True, False, False]


def test_bytes_stay_in_the_table(tmp_path: Path) -> None:
    for nulls in (False, True):
        table = pa.table({"image": pa.array([b"x", None if nulls else b"y", b"z"]), "blob": pa.array([b"1"] * 3)})
        pq.write_table(table, tmp_path / "m.parquet", row_group_size=2)
        items = Items.open(tmp_path / "m.parquet")
        assert items.modalities == ("image",)
        assert items.present("image").tolist() == [True, not nulls, True]
        assert items.cell(2, "image") == Cell(table="m.parquet", column="image", row=2)
        assert Items.open(tmp_path / "m.parquet", rules={"sound": "blob"}, kinds={"sound": "audio"}).kinds == {
            "sound": "audio"
        }
    # Without statistics, the column is read to find the absent cells.
    pq.write_table(table, tmp_path / "m.parquet", write_statistics=False)
    assert Items.open(tmp_path / "m.parquet").present("image").tolist() == [True, False, True]


def test_lines_of_saved_tables_are_a_manifest(tmp_path: Path) -> None:
    records = [
        {"id": "a", "image": "a.png", "text": "x", "label": "k"},
        {"id": "b", "clip": {"path": "v.mp4", "span": [1, 2]}},
    ]
    items = Items.from_records(records, root=tmp_path)
    (tmp_path / "lines.jsonl").write_bytes(b"".join(items.lines()))
    again = Items.open(tmp_path / "lines.jsonl")
    assert list(again.records()) == list(items.records())
    assert again.kinds == items.kinds


def test_several_files_are_one_table(tmp_path: Path) -> None:
    for split, rows in (("train", 3), ("test", 2)):
        for part in range(2):
            table = pa.table({"text": [f"{split} {part} {row}" for row in range(rows)], "more": [1] * rows})
            pq.write_table(table, tmp_path / f"{split}-{part:05d}-of-00002.parquet")
    items = Items.open(f"{tmp_path}/*.parquet")
    assert items.keys.tolist() == [*(f"test/{i}" for i in range(4)), *(f"train/{i}" for i in range(6))]
    assert items.split.tolist() == [2] * 4 + [0] * 6
    assert items.name == tmp_path.name
    one = Items.open([tmp_path / f"train-{part:05d}-of-00002.parquet" for part in range(2)])
    assert one.keys.tolist() == list(map(str, range(6)))
    assert not one.has_split
    assert Items.open(f"{tmp_path}/train-0000{{0..1}}-of-00002.parquet").fingerprint == one.fingerprint
    pq.write_table(pa.table({"caption": ["x"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet has no column 'text', which .*train.* has"):
        Items.open([tmp_path / "train-00000-of-00002.parquet", tmp_path / "other.parquet"])
    (tmp_path / "x.csv").write_text("text\nx\n")
    with pytest.raises(DataError, match=r"is read as parquet and .* as csv"):
        Items.open([tmp_path / "other.parquet", tmp_path / "x.csv"])


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_metadata_beside_the_media(tmp_path: Path, name: str) -> None:
    rows = [{"file_name": "x/1.png", "text": "one", "label": "a"}, {"file_name": "2.png", "text": "two", "label": "b"}]
    (tmp_path / "data" / "x").mkdir(parents=True)
    for path in ("x/1.png", "2.png", "3.png"):
        (tmp_path / "data" / path).touch()
    WRITERS[name.replace("metadata", "m")](tmp_path / "data" / name, rows)
    items = Items.open(tmp_path / "data")
    assert next(items.records()) == {
        "id": "x/1.png", "cells": {"image": {"path": "x/1.png"}, "text": {"value": "one"}}, "label": "a",
    }  # fmt: skip
    # A rule with suffixes ignores the metadata.
    assert Items.open(tmp_path / "data", rules={"image": ".png"}).keys.tolist() == ["2", "3", "x/1"]
    (tmp_path / "data").rename(tmp_path / "train")
    (tmp_path / "set" / "validation").mkdir(parents=True)
    (tmp_path / "train").rename(tmp_path / "set" / "train")
    WRITERS[name.replace("metadata", "m")](tmp_path / "set" / "validation" / name, rows[:1])
    items = Items.open(tmp_path / "set")
    assert items.keys.tolist() == ["train/x/1.png", "train/2.png", "validation/x/1.png"]
    assert items.split.tolist() == [0, 0, 1]
    assert items.cell(2, "image") == Cell(path="validation/x/1.png")


def test_paths_outside_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    outside, inside = tmp_path / "x" / "a.png", tmp_path / "m" / "b.png"
    (tmp_path / "m" / "m.csv").write_text(f"id,image\n1,{inside}\n2,{outside}\n")
    with pytest.raises(DataError, match=r"m\.csv, line 3: .*/x/a\.png is outside of .*/m; pass the common"):
        Items.open(tmp_path / "m" / "m.csv")
    assert Items.open(tmp_path / "m" / "m.csv", root=tmp_path).cell(1, "image") == Cell(path="x/a.png")
    items = Items.open(tmp_path / "m" / "m.csv", allow_absolute=True)
    assert items.roots == (tmp_path / "m", Path("/"))
    assert items.cell(0, "image") == Cell(path="b.png")
    assert items.cell(1, "image") == Cell(path=str(outside)[1:], root=1)
    for path in ("../x/a.png", "a/../../x/a.png", "https://a.b/c.png"):
        (tmp_path / "m" / "m.csv").write_text(f"id,image\n1,{path}\n")
        with pytest.raises(DataError, match=r"line 2: .*is (outside|a URL)"):
            Items.open(tmp_path / "m" / "m.csv")


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("id,image\n1,a.png\n1,b.png\n", {}, "'1' occurs twice: .*line 2 and .*line 3"),
        ('id,text\n1,"a\nb"\n2,c\n2,d\n', {}, "'2' occurs twice: .*line 4 and .*line 5"),
        ("id,image\n1,a.png,x\n", {}, "line 2 has 3 cells, but the first line has 2"),
        ("id,image\n1,a.png\n2\n", {}, "line 3 has 1 cells"),
        ("id,image,image\n1,a,b\n", {}, "several columns called 'image'"),
        ("id,title\n1,a\n", {}, "has the columns id, title, none of which is evidently a modality.*--rule text=id"),
        ("id,title\n1,a\n", {"rules": {"text": "titel"}}, "has no column 'titel'; it has id, title"),
        ("id,title\n1,a\n", {"rules": {"text": "title"}, "label": "class"}, "has no column 'class'"),
        ("id,text\n1,\n2, \n", {"rules": {"text": "text"}}, "modality 'text' of 'm' has no cell in any item"),
        ("id,text,split\n1,x,other\n", {}, "line 2: split is 'other', expected one of train, training, val"),
        ("7,8,9\n4,5,6\n", {}, "has no column names"),
        ("id,text\n", {}, "'m' has no items"),
        ("id,text\n1,x\n", {"kinds": {"text": "image"}}, ""),
        ("id,v\n1,\"[1, 2]\"\n", {"rules": {"image": "v"}}, "the column 'v' holds vectors, which cannot be image"),
        ("id,v\n1,\"[1, 2]\"\n2,\"[x]\"\n", {}, r"line 3: \[x\] is not a list of numbers"),
        ("file_name,photo_file_name,image\na.png,b.png,c.png\n", {}, "both 'file_name' and 'image' may be 'image'"),
    ],
)  # fmt: skip
def test_faults_of_a_manifest_are_named(tmp_path: Path, text: str, options: dict[str, Any], words: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    if not words:
        assert Items.open(tmp_path / "m.csv", **options).kinds == {"text": "image"}
        return
    with pytest.raises((DataError, ConfigError), match=f"(?s){words}"):
        Items.open(tmp_path / "m.csv", **options)


def test_bytes_that_are_no_text_and_long_lines_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"id,text\n1,caf\xc3\xa9\n2,caf\xe9\n")
    with pytest.raises(DataError, match=r"m\.csv, line 3 is not UTF-8 \(byte 5: 0xe9\)"):
        Items.open(tmp_path / "m.csv")
    for name, start in (("m.csv", b"id,text\n1,x\n"), ("m.jsonl", b'{"id": "1", "text": "x"}\n')):
        with (tmp_path / name).open("wb") as file:
            file.write(start + b"x" * (1 << 17))
            file.truncate(2 << 30)  # a line of 2 GB; the file is sparse
        with pytest.raises(DataError, match=f"{name}, line . is longer than 16 MiB"):
            Items.open(tmp_path / name)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.csv"
    path.write_text("id,text\n1,x\n2,y\n")
    rows = csv_reader.CsvItems.rows

    def changing(self: Any, *arguments: Any) -> Any:
        for row in rows(self, *arguments):
            os.utime(path, ns=(0, 0))
            yield row

    monkeypatch.setattr(csv_reader.CsvItems, "rows", changing)
    with pytest.raises(DataError, match=r"m\.csv changed while it was read; read it again"):
        Items.open(path)


def test_readers_without_items_are_named(tmp_path: Path) -> None:
    (tmp_path / "words.vec").write_text("2 2\na 1 2\nb 3 4\n")
    with pytest.raises(
        ConfigError, match=r"the reader 'word2vec' reads arrays, but no items; readers of items are arrow, csv, folder"
    ):
        Items.open(tmp_path / "words.vec", reader="word2vec")
    with pytest.raises(DataError, match=r"words\.vec has the format word2vec, which is read as embeddings"):
        Items.open(tmp_path / "words.vec")
    with pytest.raises(ConfigError, match="no source is given"):
        Items.open([])
    with pytest.raises(DataError, match="no file matches"):
        Items.open(f"{tmp_path}/*.csv")
