"""Test that tables survive saving and loading, and that altered and malformed files are noticed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from unialign.data import Items
from unialign.errors import ConfigError, DataError
from unialign.io import add_checksum

# Texts with quotes, line separators, NUL and characters outside of the basic plane.
TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)
NAMES = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
PATHS = st.lists(
    st.text(
        alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="/\0"), min_size=1, max_size=6
    ).filter(lambda part: part not in (".", "..") and not part.endswith(".")),
    min_size=1,
    max_size=3,
).map("/".join)
SPANS = st.tuples(st.floats(0, 100), st.floats(101, 1e6)).map(list)
FILES = st.one_of(
    st.none(),
    PATHS,
    st.fixed_dictionaries({"path": PATHS, "at": st.tuples(st.integers(0, 2**40), st.integers(0, 2**30)).map(list)}),
    st.fixed_dictionaries({"table": PATHS, "column": NAMES, "row": st.integers(0, 2**40)}),
)
CLIPS = st.one_of(st.none(), PATHS, st.fixed_dictionaries({"path": PATHS, "span": SPANS}))
VECTORS = st.one_of(
    st.none(),
    st.lists(st.floats(width=32), min_size=1, max_size=4),
    st.fixed_dictionaries({"array": PATHS, "row": st.integers(0, 99)}, optional={"key": NAMES}),
)
VALUES = st.one_of(st.none(), NAMES, st.integers(-(2**63), 2**63))
ROWS = st.fixed_dictionaries(
    {
        "id": NAMES,
        "image": FILES,
        "text": st.one_of(st.none(), TEXTS),
        "clip": CLIPS,
        "gene": VECTORS,
        "group": VALUES,
        "ids": VALUES,
        "label": VALUES,
        "split": st.sampled_from([None, "train", "val", "test"]),
    }
)
KINDS: dict[str, Any] = {"image": "image", "text": "text", "clip": "video", "gene": "array"}


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(ROWS, min_size=1, max_size=5, unique_by=lambda row: row["id"]))
def test_any_table_is_the_same_after_saving_and_loading(
    rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("table")
    items = Items.from_records(rows, kinds=KINDS, root=folder / "media")
    saved = items.save(folder / "table")
    loaded = Items.load(folder / "table")
    assert loaded.fingerprint == saved.fingerprint == items.fingerprint
    # The sealed checksum equals that of the lines, which are written again from what was loaded.
    assert b"".join(loaded.lines()) == (folder / "table" / "items.jsonl").read_bytes() == b"".join(items.lines())
    assert loaded.with_labels(loaded.labels).with_split(loaded.split).fingerprint != ""
    assert list(loaded.records()) == list(items.records())
    for row, record in enumerate(rows):
        for name in KINDS:
            is_present = record[name] is not None and (name != "text" or bool(record[name].strip()))
            assert (loaded.cell(row, name) is not None) == is_present
    assert (loaded.kinds, loaded.roots, loaded.name) == (items.kinds, items.roots, items.name)
    shutil.rmtree(folder)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    records = [{"id": "cat", "image": "a.png", "text": "Ein „Käfer“"}, {"id": "dog", "text": "y", "split": "val"}]
    Items.from_records(records, root=tmp_path / "media", license="MIT").save(tmp_path / "tables" / "pets")
    return tmp_path / "tables" / "pets"


def test_the_lines_are_json_with_sorted_keys(table: Path) -> None:
    lines = (table / "items.jsonl").read_text("utf-8").splitlines()
    assert lines == [
        '{"cells":{"image":{"path":"a.png"},"text":{"value":"Ein „Käfer“"}},"id":"cat"}',
        '{"cells":{"text":{"value":"y"}},"id":"dog","split":"val"}',
    ]
    body = json.loads((table / "items.json").read_text())
    assert body["items"] == 2
    assert body["modalities"] == [
        {"kind": "image", "name": "image", "present": 1},
        {"kind": "text", "name": "text", "present": 2},
    ]
    assert body["license"] == "MIT"


def test_a_table_beside_its_media_can_be_moved(tmp_path: Path) -> None:
    for place, root in (("data/table", "data"), ("data/table", "data/media"), ("table", ".")):
        folder = tmp_path / "first"
        Items.from_records([{"image": "a.png"}], root=folder / root).save(folder / place)
        moved = tmp_path / "second"
        folder.rename(moved)
        assert Items.load(moved / place).roots == ((moved / root).resolve(),)
        shutil.rmtree(moved)


def test_a_table_far_from_its_media_keeps_the_absolute_root(tmp_path: Path) -> None:
    items = Items.from_records([{"image": "a.png"}], root=tmp_path / "media").save(tmp_path / "x" / "table")
    (tmp_path / "x").rename(tmp_path / "y")
    assert Items.load(tmp_path / "y" / "table").roots == items.roots
    assert Items.load(tmp_path / "y" / "table", roots=["/data"]).roots == (Path("/data"),)
    assert Items.open(tmp_path / "y" / "table", root="/data", name="new").name == "new"
    with pytest.raises(ConfigError, match="is a saved table, whose modalities and values are fixed"):
        Items.open(tmp_path / "y" / "table", rules={"image": ".png"})
    with pytest.raises(ConfigError, match=r"roots has 2 folders, but the table .* has 1"):
        Items.load(tmp_path / "y" / "table", roots=["/a", "/b"])


def replace_text(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text("utf-8").replace(old, new), "utf-8")


def reseal(table: Path, change: Callable[[dict[str, Any]], object]) -> None:
    body = json.loads((table / "items.json").read_text())
    change(body)
    del body["checksum"]
    (table / "items.json").write_text(json.dumps(add_checksum(body, sort_keys=True)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: replace_text(t / "items.jsonl", "a.png", "b.png"), "items.jsonl was altered"),
        (lambda t: replace_text(t / "items.jsonl", "a.png", "longer.png"), "bytes, but items.json describes"),
        (lambda t: replace_text(t / "items.json", '"items": 2', '"items": 3'), "items.json .* was altered after"),
        (lambda t: (t / "items.json").write_text("{"), "items.json is not readable JSON"),
        (lambda t: (t / "items.json").unlink(), "items.json cannot be read"),
        (lambda t: (t / "items.jsonl").unlink(), "items.jsonl cannot be read"),
        (lambda t: reseal(t, lambda b: b.update(schema=2)), "has schema 2, but this version"),
        (lambda t: reseal(t, lambda b: b.pop("roots")), r"not the description of a table \(KeyError"),
        (lambda t: reseal(t, lambda b: b["modalities"][0].update(name="../x")), "cannot be a file name"),
        (lambda t: reseal(t, lambda b: b["modalities"].pop(0)), "line 1: unknown modality 'image'; expected 'text'"),
    ],
)
def test_altered_files_are_noticed(table: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(table)
    with pytest.raises((DataError, ConfigError), match=words):
        Items.load(table)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id":', "line 3 is not JSON"),
        (b"[1]", "line 3: expected an object"),
        (b'{"id":"x"},{"id":"y"}', "line 3 is not JSON"),
        (b'{"id":"\xff"}', "line 3 is not JSON"),
        (b'{"id":"cat"}', "'cat' occurs twice: .*line 1 and .*line 3"),
        (b'{"id":"x","cells":{"image":{"path":"/etc/passwd"}}}', "line 3: the cell of 'image' is not valid"),
        (b'{"id":"x","cells":{"image":{"value":"x"}}}', "line 3: the cell of 'image' is not valid"),
        (b'{"id":"x","cells":5}', "line 3: expected an object, got 5"),
        (b'{"id":"x","path":"y"}', "line 3: unknown entry 'path'"),
        (b"[" * 100_000, "line 3 is not JSON"),
    ],
)
def test_malformed_lines_are_named(table: Path, line: bytes, words: str) -> None:
    file = table / "items.jsonl"
    file.write_bytes(file.read_bytes() + line + b"\n")
    reseal(table, lambda body: body["lines"].update(bytes=file.stat().st_size))
    with pytest.raises(DataError, match=words):
        Items.load(table)


def test_only_tables_are_replaced(table: Path, tmp_path: Path) -> None:
    items = Items.load(table)
    with pytest.raises(DataError, match="already exists; choose another path or pass overwrite='replace'"):
        items.save(table)
    changed = items.with_split(["train", "test"]).save(table, overwrite="replace")
    assert Items.load(table).fingerprint == changed.fingerprint != items.fingerprint
    other = tmp_path / "notes"
    other.mkdir()
    (other / "a.txt").touch()
    with pytest.raises(DataError, match="is not an item table, so it is not replaced"):
        items.save(other, overwrite="replace")
    assert (other / "a.txt").exists()
    with pytest.raises(DataError, match="is not an item table, since the folder does not exist"):
        Items.load(tmp_path / "nothing")
    assert sorted(path.name for path in table.parent.iterdir()) == ["pets"], "temporary files remain"


def test_links_out_of_the_table_are_not_followed(table: Path, tmp_path: Path) -> None:
    (table / "items.jsonl").rename(tmp_path / "moved.jsonl")
    (table / "items.jsonl").symlink_to(tmp_path / "moved.jsonl")
    with pytest.raises(DataError, match="link out of the folder"):
        Items.load(table)
