"""Test the items of folders: suffix rules, subfolders of modalities and of classes, and what is left out."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from unialign.data import Items
from unialign.errors import ConfigError, DataError
from unialign.media import Cell

RULES = {"image": [".png", ".svg"], "text": ".txt", "speech_fr": "_desc_fr.ogg", "sound": ".ogg"}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def cells(items: Items) -> dict[str, dict[str, str]]:
    return {r["id"]: {name: cell["path"] for name, cell in r["cells"].items()} for r in items.records()}


def test_the_longest_suffix_is_the_modality_and_the_rest_is_the_item(tmp_path: Path) -> None:
    make(tmp_path, "a/cat.png", "a/cat.txt", "a/cat_desc_fr.ogg", "a/cat.ogg", "a/dog.ogg", "dog.PNG")
    items = Items.open(tmp_path, rules=RULES)
    assert cells(items) == {
        "a/cat": {
            "image": "a/cat.png", "text": "a/cat.txt", "speech_fr": "a/cat_desc_fr.ogg", "sound": "a/cat.ogg",
        },
        "a/dog": {"sound": "a/dog.ogg"},
        "dog": {"image": "dog.PNG"},
    }  # fmt: skip
    assert items.kinds == {"image": "image", "text": "text", "speech_fr": "audio", "sound": "audio"}
    assert items.roots == (tmp_path,)
    assert items.notes == ()


def test_stems_are_exact(tmp_path: Path) -> None:
    names = ["video977", "video9770", "GOD8Bt5LfDE_100.000_110.000", "GOD8Bt5LfDE_100.000"]
    make(tmp_path, *(name + suffix for name in names for suffix in (".mp4", ".txt")))
    items = Items.open(tmp_path, rules={"video": ".mp4", "text": ".txt"})
    assert cells(items) == {name: {"video": f"{name}.mp4", "text": f"{name}.txt"} for name in sorted(names)}


def test_the_first_suffix_of_a_rule_has_priority(tmp_path: Path) -> None:
    make(tmp_path, "a.svg", "a.png", "b.svg")
    items = Items.open(tmp_path, rules={"image": [".png", ".svg"]})
    assert cells(items) == {"a": {"image": "a.png"}, "b": {"image": "b.svg"}}
    assert items.notes == ("1 file not used, since a file of higher priority has the same stem: 1 .svg",)


def test_files_without_a_rule_and_double_suffixes_are_listed(tmp_path: Path) -> None:
    make(
        tmp_path, "a.png", "a.dat", "b.DAT", "README", "_desc_fr.ogg", "c_desc_fr.ogg.ogg", ".hidden.png", ".git/x.png"
    )
    items = Items.open(tmp_path, rules={"image": ".png", "sound": ".ogg"})
    assert cells(items) == {
        "_desc_fr": {"sound": "_desc_fr.ogg"},
        "a": {"image": "a.png"},
        "c_desc_fr.ogg": {"sound": "c_desc_fr.ogg.ogg"},
    }
    assert items.notes == (
        "no rule matches 3 files: 2 .dat, 1 without suffix",
        "1 item with a suffix twice, such as 'c_desc_fr.ogg'; rename their files",
    )


def shuffled(seed: int) -> Callable[[Any], Any]:
    scan = os.scandir

    class Entries(AbstractContextManager[Any]):
        def __init__(self, path: Any) -> None:
            self.entries = list(scan(path))
            random.Random(seed).shuffle(self.entries)

        def __iter__(self) -> Iterator[os.DirEntry[str]]:
            return iter(self.entries)

        def __exit__(self, *error: object) -> None:
            return None

    return Entries


def test_the_table_does_not_depend_on_the_order_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stems = ["b", "a", "B", "é", "z", "a/a", "a/b", "a b", "a-b", "10", "9", "日本"]
    make(tmp_path, *(stem + suffix for stem in stems for suffix in (".png", ".txt", "_desc_fr.ogg", ".ogg")))
    found = []
    for seed in range(4):
        monkeypatch.setattr(os, "scandir", shuffled(seed))
        items = Items.open(tmp_path, rules=RULES)
        found.append(b"".join(items.lines()))
    monkeypatch.undo()
    assert set(found) == {b"".join(Items.open(tmp_path, rules=RULES).lines())}
    keys = items.keys.tolist()
    assert keys == sorted(keys, key=str.encode)


def test_two_files_for_one_cell_are_both_named(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a.PNG", "b.png")
    with pytest.raises(DataError, match=r"both 'a\.PNG' and 'a\.png' are the 'image' of the item 'a'"):
        Items.open(tmp_path, rules={"image": ".png"})
    make(tmp_path / "x", "images/a.png", "images/a.jpg")
    with pytest.raises(DataError, match=r"both 'images/a\.jpg' and 'images/a\.png'"):
        Items.open(tmp_path / "x", rules={"image": "images/"})
    with pytest.raises(ConfigError, match=r"the suffix '\.png' is in the rules of 'image' and of 'photo'"):
        Items.open(tmp_path, rules={"image": ".png", "photo": ".png"})


def test_a_rule_without_files_names_the_nearest(tmp_path: Path) -> None:
    make(tmp_path, "a_fr.ogg", "b_de.ogg", "c.png")
    with pytest.raises(
        DataError, match=r"the rule '_es\.ogg' of 'es' matches no file; there are 2 \.ogg, 1 \.png, such as 'a_fr"
    ):
        Items.open(tmp_path, rules={"image": ".png", "es": "_es.ogg"})


def test_one_subfolder_per_modality(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "images/x/b.1.jpg", "texts/a.txt", "texts/x/b.1.txt", "sounds/a.wav", "sounds/n.md")
    expected = {
        "a": {"images": "images/a.png", "sounds": "sounds/a.wav", "texts": "texts/a.txt"},
        "x/b.1": {"images": "images/x/b.1.jpg", "texts": "texts/x/b.1.txt"},
    }
    items = Items.open(tmp_path)
    assert cells(items) == expected
    assert items.kinds == {"images": "image", "sounds": "audio", "texts": "text"}
    assert items.notes == ("no rule matches 1 file: 1 .md",)
    items = Items.open(tmp_path, rules={"image": "images/", "text": "texts/"})
    assert cells(items)["a"] == {"image": "images/a.png", "text": "texts/a.txt"}
    assert Items.open(tmp_path, layout="folders").fingerprint == Items.open(tmp_path).fingerprint


def test_one_subfolder_per_class_and_split(tmp_path: Path) -> None:
    make(tmp_path / "flat", "cat/1.png", "cat/x/2.png", "dog/3.png")
    items = Items.open(tmp_path / "flat")
    assert items.keys.tolist() == ["cat/1", "cat/x/2", "dog/3"]
    assert [items.label_names[code] for code in items.labels] == ["cat", "cat", "dog"]
    make(
        tmp_path / "split",
        *(f"{split}/{name}/{split}{name}.png" for split in ("train", "Valid", "test") for name in ("a", "b")),
    )
    items = Items.open(tmp_path / "split")
    assert items.keys.tolist()[0] == "Valid/a/Valida"
    assert items.split.tolist() == [1, 1, 2, 2, 0, 0]
    assert items.label_names == ("a", "b")
    assert "the split is read from the folders Valid/, test/, train/" in items.notes


def test_loose_texts_beside_the_subfolders_do_not_matter(tmp_path: Path) -> None:
    for name, files in (
        ("classes", ["cat/1.png", "dog/2.png"]),
        ("folders", ["images/1.png", "sounds/1.wav"]),
        ("splits", ["train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png"]),
    ):
        make(tmp_path / name, *files)
        expected = list(Items.open(tmp_path / name).records())
        make(tmp_path / name, "README.txt", "LICENSE.txt")
        items = Items.open(tmp_path / name)
        assert list(items.records()) == expected
        assert "no rule matches 2 files: 2 .txt" in items.notes


def test_equal_names_in_folders_of_one_kind_may_be_classes_or_modalities(tmp_path: Path) -> None:
    make(tmp_path, *(f"{top}/{i}.png" for top in ("depth", "rgb") for i in range(3)))
    with pytest.raises(
        ConfigError, match=r"depth/, rgb/ may be classes or modalities.*layout='classes' or layout='folders'"
    ):
        Items.open(tmp_path)
    assert Items.open(tmp_path, layout="classes").label_names == ("depth", "rgb")
    assert Items.open(tmp_path, layout="folders").modalities == ("depth", "rgb")


def test_without_rules_each_kind_is_a_modality_if_names_match(tmp_path: Path) -> None:
    make(tmp_path / "pairs", "a.jpg", "a.txt", "b.png", "b.txt", "c.txt")
    items = Items.open(tmp_path / "pairs")
    assert cells(items)["b"] == {"image": "b.png", "text": "b.txt"}
    assert items.modalities == ("image", "text")
    make(tmp_path / "images", "a.jpg", "b.png")
    assert cells(Items.open(tmp_path / "images")) == {"a": {"image": "a.jpg"}, "b": {"image": "b.png"}}


def test_without_an_evident_layout_the_error_gives_a_command_that_works(tmp_path: Path) -> None:
    stems = ["cat", "dog", "sea_lion"]
    make(tmp_path, *(s + e for s in stems for e in (".png", ".txt", "_desc_fr.ogg", "_desc_de.ogg", "_x.ogg", ".ogg")))
    with pytest.raises(DataError) as caught:
        Items.open(tmp_path)
    message = str(caught.value)
    assert "has 12 .ogg, 3 .png, 3 .txt, and no layout is evident" in message
    words = message.partition("unialign inspect ")[2].split()
    assert words[0] == str(tmp_path)
    rules = dict(word.split("=") for word in words[2::2])
    assert set(words[1::2]) == {"--rule"}
    items = Items.open(tmp_path, rules=rules)
    assert items.keys.tolist() == stems
    assert all(items.present(name).all() for name in items.modalities)
    assert sorted(rules.values()) == [".ogg", ".png", ".txt", "_desc_de.ogg", "_desc_fr.ogg", "_x.ogg"]


def test_folders_without_media_say_what_they_have(tmp_path: Path) -> None:
    make(tmp_path / "shards", "0.tar", "1.tar", "1.json")
    with pytest.raises(DataError, match=r"no media files; it has 2 \.tar, 1 \.json; .* such as '.*shards/\*\.tar'"):
        Items.open(tmp_path / "shards")
    make(tmp_path / "arrays", "img_emb/0.npy")
    with pytest.raises(DataError, match=r"if they are embeddings, pass the folder to: unialign train .*arrays"):
        Items.open(tmp_path / "arrays")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no media files; it has no files"):
        Items.open(tmp_path / "empty")
    with pytest.raises(DataError, match=r"there is no file .*nothing"):
        Items.open(tmp_path / "nothing")


def test_invalid_options_of_folders(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b/a.png", "x.foo")
    with pytest.raises(ConfigError, match=r"rules must be all suffixes such as '.png', or all subfolders"):
        Items.open(tmp_path, rules={"a": ".png", "b": "b/"})
    with pytest.raises(ConfigError, match="layout is 'classes', but the rules name suffixes"):
        Items.open(tmp_path, rules={"a": ".png"}, layout="classes")
    with pytest.raises(ConfigError, match="unknown layout 'flat'"):
        Items.open(tmp_path, layout="flat")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the files of 'x' are of an unknown kind; pass kinds="):
        Items.open(tmp_path, rules={"x": ".foo"})
    assert Items.open(tmp_path, rules={"x": ".foo"}, kinds={"x": "text"}).kinds == {"x": "text"}
    with pytest.raises(ConfigError, match="pass one folder of media"):
        Items.open([tmp_path, tmp_path / "b"])
    for rules in ({"x": []}, {"x": ""}, {"": ".png"}, {"x": [3]}):
        with pytest.raises(ConfigError, match="must be one or several strings"):
            Items.open(tmp_path, rules=rules)


def test_vector_files_are_cells(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "a.npy")
    items = Items.open(tmp_path, rules={"image": ".png", "gene": ".npy"})
    assert items.kinds["gene"] == "array"
    assert items.cell(0, "gene") == Cell(path="a.npy")


def test_special_entries_of_a_folder(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", "a.png", "b.png", "closed/c.png", "tab\t.png")
    make(tmp_path, "outside/o.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "out.png").symlink_to(tmp_path / "outside" / "o.png")
    (folder / "gone.png").symlink_to("nothing.png")
    (folder / "dir").symlink_to(tmp_path / "outside")
    (folder / "self").symlink_to(".")
    os.close(os.open(os.fsencode(folder) + b"/\xff.png", os.O_CREAT | os.O_WRONLY))
    (folder / "closed").chmod(0)
    try:
        items = Items.open(folder)
    finally:
        (folder / "closed").chmod(0o700)
    # Files that cannot be decoded are cells: the decoder says what is wrong with each of them.
    expected = ["a", "b", "gone", "loop", "out", "pipe"]
    assert [key for key in items.keys.tolist() if key != "closed/c"] == expected
    notes = "\n".join(items.notes)
    assert "2 links to folders not followed: 'dir', 'self'" in notes
    assert "2 names left out, since they are not UTF-8, have control characters or are too long" in notes
    if os.geteuid() != 0:
        assert "1 folder left out, since opening them is not permitted: 'closed/'" in notes
