"""Test reading rows in blocks from arrays of any layout, and releasing the pages of memory-mapped files."""

import mmap
from pathlib import Path

import numpy as np

from unialign.data import RowReader, row_blocks
from unialign.io import MappedPages, _mapped_pages


def test_rows_of_any_layout_and_order() -> None:
    x = np.random.default_rng(0).normal(size=(3000, 5))
    rows = np.random.default_rng(1).permutation(3000)[:2100]
    for array in (x, np.asfortranarray(x), x[::-1], x[:, ::2], x[::2].repeat(2, 0).astype(np.float16)):
        np.testing.assert_array_equal(RowReader(array).read(rows), array[rows])
    out = np.empty((2, 5))
    assert RowReader(x).read(np.array([4, 1]), out=out) is out
    np.testing.assert_array_equal(out, x[[4, 1]])


def test_blocks_cover_the_rows_once() -> None:
    x = np.arange(40.0).reshape(20, 2)
    for rows in (np.arange(20), np.arange(3, 17), np.array([0, 2, 3, 4, 9, 19]), np.array([7])):
        found = [(part, block.copy()) for part, block in row_blocks(x, rows, 4)]
        assert [part.start for part, _ in found] == list(range(0, len(rows), 4))
        np.testing.assert_array_equal(np.concatenate([block for _, block in found]), x[rows])


def test_released_pages_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x"
    x = np.random.default_rng(0).normal(size=(64, 512))
    x.tofile(path)
    for mode in ("r", "r+"):
        mapped = np.memmap(path, np.float64, mode, shape=x.shape)
        if mode == "r+":
            mapped[3] = x[3] = 7.0
        view = np.asarray(mapped)[:]
        MappedPages([view]).release()
        np.testing.assert_array_equal(view, x)


def test_changes_of_a_private_map_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x"
    np.zeros(4096).tofile(path)
    mapped = np.memmap(path, np.float64, "c")
    mapped[5] = 1.0
    MappedPages([np.asarray(mapped), np.zeros(3)]).release()
    assert mapped[5] == 1.0
    with path.open("r+b") as handle:
        private = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
        read_only = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    view = memoryview(private).toreadonly()
    arrays = [np.ndarray(4096, buffer=private), np.frombuffer(private), np.frombuffer(view)]
    arrays[0][5] = 1.0
    for array in arrays:
        MappedPages([array]).release()
        assert array[5] == 1.0
    # The pages of shared and read-only maps can be released without losing changes.
    shared = [np.memmap(path, np.float64, mode) for mode in ("r", "r+")]
    for array in (*shared, np.asarray(shared[1])[2:], np.frombuffer(read_only), np.ndarray(4096, buffer=read_only)):
        assert isinstance(_mapped_pages._mapping_of(array), mmap.mmap)


def test_pages_are_released_above_the_limit(tmp_path: Path, monkeypatch) -> None:
    np.zeros(1000).tofile(tmp_path / "x")
    pages = MappedPages([np.memmap(tmp_path / "x", np.float64, "r")])
    released = []
    monkeypatch.setattr(pages, "release", lambda: released.append(True))
    now = _mapped_pages._resident_file_bytes()
    for grown in (1 << 20, 1 << 27):
        monkeypatch.setattr(_mapped_pages, "_resident_file_bytes", lambda grown=grown: now + grown)
        pages.limit()
    assert released == [True]
