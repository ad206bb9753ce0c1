"""How pairs of rows are cut into tiles: the one place that says how large a tile may be.

Shapes: `R` rows, `C` columns of the table of pairs.
"""

from collections.abc import Iterator

__all__ = ["SIDE", "TILE", "rectangle", "row_tiles", "upper_triangle"]

# Most entries of a tile of whole rows (32 MiB of float64).
TILE = 2**22
# Rows and columns of a square tile: 1 MiB of float32 fits a core's cache, so that what follows the product is cheap.
# Measured between 256 and 1,024 on a CPU there is little to choose; from 2,048 on it is slower.
SIDE = 512


def row_tiles(rows: int, columns: int, *, most: int | None = None, entries: int | None = None) -> Iterator[slice]:
    """Runs of whole rows, of at most `entries` (`TILE` if None) and at most `most` rows, at least one row each."""
    step = max(1, (TILE if entries is None else entries) // max(1, columns))
    if most is not None:
        step = min(step, most)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def rectangle(rows: int, columns: int, *, side: int = SIDE) -> Iterator[tuple[slice, slice]]:
    """Square tiles of an R x C table, row by row."""
    for i in range(0, rows, side):
        for j in range(0, columns, side):
            yield slice(i, min(i + side, rows)), slice(j, min(j + side, columns))


def upper_triangle(rows: int, *, side: int = SIDE) -> Iterator[tuple[slice, slice]]:
    """Square tiles on and above the diagonal of an R x R table, row by row; those on it have two equal slices."""
    for i in range(0, rows, side):
        for j in range(i, rows, side):
            yield slice(i, min(i + side, rows)), slice(j, min(j + side, rows))
