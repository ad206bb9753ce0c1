"""Test that thumbnails are copied from the store unchanged, and that damaged thumbnails do not stop a run."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from unialign.data import EmbeddingStore
from unialign.experiments import copy_thumbnails


def store_of(archive: bytes) -> EmbeddingStore:
    return EmbeddingStore.from_arrays({"image": np.eye(3)}, assets={"thumbnails.zip": archive})


def archive_of(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, data in files.items():
            written.writestr(name, data)
    return file.getvalue()


def test_chosen_thumbnails_are_copied_with_new_numbers(tmp_path: Path) -> None:
    whole = archive_of(**{"image/0.webp": b"a", "image/2.png": b"c", "other/1.webp": b"x", "image/note.txt": b"y"})
    copy_thumbnails(store_of(whole), tmp_path, {row: row + 5 for row in range(3)}, modality="image")
    with zipfile.ZipFile(tmp_path / "thumbnails.zip") as copy:
        assert {name: copy.read(name) for name in copy.namelist()} == {"image/5.webp": b"a", "image/7.png": b"c"}


@pytest.mark.parametrize("flag", [(6, 1), (8, 99)], ids=["encrypted", "unknown method"])
def test_a_damaged_archive_is_a_warning(tmp_path: Path, flag: tuple[int, int]) -> None:
    offset, value = flag
    damaged = bytearray(archive_of(**{"image/0.webp": b"a"}))
    central = damaged.index(b"PK\x01\x02")
    damaged[offset] = damaged[central + 2 + offset] = value
    (tmp_path / "thumbnails.zip").write_bytes(b"before")
    with pytest.warns(UserWarning, match="no images"):
        copy_thumbnails(store_of(bytes(damaged)), tmp_path, {0: 0})
    assert (tmp_path / "thumbnails.zip").read_bytes() == b"before"
