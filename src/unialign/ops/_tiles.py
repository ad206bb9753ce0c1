"""Split pairs of rows into tiles, and choose the tile size.

Shapes: `R` rows, `C` columns of the matrix of pairs.
"""

from collections.abc import Iterator

from torch import Tensor

# Maximum number of entries in a tile of full rows (32 MiB of float64).
TILE = 2**22
# Number of rows, and of columns, of a square tile. A tile (1 MiB of float32) fits into a core's cache, so later passes
# over it are cheap. Sides from 256 to 1,024 are about equally fast on a CPU; 2,048 is slower.
SIDE = 512


def row_tiles(rows: int, columns: int, *, most: int | None = None, entries: int | None = None) -> Iterator[slice]:
    """Yield slices of at most `most` rows and `entries` entries, but of at least one row."""
    step = max(1, (TILE if entries is None else entries) // max(1, columns))
    if most is not None:
        step = min(step, most)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def rectangle(rows: int, columns: int, *, side: int = SIDE) -> Iterator[tuple[slice, slice]]:
    for i in range(0, rows, side):
        for j in range(0, columns, side):
            yield slice(i, min(i + side, rows)), slice(j, min(j + side, columns))


def upper_triangle(rows: int, *, side: int = SIDE) -> Iterator[tuple[slice, slice]]:
    """Tiles on the diagonal have equal slices."""
    for i in range(0, rows, side):
        for j in range(i, rows, side):
            yield slice(i, min(i + side, rows)), slice(j, min(j + side, rows))


def tile_view(buffer: Tensor, i: slice, j: slice) -> Tensor:
    rows, columns = i.stop - i.start, j.stop - j.start
    return buffer[: rows * columns].view(rows, columns)
