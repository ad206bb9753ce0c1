"""Test how files are opened: failures of the machine, changes while reading, links, and files that stay open."""

import errno
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from media.media_files import PIXELS, TONE, image_bytes, sound_bytes, video_bytes
from unialign.errors import ConfigError, DataError, MediaError, MissingDependencyError
from unialign.items import Items
from unialign.media import (
    TRANSIENT,
    Cell,
    Kind,
    MediaLimits,
    OpenFiles,
    _stored_array as stored_array,
    compressed_batches,
    decode,
    file_cells,
    file_mark,
    load_cell,
    open_cell,
    with_retries,
)
from unialign.media._stored_array import StoredArray

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
    """Batches of tables begin at rows 0, 32, 40, 72, 80 of parquet, and at 0, 40, 80 of Arrow files."""
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


def test_rows_in_fortran_order_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(6000, dtype=np.float32).reshape(60, 100)
    np.save(tmp_path / "a.npy", np.asfortranarray(array))
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(array))
    reads = []
    real = StoredArray._read
    monkeypatch.setattr(StoredArray, "_read", lambda *given: (reads.append(given), real(*given))[1])
    for name, key in (("a.npy", None), ("a.npz", "x")):
        reads.clear()
        with OpenFiles() as files:
            for row in range(60):
                cell = Cell(array=name, key=key, row=row)
                np.testing.assert_array_equal(load_cell(cell, "array", roots=[tmp_path], files=files), array[row])
        assert len(reads) == array.shape[1]
    monkeypatch.setattr(stored_array, "_BLOCK_BYTES", 4 * 100 * 7)
    with OpenFiles() as files:
        for row in (59, 0, 6, 7, 13, 14, 58):
            cell = Cell(array="a.npy", row=row)
            np.testing.assert_array_equal(load_cell(cell, "array", roots=[tmp_path], files=files), array[row])


def test_cells_of_tables_are_limited_before_they_are_decompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = pa.array([bytes(1 << 20)] * 40)
    pq.write_table(
        pa.table({"image": wide, "other": wide}), tmp_path / "a.parquet", use_dictionary=False, compression="zstd"
    )
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    read: list[int] = []
    real = pq.ParquetFile.iter_batches

    def counting(self: Any, batch_size: int, **options: Any) -> Any:
        read.append(batch_size)
        return real(self, batch_size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    cell = Cell(table="a.parquet", column="image", row=5)
    with pytest.raises(MediaError, match="expected at most 1,000") as caught:
        load_cell(cell, "image", roots=[tmp_path], limits=MediaLimits(bytes=1000))
    assert caught.value.code == "too-large"
    assert not read
    with open_cell(cell, roots=[tmp_path], limits=MediaLimits(bytes=4 << 20)) as file:
        assert file.read() == bytes(1 << 20)
    assert read == [3]


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
@pytest.mark.parametrize("is_file", [True, False])
def test_arrow_batches_are_limited_before_they_are_decompressed(
    tmp_path: Path, compression: str, is_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    table = pa.table({"image": pa.array([bytes(1 << 20), b"x", None]), "word": words})
    new = ipc.new_file if is_file else ipc.new_stream
    with new(tmp_path / "a.arrow", table.schema, options=ipc.IpcWriteOptions(compression=compression)) as file:
        file.write_table(table, max_chunksize=2)
    content = (tmp_path / "a.arrow").read_bytes()
    assert len(content) < 1 << 16
    sizes = list(compressed_batches(pa.py_buffer(content), is_file=is_file))
    assert [rows for rows, _ in sizes] == [2, 2, 1]  # the dictionary, and two batches
    assert [1 << 20 < size < (1 << 20) + 200 for _, size in sizes] == [False, True, False]
    cell = Cell(table="a.arrow", column="image", row=1)
    with open_cell(cell, roots=[tmp_path], limits=MediaLimits(bytes=1 << 20)) as file:
        assert file.read() == b"x"
    with pytest.raises(MediaError, match="expected at most 1,000") as caught:
        load_cell(cell, "image", roots=[tmp_path], limits=MediaLimits(bytes=1000))
    assert caught.value.code == "too-large"
    monkeypatch.setattr("unialign.readers.arrow.MediaLimits", lambda: SimpleNamespace(bytes=1000))
    with pytest.raises(
        DataError, match=r"batch of 2 rows with 1,048,\d+ bytes after decompression, expected at most 1,000"
    ):
        Items.open(tmp_path / "a.arrow")


def test_a_large_cell_among_small_ones_is_too_large(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [b"small"] * 99 + [bytes(5000)]}), tmp_path / "a.parquet")
    limits = MediaLimits(bytes=1000)
    assert load_cell(Cell(table="a.parquet", column="text", row=0), "text", roots=[tmp_path], limits=limits) == "small"
    with pytest.raises(MediaError, match="5,000 bytes, expected at most 1,000") as caught:
        load_cell(Cell(table="a.parquet", column="text", row=99), "text", roots=[tmp_path], limits=limits)
    assert caught.value.code == "too-large"


def test_files_to_which_a_table_refers_have_marks(root: Path) -> None:
    table = pa.table({"image": pa.array([{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": None}])})
    pq.write_table(table, root / "paths.parquet")
    cells = [Cell(table="paths.parquet", column="image", row=row) for row in (0, 1)]
    assert [cell.file for cell in file_cells(cells[0], roots=[root])] == ["paths.parquet", "a.png"]
    assert file_cells(cells[1], roots=[root]) == [cells[1]]
    assert file_cells(Cell(path="a.png"), roots=[root]) == [Cell(path="a.png")]
    assert file_cells(Cell(value="a text"), roots=[root]) == []


def test_reads_are_repeated_after_trouble_of_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    errors = [OSError(errno.ESTALE, "Stale file handle"), OSError(errno.EIO, "Input/output error"), None]

    def read() -> str:
        if (error := errors.pop(0)) is not None:
            raise error
        return "content"

    assert with_retries(read, "a.png", waits=(1, 2, 3)) == "content"
    assert waits == [1, 2]
    errors[:] = [OSError(errno.EIO, "Input/output error")] * 2
    with pytest.raises(DataError, match=r"a\.png cannot be read \(Input/output error\)"):
        with_retries(read, "a.png", waits=(1,))
    errors[:] = [OSError(errno.EACCES, "Permission denied")]
    with pytest.raises(PermissionError):
        with_retries(read, "a.png")


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
