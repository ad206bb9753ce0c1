"""Test the streamed zip archive of thumbnails against the module `zipfile`."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from unialign.data import EmbeddingStore, StreamedAsset, Thumbnails, thumbnail_archive
from unialign.errors import ConfigError

IMAGES = [("image/0.webp", b"first"), ("image/12.webp", b""), ("clip/3.webp", bytes(range(256)) * 9)]


def read(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("images", [IMAGES, []])
def test_zipfile_reads_the_archive(images: list[tuple[str, bytes]]) -> None:
    assert read(b"".join(thumbnail_archive(images))) == dict(images)


def test_an_archive_of_many_files_has_64_bit_fields() -> None:
    many = [(f"image/{row}.webp", b"%d" % row) for row in range(70000)]
    assert read(b"".join(thumbnail_archive(many))) == dict(many)


def test_thumbnails_of_a_store_are_read(tmp_path: Path) -> None:
    calls = []

    def chunks() -> Iterator[bytes]:
        calls.append(1)
        return thumbnail_archive(IMAGES)

    store = EmbeddingStore.write(
        tmp_path / "store", {"image": [[1.0], [2.0]]}, assets={"thumbnails.zip": StreamedAsset(chunks)}
    )
    assert len(calls) == 1
    store.verify()
    with store.open_asset("thumbnails.zip") as file:
        assert Thumbnails(file).read("image", 0) == (b"first", "webp")
    found = Thumbnails(store.asset("thumbnails.zip"))
    assert found.read("clip", 3) == (IMAGES[2][1], "webp")
    assert found.modalities == {"image", "clip"}
    in_memory = EmbeddingStore.from_arrays(
        {"image": [[1.0], [2.0]]}, assets={"a.jsonl": StreamedAsset(lambda: [b"1", b"2"])}
    )
    assert in_memory.asset("a.jsonl") == b"12"
    copy = in_memory.save(tmp_path / "copy")
    assert copy.asset("a.jsonl") == b"12"
    for one in (in_memory, copy):
        with pytest.raises(ConfigError, match="unknown asset 'b'"):
            one.open_asset("b")
