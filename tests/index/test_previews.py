"""Test previews of items: thumbnails and texts of stores, given contents, and updates."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.index._catalog import DATABASE

COLUMNS = ("image", "text", "name_de", "sound")


def store_with(folder: Path, assets: dict[str, bytes]) -> EmbeddingStore:
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(6, 5)) for name in COLUMNS}
    return EmbeddingStore.write(
        folder, arrays, present={"sound": np.arange(6) != 2}, names=[f"item {n}" for n in range(6)], assets=assets
    )


@pytest.fixture(scope="module")
def emoji() -> EmbeddingStore:
    return ua.data.load_dataset("emoji")


def emoji_index(store: EmbeddingStore, rows: Any) -> ua.Index:
    return ua.Index.from_store(store, _space(store), rows=rows, calibrate=False)


def _space(store: EmbeddingStore) -> ua.Space:
    return ua.Space({name: store.dim(name) for name in ("image", "text", "name_de", "speech")}, dim=8)


def test_thumbnails_and_texts_of_a_store_in_memory(emoji: EmbeddingStore) -> None:
    index = emoji_index(emoji, "all")
    key = index.items(limit=6)[5].key
    kind, content = index.preview(key, "image") or ("", b"")
    assert kind == "image/webp"
    assert content[8:12] == b"WEBP"
    assert index.preview(key, "text") == ("text/plain; charset=utf-8", b"grinning face with sweat")
    german = index.preview(key, "name_de")
    assert german is not None
    assert german[1].decode() == "grinsendes Gesicht mit Schweißtropfen"
    assert index.preview(key, "speech") is None
    assert index.preview_modalities(key) == [name for name in index.modalities if name != "speech"]


def test_previews_belong_to_the_items_of_chosen_rows(emoji: EmbeddingStore) -> None:
    index = emoji_index(emoji, [40, 5, 700])
    assert [item.name for item in index.items()] == [emoji.item_name(row) for row in (40, 5, 700)]
    for item in index.items():
        preview = index.preview(item.key, "text")
        assert preview is not None
        assert preview[1].decode() == item.name


def test_updates_keep_the_previews_of_other_rows(emoji: EmbeddingStore) -> None:
    index = emoji_index(emoji, "all")
    key = index.items(limit=6)[5].key
    before = {name: index.preview(key, name) for name in index.modalities}
    index.update(key, label="x")
    assert {name: index.preview(key, name) for name in index.modalities} == before
    index.update(key, {"image": np.ones(8)}, metadata={"n": 1})
    assert {name: index.preview(key, name) for name in index.modalities} == {**before, "image": None}
    index.compact(everything=True)
    assert index.preview(key, "text") == before["text"]


def test_previews_are_copied_into_a_folder(emoji: EmbeddingStore, tmp_path: Path) -> None:
    memory = emoji_index(emoji, "all")
    with ua.Index.create(tmp_path / "index", space=memory.space) as index:
        index.add(emoji, rows=np.arange(30))
        keys = [item.key for item in index.items()]
        expected = {key: [memory.preview(key, name) for name in index.modalities] for key in keys}
    with ua.Index.open(tmp_path / "index") as reader:
        assert {key: [reader.preview(key, name) for name in reader.modalities] for key in keys} == expected
        assert reader.verify() == []


def test_damaged_texts_are_reported(tmp_path: Path) -> None:
    store = store_with(tmp_path / "store", {"texts.json": b"{"})
    with (
        ua.Index.create(tmp_path / "index", dim=5, modalities=COLUMNS) as index,
        pytest.raises(DataError, match="not valid JSON"),
    ):
        index.add(store)
    memory = ua.Index.from_store(store, calibrate=False)
    with pytest.raises(DataError, match="not valid JSON"):
        memory.preview(memory.items()[0].key, "text")


def test_texts_with_gaps(tmp_path: Path) -> None:
    texts = {"text": ["a", "", None, 4, "e" * 5000], "names": {"de": ["x"] * 6, "en": []}, "other": "no list"}
    store = store_with(tmp_path / "store", {"texts.json": json.dumps(texts).encode()})
    index = ua.Index.from_store(store, calibrate=False)
    found = [index.preview(item.key, "text") for item in index.items()]
    assert [each and each[1][:3] for each in found] == [b"a", None, None, b"4", b"eee", None]
    assert len((found[4] or ("", b""))[1]) == 2000


@pytest.mark.parametrize(
    ("preview", "message"),
    [
        ({"smell": ("image/png", b"")}, "'smell', which is not a modality"),
        ({"image": ("text/html", b"<script>")}, "content type 'text/html'"),
        ({"image": ("image/svg+xml", b"<svg>")}, "content type 'image/svg"),
        ({"image": ("image/png\r\nX-Header: 1", b"")}, "content type"),
        ({"image": ("image/png", "text")}, r"must be \(content type, bytes\)"),
        ({"image": b"content"}, r"must be \(content type, bytes\)"),
        ([1], "must be a mapping"),
        ({"image": ("image/png", bytes((16 << 20) + 1))}, "16777217 bytes"),
    ],
)
def test_invalid_previews(preview: Any, message: str) -> None:
    index = ua.Index.from_store(EmbeddingStore.from_arrays({"image": np.ones((1, 3))}), calibrate=False)
    with pytest.raises(ConfigError, match=message):
        index.add({"image": np.ones((1, 3))}, keys=["k"], previews=[preview])
    with pytest.raises(ConfigError, match=message):
        index.update("0", previews=preview)


def test_altered_preview_is_noticed(tmp_path: Path) -> None:
    content = b"a preview that is long enough to be found in the file"
    with ua.Index.create(tmp_path / "index", dim=3, modalities=["image"]) as index:
        index.add({"image": np.ones((1, 3))}, keys=["k"], previews=[{"image": ("image/png", content)}])
    path = tmp_path / "index" / DATABASE
    path.write_bytes(path.read_bytes().replace(content, content.replace(b"long", b"lang")))
    with ua.Index.open(tmp_path / "index") as reader:
        assert any("preview of 'image'" in problem for problem in reader.verify())
        with pytest.raises(DataError, match="preview of 'image' was altered"):
            reader.preview("k", "image")


def test_zip_bombs_are_not_expanded(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("image/0.webp", bytes(64 << 20))
    store = store_with(tmp_path / "store", {"thumbnails.zip": archive.read_bytes()})
    index = ua.Index.from_store(store, calibrate=False)
    with pytest.raises(DataError, match=r"image/0.webp in thumbnails.zip of 'store' has 67108864 bytes"):
        index.preview(index.items()[0].key, "image")
