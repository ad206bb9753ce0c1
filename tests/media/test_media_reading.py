"""Test how files are opened: failures of the machine, changes while reading, links, and files that stay open."""

import errno
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from media.media_files import PIXELS, TONE, image_bytes, sound_bytes, video_bytes
from unialign.errors import ConfigError, DataError, MediaError, MissingDependencyError
from unialign.media import TRANSIENT, Cell, Kind, MediaLimits, OpenFiles, decode, file_mark, load_cell, open_cell

VECTORS = np.arange(300, dtype=np.float32).reshape(100, 3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "a.png").write_bytes(image_bytes(PIXELS, "PNG"))
    (folder / "a.wav").write_bytes(sound_bytes(TONE))
    (folder / "a.mp4").write_bytes(video_bytes([0] * 6))
    (folder / "a.txt").write_text("a cat")
    np.save(folder / "a.npy", VECTORS)
    np.savez_compressed(folder / "a.npz", x=VECTORS)
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = VECTORS
    pq.write_table(pa.table({"x": pa.array(list(VECTORS))}), folder / "a.parquet", row_group_size=40)
    return folder


CELLS: dict[str, tuple[Kind, Cell]] = {
    "image": ("image", Cell(path="a.png")),
    "audio": ("audio", Cell(path="a.wav")),
    "video": ("video", Cell(path="a.mp4")),
    "text": ("text", Cell(path="a.txt")),
    "npy": ("array", Cell(array="a.npy", row=1)),
    "npz": ("array", Cell(array="a.npz", key="x", row=1)),
    "hdf5": ("array", Cell(array="a.h5", key="x", row=1)),
    "parquet": ("array", Cell(table="a.parquet", column="x", row=1)),
}


def failing(call: Callable[..., Any], number: int, after: int = 0) -> Callable[..., Any]:
    """Return a function that fails after some calls."""
    left = after

    def replaced(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        return call(*arguments, **options)

    return replaced


@pytest.mark.parametrize("name", CELLS)
def test_failures_of_the_disk_are_no_broken_cells(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, cell = CELLS[name]
    assert load_cell(cell, kind, roots=[root]) is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", failing(os.preadv, errno.EIO))
        with pytest.raises(OSError, match="Input/output error") as caught:
            load_cell(cell, kind, roots=[root])
        assert caught.value.errno in TRANSIENT
    for number in (errno.EMFILE, errno.ESTALE, errno.ENOMEM):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", failing(os.open, number))
            with pytest.raises(OSError) as caught:  # noqa: PT011
                load_cell(cell, kind, roots=[root])
            assert caught.value.errno == number
    assert load_cell(cell, kind, roots=[root]) is not None


def test_a_later_failure_is_not_a_truncated_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "long.wav").write_bytes(sound_bytes(np.tile(TONE, 20)))
    (root / "large.png").write_bytes(
        image_bytes(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8), "PNG")
    )
    for kind, path in (("audio", "long.wav"), ("image", "large.png")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "preadv", failing(os.preadv, errno.ETIMEDOUT, after=2))
            with pytest.raises(TimeoutError):
                load_cell(Cell(path=path), kind, roots=[root])


def test_missing_permission_is_unreadable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read all files, so that the permission is taken from the call.
    monkeypatch.setattr(os, "open", failing(os.open, errno.EACCES))
    for kind, cell in CELLS.values():
        with pytest.raises(MediaError, match="no permission") as caught:
            load_cell(cell, kind, roots=[root])
        assert caught.value.code == "unreadable"


@pytest.mark.parametrize("name", CELLS)
def test_a_file_that_changes_while_it_is_read_is_unreadable(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, cell = CELLS[name]
    assert cell.file is not None
    file, read = root / cell.file, os.preadv

    def changed(*arguments: Any) -> int:
        count = read(*arguments)
        with file.open("ab") as stream:
            stream.write(b" ")
        return count

    monkeypatch.setattr(os, "preadv", changed)
    with pytest.raises(MediaError, match="changed while it was read") as caught:
        load_cell(cell, kind, roots=[root])
    assert caught.value.code == "unreadable"


def test_lack_of_memory_is_no_broken_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "array", full)
    with pytest.raises(OSError, match="not enough memory") as caught:
        decode(image_bytes(PIXELS, "PNG"), "image")
    assert caught.value.errno == errno.ENOMEM


def test_a_missing_root_is_no_broken_cell(root: Path) -> None:
    with pytest.raises(DataError, match="nowhere cannot be read") as caught:
        load_cell(Cell(path="a.png"), "image", roots=[root / "nowhere"])
    assert not isinstance(caught.value, MediaError)
    with pytest.raises(DataError, match="root 1, but there are 1"):
        load_cell(Cell(path="a.png", root=1), "image", roots=[root])
    other = load_cell(Cell(path="a.png", root=1), "image", roots=[root / "nowhere", root])
    np.testing.assert_array_equal(other, PIXELS)


def test_links_inside_roots_and_hub_caches_are_followed(root: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models/snapshots/abc", tmp_path / "models/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "123").write_bytes(image_bytes(PIXELS, "PNG"))
    (snapshot / "b.png").symlink_to("../../blobs/123")
    (tmp_path / "linked-root").symlink_to(root)
    for cell, folder in ((Cell(path="b.png"), snapshot), (Cell(path="a.png"), tmp_path / "linked-root")):
        np.testing.assert_array_equal(load_cell(cell, "image", roots=[folder]), PIXELS)
    (snapshot / "c.png").symlink_to("../../../root/a.png")
    with pytest.raises(MediaError, match="out of the root folder"):
        load_cell(Cell(path="c.png"), "image", roots=[snapshot])
    # A folder whose name starts with that of the root is outside.
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2/a.png").write_bytes(image_bytes(PIXELS, "PNG"))
    with pytest.raises(MediaError, match="out of the root folder"):
        load_cell(Cell(path="../root-2/a.png"), "image", roots=[root])


def test_files_stay_open_between_rows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def counting(path: Any, *rest: Any, **options: Any) -> int:
        opened.append(str(path))
        return real(path, *rest, **options)

    real = os.open
    monkeypatch.setattr(os, "open", counting)
    order = [*range(100), 5, 99, 0, 41, 40, 39]
    for name in ("npy", "npz", "hdf5", "parquet"):
        kind, cell = CELLS[name]
        opened.clear()
        with OpenFiles() as files:
            for row in order:
                other = Cell(array=cell.array, table=cell.table, key=cell.key, column=cell.column, row=row)
                np.testing.assert_array_equal(load_cell(other, kind, roots=[root], files=files), VECTORS[row])
        assert len(opened) == 1, name


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "stream"])
def test_the_first_row_may_be_any(root: Path, suffix: str) -> None:
    """Batches of tables begin at rows 0, 32, 40, 64, ... of parquet, and at 0, 40, 80 of Arrow files."""
    table = pa.table({"x": pa.array(list(VECTORS))})
    with (root / f"b.{suffix}").open("wb") as file:
        if suffix == "parquet":
            pq.write_table(table, file, row_group_size=40)
        else:
            with (pa.ipc.new_file if suffix == "arrow" else pa.ipc.new_stream)(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=40)
    for first in (0, 31, 32, 39, 40, 41, 64, 79, 80, 99):
        with OpenFiles() as files:
            for row in (first, 0, first, min(99, first + 1)):
                cell = Cell(table=f"b.{suffix}", column="x", row=row)
                np.testing.assert_array_equal(load_cell(cell, "array", roots=[root], files=files), VECTORS[row])


def test_the_offset_of_a_wrong_byte_counts_from_the_start_of_the_file() -> None:
    for start in (b"", b"\xef\xbb\xbf"):
        with pytest.raises(MediaError, match=f"byte 0xff at offset {len(start) + 2} "):
            decode(start + b"ab\xffcd", "text")


def test_a_changed_file_is_opened_again(root: Path) -> None:
    with OpenFiles() as files:
        assert load_cell(Cell(array="a.npy", row=1), "array", roots=[root], files=files)[0] == 3
        np.save(root / "a.npy", VECTORS[:2] + 1)
        assert load_cell(Cell(array="a.npy", row=1), "array", roots=[root], files=files)[0] == 4
        (root / "a.npy").unlink()
        with pytest.raises(MediaError, match="no such file"):
            load_cell(Cell(array="a.npy", row=1), "array", roots=[root], files=files)


def test_no_file_stays_open(root: Path) -> None:
    def handles() -> int:
        return len(os.listdir("/proc/self/fd"))

    for place in range(20):
        (root / f"{place}.npy").write_bytes((root / "a.npy").read_bytes())
    before = handles()
    with OpenFiles() as files:
        for place in range(20):
            load_cell(Cell(array=f"{place}.npy", row=1), "array", roots=[root], files=files)
            assert handles() <= before + 10
    for kind, cell in CELLS.values():
        load_cell(cell, kind, roots=[root])
        with pytest.raises(MediaError):
            load_cell(cell, kind, roots=[root], limits=MediaLimits(bytes=1, characters=1))
    (root / "text.wav").write_text("no sound")
    for kind in ("image", "audio", "video"):
        with pytest.raises(MediaError):
            load_cell(Cell(path="text.wav"), kind, roots=[root])
    assert handles() == before


def test_encoded_bytes_and_marks(root: Path) -> None:
    (root / "s.tar").write_bytes(b"abcdef")
    for cell, expected in [
        (Cell(path="a.txt"), b"a cat"),
        (Cell(path="s.tar", at=(2, 3)), b"cde"),
        (Cell(value="Grüße"), "Grüße".encode()),
        (Cell(value=(1.0, 2.0)), np.array([1.0, 2.0], "<f8").tobytes()),
        (Cell(array="a.npy", row=1), VECTORS[1].astype("<f8").tobytes()),
        (Cell(table="a.parquet", column="x", row=1), VECTORS[1].astype("<f8").tobytes()),
    ]:
        with open_cell(cell, roots=[root]) as stream:
            assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(expected).digest()
    status = (root / "a.txt").stat()
    assert file_mark(Cell(path="a.txt"), roots=[root]) == (status.st_size, status.st_mtime_ns)
    assert file_mark(Cell(value="a"), roots=[root]) is None
    for path, code in (("nothing", "missing-file"), ("../x", "missing-file"), (".", "not-a-file")):
        with pytest.raises(MediaError) as caught, open_cell(Cell(path=path), roots=[root]):
            pass
        assert caught.value.code == code
    with (
        pytest.raises(MediaError, match="expected at most 3"),
        open_cell(Cell(path="a.txt"), roots=[root], limits=MediaLimits(bytes=3)),
    ):
        pass


def test_values_are_checked(root: Path) -> None:
    assert load_cell(Cell(value=" A cat.\n"), "text", roots=[]) == "A cat."
    assert load_cell(Cell(value=" "), "text", roots=[]) is None
    found = load_cell(Cell(value=(1.0, 2.0)), "array", roots=[])
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.tolist()) == (np.float32, [1, 2])
    with pytest.raises(MediaError, match="expected at most 3"):
        load_cell(Cell(value="a cat"), "text", roots=[], limits=MediaLimits(characters=3))
    with pytest.raises(ConfigError, match="'image' cannot be decoded from a value of type str"):
        load_cell(Cell(value="a cat"), "image", roots=[])
    with pytest.raises(ConfigError, match="unknown kind 'images'"):
        load_cell(Cell(value="a cat"), "images", roots=[])  # type: ignore[arg-type]


def test_missing_packages_are_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, package, extra in (
        ("image", "PIL.Image", "media"), ("audio", "soundfile", "media"), ("video", "av", "video"),
        ("hdf5", "h5py", "hdf5"), ("parquet", "pyarrow.parquet", "parquet"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingDependencyError, match=rf"unialign\[{extra}\]"):
                load_cell(CELLS[kind][1], CELLS[kind][0], roots=[root])


def test_without_pyav_unknown_sounds_are_undecodable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (root / "text.wav").write_text("no sound" * 99)
    with pytest.raises(MediaError, match=r"unialign\[video\]") as caught:
        load_cell(Cell(path="text.wav"), "audio", roots=[root])
    assert caught.value.code == "undecodable"
    # MP4 files can only be read with PyAV.
    with pytest.raises(MissingDependencyError, match=r"unialign\[video\]"):
        load_cell(Cell(path="a.mp4"), "audio", roots=[root])
