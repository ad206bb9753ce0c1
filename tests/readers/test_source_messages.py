"""Test messages about sources that are empty, unknown, or have unusual columns."""

from pathlib import Path

import numpy as np
import pytest

from unialign.data import EmbeddingStore, Items, open_collection
from unialign.errors import DataError


def test_an_empty_or_too_long_path_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="the source must be a path, got an empty string"):
        Items.open("")
    with pytest.raises(DataError, match="the table must be a path, got an empty string"):
        Items.from_records([{"text": "a"}]).save("")
    with pytest.raises(DataError, match=r"cannot be used .*File name too long"):
        Items.open("n" * 300)


def test_rules_in_an_empty_folder_say_that_it_has_no_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the rule '\.png' of 'image' matches no file; the folder has no files"):
        Items.open(tmp_path, rules={"image": ".png"})


def test_an_unknown_or_damaged_source_names_the_sources_of_items(tmp_path: Path) -> None:
    for name, content, message in (
        ("h.py", b"import os\n", r"has an unknown format; expected .*\.tar, a folder of media files, or the folder of"),
        ("empty.csv", b"", r"is empty; expected .*\.jsonl.* or the folder of an item table"),
        ("x.tar", b"not an archive" * 100, r"x\.tar is damaged: its first bytes do not match the \.tar format"),
        ("utf16.csv", "id,text\n1,a\n".encode("utf-16"), r"iconv -f UTF-16 -t UTF-8 utf16\.csv > utf8\.csv"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            Items.open(tmp_path / name)


def test_many_columns_are_shortened_and_series_of_vectors_are_named(tmp_path: Path) -> None:
    names = ["name", *(f"spectrum_{i}" for i in range(40)), *(f"chemistry_{i}" for i in range(12))]
    path = tmp_path / "soil.csv"
    path.write_text("\n".join([",".join(names), *(",".join(["a", *["0.5"] * 52]) for _ in range(3))]))
    with pytest.raises(
        DataError, match="spectrum_0 to spectrum_39 and chemistry_0 to chemistry_11 are read by"
    ) as info:
        Items.open(path)
    assert "spectrum_10 and 41 more, none of which" in str(info.value)
    assert "spectrum_20" not in str(info.value)
    with pytest.raises(DataError, match=r"has no column 'nam'.* and 41 more; did you mean 'name'"):
        Items.open(path, rules={"text": "nam"})


def test_items_without_a_split_and_columns_without_a_name_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("id,text,,split\n1,a,x,train\n2,b,y,\n3,c,z,test\n")
    items = Items.open(path)
    assert items.split.tolist() == [0, -1, 2]
    assert any(note.endswith("1 item without a split, since 'split' is empty") for note in items.notes)
    assert any(note.endswith("are not used: a column without a name") for note in items.notes)
    path.write_text("id,text\n1,a\n")
    assert not any("without a split" in note for note in Items.open(path).notes)


def test_a_store_inside_of_a_folder_is_neither_media_nor_parts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(b"x")
        (tmp_path / f"{name}.txt").write_text(name)
    z = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    EmbeddingStore.from_arrays({"x": z, "y": z}).save(tmp_path / "store")
    items = Items.open(tmp_path)
    assert len(items) == 2
    assert items.modalities == ("image", "text")
    assert [note for note in items.notes if "store" in note] == ["1 embedding store left out: 'store/'"]
    with pytest.raises(DataError, match="is a folder of media without embeddings"):
        open_collection(tmp_path)
