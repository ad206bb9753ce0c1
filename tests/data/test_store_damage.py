"""Test that damaged and malicious files raise an error that names the file, and that no code in them is executed."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from unialign.data import EmbeddingStore
from unialign.data._layout import parse_description
from unialign.errors import DataError

Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Plant = Callable[[Path, str, bytes], None]

DIGITS_FILES = [f"arrays/{view}.npy" for view in ("fou", "fac", "kar", "pix", "zer", "mor")] + [
    "ids.npy",
    "groups.npy",
    "labels.npy",
    "split.npy",
    "names.json",
]


def touch(store: EmbeddingStore, file: str) -> object:
    stem = Path(file).stem
    if file.startswith("arrays/"):
        return store.array(stem)
    return store.item_names if stem == "names" else getattr(store, stem)


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def test_the_list_of_files_is_complete(digits: Path) -> None:
    found = {str(file.relative_to(digits)) for file in digits.rglob("*") if file.is_file()}
    assert found == {*DIGITS_FILES, "store.json"}


# --- damage to a copy of the digits -------------------------------------------------------------------------------


def test_one_changed_byte(digits: Path) -> None:
    for file in DIGITS_FILES:
        content = (digits / file).read_bytes()
        for place in (0, len(content) // 2, len(content) - 1):
            changed = bytearray(content)
            changed[place] ^= 1
            (digits / file).write_bytes(changed)
            with pytest.raises(DataError, match=f"{file} was altered"):
                EmbeddingStore.open(digits).verify()
        (digits / file).write_bytes(content)


def test_wrong_size_on_first_access(digits: Path) -> None:
    for file in DIGITS_FILES:
        content = (digits / file).read_bytes()
        for changed in (content[: len(content) // 2], content[:-1], content + b"\0", b"", None):
            (digits / file).unlink()
            message = f"{file} cannot be read.*No such file"
            if changed is not None:
                (digits / file).write_bytes(changed)
                message = rf"{file} has \d+ bytes, but store.json describes"
            store = EmbeddingStore.open(digits)
            with pytest.raises(DataError, match=message):
                touch(store, file)
            with pytest.raises(DataError, match=file):
                store.verify()
            (digits / file).write_bytes(content)


@pytest.mark.parametrize("key", ["name", "label_names", "default_modalities", "provenance", "items"])
def test_altered_description(digits: Path, edit: Edit, key: str) -> None:
    def change(body: dict[str, Any]) -> None:
        value = body[key]
        body[key] = (
            value + 0 if key == "items" else value[::-1] if not isinstance(value, dict) else {**value, "source": "mine"}
        )
        if key == "items":
            body["columns"]["fou"]["provenance"]["holds"] = "something else"

    before = EmbeddingStore.open(digits).fingerprint
    edit(digits, change)
    store = EmbeddingStore.open(digits)
    assert (store.fingerprint != before) == (key in ("provenance", "items"))
    with pytest.raises(DataError, match=r"store\.json was altered"):
        store.verify()


def test_checksum_adjusted_by_hand(digits: Path, plant: Plant) -> None:
    """Replacing a column together with its checksum changes the fingerprint, so `verify` detects the change."""
    before = EmbeddingStore.open(digits).fingerprint
    plant(digits, "mor", npy(np.ones((2000, 6), dtype=np.float16)))
    store = EmbeddingStore.open(digits)
    with pytest.raises(DataError, match="use the expected revision"):
        store.check_fingerprint(before)
    with pytest.raises(DataError, match=r"store\.json was altered"):
        store.verify()


# --- columns that differ from store.json ----------------------------------------------------------------------------


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.canary),))


@pytest.mark.parametrize("kind", ["object array", "bare pickle", "pickle behind a float header"])
def test_pickles_are_never_read(store: EmbeddingStore, plant: Plant, tmp_path: Path, kind: str) -> None:
    canary = tmp_path / "canary"
    bomb = Bomb(canary)
    content = {
        "object array": npy(np.array([[bomb]], dtype=object), allow_pickle=True),
        "bare pickle": pickle.dumps([bomb] * 50),
        "pickle behind a float header": npy(np.ones((1, 1)))[:-8] + pickle.dumps([bomb] * 50),
    }[kind]
    content += b"\0" * 1000
    assert store.path is not None
    plant(store.path, "image", content)
    again = EmbeddingStore.open(store.path)
    with pytest.raises(DataError, match=r"image\.npy"):
        again.array("image")
    with pytest.raises(DataError):
        again.verify()
    assert not canary.exists()
    if kind == "bare pickle":
        pickle.loads(content)
        assert canary.exists()


@pytest.mark.parametrize("kind", ["object array", "bare pickle"])
def test_object_arrays_and_pickles_raise_with_the_reason(store: EmbeddingStore, plant: Plant, kind: str) -> None:
    objects = np.empty((12, 4), dtype=object)
    content = npy(objects, allow_pickle=True) if kind == "object array" else pickle.dumps(["x" * 500])
    assert store.path is not None
    plant(store.path, "image", content + b"\0" * 500)
    message = "pickled objects, which are never read" if kind == "object array" else "not a plain .npy array"
    with pytest.raises(DataError, match=message):
        EmbeddingStore.open(store.path).array("image")


wrong_arrays: dict[str, Any] = {
    "dtype": np.ones((12, 4), dtype=np.float64),
    "byte order": np.ones((12, 4), dtype=">f4"),
    "same-sized integers": np.ones((12, 4), dtype=np.int32),
    "dim": np.ones((12, 5), dtype=np.float32),
    "rows": np.ones((13, 4), dtype=np.float32),
    "transposed": np.ones((4, 12), dtype=np.float32),
    "dimensions": np.ones(48, dtype=np.float32),
    "order": np.asfortranarray(np.ones((12, 4), dtype=np.float32)),
    "structured": np.zeros((12, 4), dtype=[("a", "<f4")]),
}


def test_wrong_array(store: EmbeddingStore, plant: Plant) -> None:
    assert store.path is not None
    for array in wrong_arrays.values():
        plant(store.path, "image", npy(array))
        with pytest.raises(
            DataError, match=r"image\.npy has shape .*store.json describes shape \(12, 4\), dtype float32.*restore"
        ):
            EmbeddingStore.open(store.path).array("image")


bad_headers = {
    "zip": b"PK\x03\x04",
    "text": b"image,text\n",
    "version 2": b"\x93NUMPY\x02\x00\x10\x00\x00\x00",
    "version 3": b"\x93NUMPY\x03\x00\x10\x00\x00\x00",
    "header beyond the end": b"\x93NUMPY\x01\x00\xff\xff{",
    "header of code": b"\x93NUMPY\x01\x00\x30\x00" + b"__import__('os').mkdir('canary')".ljust(48),
    "header of deep nesting": b"\x93NUMPY\x01\x00\x00\x20" + b"(" * 0x2000,
    "header of nulls": b"\x93NUMPY\x01\x00\x40\x00" + b"\0" * 64,
    "negative shape": b"\x93NUMPY\x01\x00\x46\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (-12, -4), }".ljust(70),
    "overflowing shape": b"\x93NUMPY\x01\x00\x60\x00"
    + b"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967308, 18446744073709551620), }".ljust(96),
}


def test_bad_header(store: EmbeddingStore, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.path is not None
    monkeypatch.chdir(store.path)
    for header in bad_headers.values():
        plant(store.path, "image", header + b"\0" * 1000)
        with pytest.raises(DataError, match=r"image\.npy"):
            EmbeddingStore.open(store.path).array("image")
        assert not (store.path / "canary").exists()


@pytest.mark.parametrize(("file", "array", "message"), [
    ("split.npy", np.full(12, 3, dtype=np.int8), "split.npy: row 0 holds 3, expected 0 to 2"),
    ("labels.npy", np.full(12, 2), "labels.npy: row 0 holds 2, expected -1 to 1"),
])  # fmt: skip
def test_codes_out_of_range(store: EmbeddingStore, file: str, array: Any, message: str) -> None:
    assert store.path is not None
    (store.path / file).write_bytes(npy(array))
    with pytest.raises(DataError, match=message):
        touch(EmbeddingStore.open(store.path), file)


def test_bad_item_names(store: EmbeddingStore, edit: Edit) -> None:
    assert store.path is not None
    for content in ('["a"]', '{"a": 1}', "[1, 2]", "[", '"' + "a" * 50 + '"', "[" * 100_000):
        (store.path / "names.json").write_text(content)
        size = {"bytes": len(content)}
        edit(store.path, lambda body, size=size: body["names"].update(size))  # type: ignore[misc]
        with pytest.raises(DataError, match=r"names\.json is not a list of 12 strings"):
            _ = EmbeddingStore.open(store.path).item_names


# --- links, pipes and folders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["arrays/image.npy", "present/audio.npy", "names.json", "assets/thumbnails.zip", "store.json", "arrays"]
)
def test_links_out_of_the_folder(store: EmbeddingStore, tmp_path: Path, file: str) -> None:
    assert store.path is not None
    (store.path / file).rename(tmp_path / "outside")
    (store.path / file).symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="is a link out of the folder"):
        EmbeddingStore.open(store.path).verify()


def test_links_inside_and_to_the_folder_are_fine(store: EmbeddingStore, tmp_path: Path) -> None:
    assert store.path is not None
    (store.path / "arrays" / "image.npy").rename(store.path / "elsewhere.npy")
    (store.path / "arrays" / "image.npy").symlink_to("../elsewhere.npy")
    (tmp_path / "link").symlink_to(store.path)
    EmbeddingStore.open(tmp_path / "link").verify()


def test_link_in_a_circle(store: EmbeddingStore) -> None:
    assert store.path is not None
    (store.path / "arrays" / "image.npy").unlink()
    (store.path / "arrays" / "image.npy").symlink_to("image.npy")
    with pytest.raises(DataError, match=r"image\.npy cannot be read"):
        EmbeddingStore.open(store.path).array("image")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("file", ["arrays/image.npy", "store.json"])
def test_neither_pipe_nor_folder_is_a_file(store: EmbeddingStore, kind: str, file: str) -> None:
    assert store.path is not None
    (store.path / file).unlink()
    if kind == "pipe":
        os.mkfifo(store.path / file)
    else:
        (store.path / file).mkdir()
    with pytest.raises(DataError, match=f"{file} (is not a regular file|cannot be read)"):
        EmbeddingStore.open(store.path).array("image")


# --- store.json ---------------------------------------------------------------------------------------------------


def test_no_folder_and_no_description(tmp_path: Path, store: EmbeddingStore) -> None:
    with pytest.raises(DataError, match="nowhere is not a store, since the folder does not exist"):
        EmbeddingStore.open(tmp_path / "nowhere")
    assert store.path is not None
    (store.path / "store.json").unlink()
    with pytest.raises(DataError, match=r"store\.json cannot be read \(No such file"):
        EmbeddingStore.open(store.path)


def test_malformed_description(store: EmbeddingStore) -> None:
    assert store.path is not None
    hostile = ("\xff", "[" * 100_000, '{"schema": ' + "9" * 5000 + "}", "\0" * 100)
    for text in ("", "{", "[]", "null", "3", '{"schema": 1}', *hostile):
        (store.path / "store.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=r"store\.json"):
            EmbeddingStore.open(store.path)


def test_a_huge_description_is_not_read(store: EmbeddingStore) -> None:
    assert store.path is not None
    with (store.path / "store.json").open("r+b") as file:
        file.truncate(1 << 35)
    with pytest.raises(DataError, match="so it is not a store description"):
        EmbeddingStore.open(store.path)


def test_other_schema_version(store: EmbeddingStore, edit: Edit) -> None:
    assert store.path is not None
    edit(store.path, lambda body: body.update(schema=2))
    with pytest.raises(
        DataError, match=r"^\S*store\.json has schema 2, but this version of unialign reads schema 1; update"
    ):
        EmbeddingStore.open(store.path)


top_level: dict[str, list[Any]] = {
    "items": [-1, 0, 1.5, True, "12", None, 2**63, 10**40],
    "columns": [{}, [], None, {"image": None}, {"image": {}}],
    "default_modalities": [[], ["smell"], ["text", "text"], None, [["text"]], "text"],
    "rows": [None, [], {"ids": None}, {"hash": {"bytes": 1, "sha256": "0" * 64}}],
    "names": [3, {"bytes": -1, "sha256": "0" * 64}],
    "assets": [None, {"../x": {"bytes": 1, "sha256": "0" * 64}}],
    "label_names": [None, [1], "ab"],
    "provenance": [None, 3, "ab", [["a", 1]]],
    "name": [None, 3],
}


def rejected(store: EmbeddingStore, change: Callable[[dict[str, Any]], object], message: str) -> None:
    assert store.path is not None
    file = store.path / "store.json"
    text = file.read_bytes()
    body = json.loads(text)
    change(body)
    file.write_text(json.dumps(body))
    with pytest.raises(DataError, match=message):
        EmbeddingStore.open(store.path)
    file.write_bytes(text)


def test_invalid_and_missing_entries(store: EmbeddingStore) -> None:
    for key, values in {"schema": [], **top_level}.items():
        for value in values:
            change = {key: value}
            rejected(store, lambda body, c=change: body.update(c), r"store\.json is not a store description.*restore")  # type: ignore[misc]
        rejected(store, lambda body, key=key: body.pop(key), rf"store\.json is not a store description.*{key}")  # type: ignore[misc]


of_column: dict[str, list[Any]] = {
    "dtype": ["object", "int64", "|O", None, ["float32"], "float128"],
    "dim": [0, -4, 2**62, 10**30, 4.0, True, None],
    "array": [None, {}, {"bytes": 300}, {"bytes": 300, "sha256": "xyz"}, {"bytes": 3, "sha256": "0" * 64}, "image.npy"],
    "present": [3, {}, {"bytes": 140, "sha256": 7}],
}


def test_columns_of_impossible_size(store: EmbeddingStore) -> None:
    for key, values in of_column.items():
        for value in values:
            change = {key: value}
            rejected(
                store,
                lambda body, c=change: body["columns"]["image"].update(c),  # type: ignore[misc]
                r"store\.json is not a store description",
            )


def test_column_path_out_of_the_folder(store: EmbeddingStore) -> None:
    for name in ("../../secret", "/etc/passwd", "a/b", "..", "", "a\\b", "a\0b"):

        def change(body: dict[str, Any], name: str = name) -> None:
            body["columns"][name] = body["columns"].pop("image")
            body["default_modalities"] = ["text"]

        rejected(store, change, r"store\.json is not a store description \(invalid name ")


def test_every_prefix_of_a_description_raises(store: EmbeddingStore) -> None:
    assert store.path is not None
    text = (store.path / "store.json").read_bytes().rstrip()
    for length in range(0, len(text), 37):
        (store.path / "store.json").write_bytes(text[:length])
        with pytest.raises(DataError):
            EmbeddingStore.open(store.path)


def test_every_byte_of_a_description_counts(store: EmbeddingStore) -> None:
    assert store.path is not None
    text = (store.path / "store.json").read_bytes()
    for place in range(len(text) - 1):
        changed = bytearray(text)
        changed[place] ^= 1
        (store.path / "store.json").write_bytes(changed)
        with pytest.raises(DataError):
            EmbeddingStore.open(store.path).verify()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_other_value_in_a_description_raises_or_is_harmless(store: EmbeddingStore, data: st.DataObject) -> None:
    """Opening a store with a changed `store.json` must not raise any error other than DataError."""
    assert store.path is not None
    body = json.loads(store._description.to_bytes())
    node: Any = body
    while True:
        key = data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(json_values)
    try:
        changed = EmbeddingStore(parse_description(json.dumps(body).encode(), store.path), store._storage)
        for column in changed.columns:
            (changed.array(column), changed.present(column))
        _ = (changed.ids, changed.groups, changed.labels, changed.split, changed.item_names, changed.fingerprint)
        _ = [changed.asset(name) for name in changed.assets]
    except DataError:
        pass


def test_moved_and_copied_stores_stay_valid(store: EmbeddingStore, tmp_path: Path) -> None:
    assert store.path is not None
    shutil.copytree(store.path, tmp_path / "copy")
    copy = EmbeddingStore.open(tmp_path / "copy")
    copy.verify()
    assert copy.fingerprint == store.fingerprint
    assert "/" not in json.dumps({**json.loads((tmp_path / "copy" / "store.json").read_text()), "checksum": ""})
