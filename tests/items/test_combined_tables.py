"""Test tables that are combined from tables of other items or of other modalities."""

from pathlib import Path
from typing import Any

import pytest

from unialign.data import Items
from unialign.errors import ConfigError, DataError
from unialign.media import Cell


def table(*records: dict[str, Any], root: str = "/a", **options: Any) -> Items:
    return Items.from_records(records, root=root, **options)


def test_concat_keeps_the_folders_of_both_tables() -> None:
    first = table({"id": "1", "image": "x.png", "group": "g"}, name="one", license="MIT")
    second = table(
        {"id": "2", "text": "t", "split": "val"},
        {"id": "3", "image": "y.png", "clip": {"path": "v.mp4", "span": [0, 1]}, "group": "g"},
        root="/b", name="two", license="CC0-1.0 OR MIT",
    )  # fmt: skip
    whole = Items.concat([first, second])
    assert whole.keys.tolist() == ["1", "2", "3"]
    assert whole.modalities == ("image", "text", "clip")
    assert whole.roots == (Path("/a"), Path("/b"))
    assert whole.cell(0, "image") == Cell(path="x.png")
    assert whole.cell(1, "image") is None
    assert whole.cell(2, "image") == Cell(path="y.png", root=1)
    assert whole.cell(2, "clip") == Cell(path="v.mp4", span=(0, 1), root=1)
    assert whole.cell(1, "text") == Cell(value="t")
    assert whole.groups.tolist() == [0, 1, 0]
    assert whole.split.tolist() == [-1, 1, -1]
    assert (whole.name, whole.license) == ("one+two", "MIT AND (CC0-1.0 OR MIT)")
    assert Items.concat([first]).fingerprint == first.fingerprint
    assert Items.concat([first, table({"id": "9", "image": "z.png"})]).license == "unknown"


def test_concat_of_three_folders_numbers_each_root_once(tmp_path: Path) -> None:
    one, two = table({"id": "1", "image": "x.png"}), table({"id": "2", "image": "x.png"}, root="/b")
    both = Items.concat([two, one])
    again = Items.concat([one, both.rows_of([0]), table({"id": "3", "image": "x.png"}, root="/b")])
    assert again.roots == (Path("/a"), Path("/b"))
    cells, index = again.column("image")
    assert list(cells) == [Cell(path="x.png"), Cell(path="x.png", root=1)]
    assert index.tolist() == [0, 1, 1], "equal files of one folder are one cell"
    again.save(tmp_path / "t")
    assert Items.load(tmp_path / "t").cell(1, "image") == Cell(path="x.png", root=1)


def test_concat_names_both_places_of_an_id() -> None:
    first = table({"id": "x", "text": "a"}, {"id": "y", "text": "a"}, name="one")
    with pytest.raises(
        DataError, match=r"'y' occurs twice: item 1 of table 0 \('one'\) and item 0 of table 1 \('two'\)"
    ):
        Items.concat([first, table({"id": "y", "text": "b"}, name="two")])
    with pytest.raises(DataError, match="'text' is of kind 'text' in one table and of kind 'image' in 'two'"):
        Items.concat([first, table({"id": "z", "text": "b.png"}, kinds={"text": "image"}, name="two")])
    with pytest.raises(ConfigError, match="no table is given"):
        Items.concat([])


def test_join_matches_items_by_id() -> None:
    images = table({"id": "b", "image": "b.png", "label": "x"}, {"id": "a", "image": "a.png"}, name="images")
    sounds = table(
        {"id": "c", "sound": "c.wav", "split": "test"},
        {"id": "a", "sound": "a.wav", "label": "y", "group": "g", "split": "train"},
        root="/b", name="sounds",
    )  # fmt: skip
    outer = images.join(sounds)
    assert outer.keys.tolist() == ["b", "a", "c"]
    assert outer.present("image").tolist() == [True, True, False]
    assert outer.present("sound").tolist() == [False, True, True]
    assert outer.cell(1, "sound") == Cell(path="a.wav", root=1)
    assert [outer.label_names[code] if code >= 0 else None for code in outer.labels] == ["x", "y", None]
    assert outer.split.tolist() == [-1, 0, 2]
    assert outer.kinds == {"image": "image", "sound": "audio"}
    inner = images.join(sounds, how="inner")
    assert inner.keys.tolist() == ["a"]
    assert list(inner.records()) == [record for record in outer.records() if record["id"] == "a"]
    # The order of the modalities and items follows the first table.
    assert sounds.join(images).keys.tolist() == ["c", "a", "b"]


def test_join_refuses_what_is_ambiguous() -> None:
    one = table({"id": "a", "image": "a.png", "split": "train", "group": "g"}, name="one")
    with pytest.raises(ConfigError, match="both tables have the modality 'image'; leave it out"):
        one.join(table({"id": "a", "image": "b.png"}))
    with pytest.raises(DataError, match="split of the item 'a' is 'train' in 'one' and 'test' in 'two'"):
        one.join(table({"id": "a", "text": "x", "split": "test"}, name="two"))
    with pytest.raises(DataError, match="group of the item 'a' is 'g' in 'one' and 'h' in 'two'"):
        one.join(table({"id": "a", "text": "x", "group": "h"}, name="two"))
    with pytest.raises(ConfigError, match="unknown how 'left'"):
        one.join(table({"id": "a", "text": "x"}), how="left")  # type: ignore[arg-type]
