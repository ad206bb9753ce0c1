"""Test the table of items: values, modalities, selections, and what is not a valid record."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from unialign.data import Items
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.media import Cell

RECORDS: list[dict[str, Any]] = [
    {"id": "cat", "image": "a/cat.png", "text": "A cat.", "group": 7, "ids": "felis", "label": ["mammal", "pet"]},
    {"id": "dog", "image": None, "text": " \n", "split": "test"},
    {"id": "kitten", "image": "a/cat.png", "text": "A cat.", "group": "7", "ids": "felis", "label": "animal"},
    {"id": "bird", "image": {"path": "b.png"}, "split": "train"},
]


@pytest.fixture
def items() -> Items:
    return Items.from_records(RECORDS, root="photos", name="pets", license="CC0-1.0")


def test_values_of_the_items(items: Items) -> None:
    assert len(items) == 4
    assert (items.name, items.license, items.roots) == ("pets", "CC0-1.0", (Path.cwd() / "photos",))
    assert items.modalities == ("image", "text")
    assert items.kinds == {"image": "image", "text": "text"}
    assert items.keys.tolist() == ["cat", "dog", "kitten", "bird"]
    assert items.groups.tolist() == [0, 1, 0, 2]  # an integer and its text are the same group
    assert items.ids.tolist() == [0, 1, 0, 2]  # items without ids differ from all others
    assert items.label_names == ("animal", "mammal")
    assert items.labels.tolist() == [1, -1, 0, -1]  # of a list, the first name is the class
    assert items.split.tolist() == [-1, 2, -1, 0]
    assert (items.has_groups, items.has_ids, items.has_split) == (True, True, True)


def test_blank_text_and_none_are_absent(items: Items) -> None:
    assert items.present("image").tolist() == [True, False, True, True]
    assert items.present("text").tolist() == [True, False, True, False]
    assert items.cell(1, "text") is None
    assert items.cell(0, "text") == Cell(value="A cat.")
    assert items.cell(3, "image") == Cell(path="b.png")


def test_equal_cells_of_a_column_are_one(items: Items) -> None:
    cells, index = items.column("image")
    assert list(cells) == [Cell(path="a/cat.png"), Cell(path="b.png")]
    assert index.tolist() == [0, -1, 0, 1]
    assert list(cells[1:]) == [Cell(path="b.png")]


def test_without_values_all_items_are_different() -> None:
    items = Items.from_records([{"text": "a"}, {"text": "b"}])
    assert items.keys.tolist() == ["0", "1"]
    assert items.ids.tolist() == items.groups.tolist() == [0, 1]
    assert items.labels.tolist() == items.split.tolist() == [-1, -1]
    assert items.label_names == ()
    assert not items.has_groups


def test_kinds_are_derived_from_names_and_values() -> None:
    record = {
        "speech_fr": "a.ogg",
        "clip": {"path": "v.mp4", "span": [1, 2.5]},
        "caption": "A cat.",
        "gene": np.array([1, 2], np.float32),
        "audio": "without suffix",
        "page": Path("a.txt"),
        "row": Cell(array="x.npy", row=3),
    }
    items = Items.from_records([dict.fromkeys(record), record])
    expected = {"speech_fr": "audio", "clip": "video", "caption": "text", "gene": "array", "audio": "audio"}
    assert items.kinds == expected | {"page": "text", "row": "array"}
    assert items.cell(1, "clip") == Cell(path="v.mp4", span=(1, 2.5))
    assert items.cell(1, "gene") == Cell(value=(1.0, 2.0))
    assert items.cell(1, "page") == Cell(path="a.txt")
    assert items.cell(1, "row") == Cell(array="x.npy", row=3)
    assert not items.present("row")[0]


def test_data_frames_and_arrow_tables_are_records() -> None:
    pandas = pytest.importorskip("pandas")
    columns = {"id": ["a", "b"], "image": ["a.png", None], "text": [None, "x"], "group": [1, 2]}
    expected = list(
        Items.from_records(
            [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        ).records()
    )
    assert list(Items.from_records(pandas.DataFrame(columns)).records()) == expected
    assert list(Items.from_records(pa.table(columns)).records()) == expected


def test_numbers_that_are_not_finite_are_kept_for_the_decoder() -> None:
    items = Items.from_records([{"v": [1.0, float("nan")]}])
    cell = items.cell(0, "v")
    assert cell is not None
    assert isinstance(cell.value, tuple)
    assert np.isnan(cell.value[1])
    assert next(items.records())["cells"] == {"v": {"value": [1.0, None]}}


def test_selections(items: Items) -> None:
    assert items.select(["text"]).modalities == ("text",)
    rows = items.rows_of(items.split >= 0)
    assert rows.keys.tolist() == ["dog", "bird"]
    assert rows.split.tolist() == [2, 0]
    assert items.rows_of([3, 0]).keys.tolist() == ["bird", "cat"]
    assert len(items.rows_of([])) == 0
    assert items.with_split(None).has_split is False
    assert items.with_split(["val", None, "", "train"]).split.tolist() == [1, -1, -1, 0]
    assert items.with_split([0, -1, 2, 1]).split.tolist() == [0, -1, 2, 1]
    assert items.with_groups([5, 5, 4, 5]).groups.tolist() == [0, 0, 1, 0]
    assert items.with_groups(["x", None, "x", None]).groups.tolist() == [0, 1, 0, 2]
    assert items.with_ids(None).ids.tolist() == [0, 1, 2, 3]
    assert items.with_labels(["b", "a", None, ""]).labels.tolist() == [1, 0, -1, -1]
    assert items.groups.tolist() == [0, 1, 0, 2], "the table was modified"


def test_the_fingerprint_depends_on_everything_but_the_root(items: Items) -> None:
    def fingerprint(**changes: Any) -> str:
        changed = [dict(record) for record in RECORDS]
        changed[3] |= changes
        return Items.from_records(changed, root="elsewhere").fingerprint

    assert items.fingerprint == fingerprint()
    changes = [
        {"id": "x"},
        {"image": "x.png"},
        {"text": "x"},
        {"group": 1},
        {"ids": "x"},
        {"label": "x"},
        {"split": "val"},
    ]
    found = {fingerprint(**change) for change in changes}
    found |= {items.select(["text", "image"]).fingerprint, items.rows_of([1, 0, 2, 3]).fingerprint}
    found |= {Items.from_records(RECORDS, kinds={"text": "text", "image": "video"}).fingerprint}
    assert len(found - {items.fingerprint}) == len(changes) + 3


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"id": ""}, "record 2: the id is '', expected a string"),
        ({"id": "a\nb"}, "control characters"),
        ({"id": "x" * 1025}, r"has 1,025 bytes, expected at most 1,024"),
        ({"id": "\ud800"}, "unpaired surrogates"),
        ({"id": "a"}, "the id 'a' occurs twice: record 0 and record 2; ids must be unique"),
        ({"text": "\udfff"}, "record 2: a string has an unpaired surrogate"),
        ({"text": 5}, r"record 2, 'text' is of type int, expected a string"),
        ({"image": b"\x89PNG"}, "record 2, 'image' is of type bytes.*save in-memory media to files first"),
        ({"image": "/etc/passwd"}, r"record 2, 'image': /etc/passwd is outside of .*allow_absolute=True"),
        ({"image": "../x.png"}, r"\.\./x\.png is outside of"),
        ({"image": "http://a.b/c.png"}, "is a URL; download the file first"),
        ({"image": {"path": "a.mp4", "span": [3, 2]}}, "record 2: the cell of 'image' is not valid.*start < end"),
        ({"image": {"file": "a"}}, "record 2: the cell of 'image' is not valid: a cell must have exactly one of"),
        ({"group": 1.5}, r"record 2: group is 1\.5, expected a string or an integer"),
        ({"split": "dev"}, "record 2: split is 'dev', expected one of 'train', 'val', 'test' or null"),
    ],
)
def test_invalid_records_are_named(record: dict[str, Any], words: str) -> None:
    records = [{"id": "a", "image": "a.png", "text": "x"}, {"id": "b"}, {"id": "c", **record}]
    with pytest.raises(DataError, match=f"(?s){words}"):
        Items.from_records(records)


def test_many_records_name_the_first_of_two_equal_ids() -> None:
    records = [{"id": str(i)} | {"text": "x"} for i in range(70_000)]
    records[69_999]["id"] = "40001"
    with pytest.raises(DataError, match="'40001' occurs twice: record 40001 and record 69999"):
        Items.from_records(records)


def test_invalid_arguments_are_named(items: Items) -> None:
    with pytest.raises(ConfigError, match="unknown kind of the modality 'text', 'picture'"):
        Items.from_records(RECORDS, kinds={"text": "picture"})  # type: ignore[dict-item]
    message = "kinds contains 'imag', which does not occur in any record; did you mean 'image'"
    with pytest.raises(ConfigError, match=message):
        Items.from_records(RECORDS, kinds={"imag": "image"})
    with pytest.raises(ConfigError, match=r"records must be mappings.*record 0 is of type str"):
        Items.from_records("cat")
    with pytest.raises(ConfigError, match="modality 'a b' cannot be a file name"):
        Items.from_records([{"a b": "x"}])
    with pytest.raises(ConfigError, match="unknown modality 'sound'"):
        items.present("sound")
    with pytest.raises(ConfigError, match="unknown modality 'sound'"):
        items.select(["sound"])
    for wrong in ("text", [], ["text", "text"]):
        with pytest.raises(ConfigError, match="list of distinct names"):
            items.select(wrong)
    with pytest.raises(ConfigError, match="rows contains a number twice"):
        items.rows_of([0, 0])
    with pytest.raises(ConfigError, match="from 0 to 3"):
        items.rows_of([4])
    with pytest.raises(ShapeError, match=r"mask has shape \(3,\), expected \(4,\)"):
        items.rows_of([True] * 3)
    with pytest.raises(ShapeError, match=r"split has shape \(2,\)"):
        items.with_split(["train", "val"])
    with pytest.raises(DataError, match="split: row 1 holds 'dev'"):
        items.with_split(["train", "dev", "val", "test"])
    with pytest.raises(DataError, match="split: row 2 holds 3"):
        items.with_split([0, 1, 3, 0])
    with pytest.raises(ShapeError, match="group has dtype float64"):
        items.with_groups([0.5, 1, 2, 3])
