"""Open the files of cells and decode a sample of them."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.embedding import ColumnWork, prepared_cells
from unialign.errors import MediaError
from unialign.items import Items
from unialign.media import Audio, Cell, Decoding, Kind, Media, MediaLimits, Video, file_mark, open_cell, with_retries

# Unit of the size of a decoded value of each kind.
UNITS: dict[Kind, str] = {
    "image": "pixels",
    "text": "characters",
    "audio": "seconds",
    "video": "seconds",
    "array": "numbers",
}


@dataclass
class CellReport:
    """Cells of one modality: files without decoding, and a decoded sample.

    Attributes:
        cells: distinct cells.
        index_N: (N,) number of the cell of each item, -1 if absent.
        bytes: total size of the files; a file is counted once.
        broken: cell number -> (code, detail).
        decoded: number of cells in the sample.
        sizes: size of each decoded cell in the unit of its kind.
        silent: number of decoded audio files whose samples are all 0.
        blank: number of decoded cells without content.
    """

    cells: Sequence[Cell]
    index_N: NDArray[np.int64]
    bytes: int = 0
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    decoded: int = 0
    sizes: list[float] = field(default_factory=list)
    silent: int = 0
    blank: int = 0

    @property
    def codes(self) -> dict[str, int]:
        return dict(sorted(Counter(code for code, _ in self.broken.values()).items()))

    @property
    def quartiles(self) -> list[float] | None:
        return [float(x) for x in np.quantile(self.sizes, [0, 0.25, 0.5, 0.75, 1])] if self.sizes else None


def check_cells(items: Items, *, decode: int | None, limits: MediaLimits, seed: int) -> dict[str, CellReport]:
    reports = {modality: CellReport(*items.column(modality)) for modality in items.modalities}
    for report in reports.values():
        _check_files(report, items, limits)
    _decode_samples(reports, items, decode=decode, limits=limits, seed=seed)
    return reports


def _check_files(report: CellReport, items: Items, limits: MediaLimits) -> None:
    # For rows of arrays and tables, and members of archives, the limit applies to each row or member.
    unlimited = replace(limits, bytes=sys.maxsize)
    found: dict[tuple[int, str, bool], int | MediaError] = {}
    counted: set[tuple[int, str]] = set()
    for number, cell in enumerate(report.cells):
        if cell.file is None:
            continue
        is_whole = cell.path is not None and cell.at is None
        key = (cell.root, cell.file, is_whole)
        if key not in found:
            found[key] = _size_or_error(Cell(path=cell.file, root=cell.root), items, limits if is_whole else unlimited)
        size = found[key]
        if isinstance(size, int) and cell.at is not None and not 0 < cell.at[1] <= min(size - cell.at[0], limits.bytes):
            size = _size_or_error(cell, items, limits)
        if isinstance(size, MediaError):
            report.broken[number] = (size.code, size.detail)
        elif key[:2] not in counted:
            counted.add(key[:2])
            report.bytes += size


def _size_or_error(cell: Cell, items: Items, limits: MediaLimits) -> int | MediaError:
    try:
        return with_retries(partial(_opened_size, cell, items, limits), cell.where)
    except MediaError as error:
        return error


def _opened_size(cell: Cell, items: Items, limits: MediaLimits) -> int:
    with open_cell(cell, roots=items.roots, limits=limits) as file:
        file.read(1)
    mark = file_mark(cell, roots=items.roots)
    return 0 if mark is None else mark.size


def _decode_samples(
    reports: Mapping[str, CellReport], items: Items, *, decode: int | None, limits: MediaLimits, seed: int
) -> None:
    work = {
        name: ColumnWork(
            media=items.kinds[name], prepare=measured, decoding=Decoding(), limits=limits, roots=items.roots
        )
        for name in reports
    }
    samples = {name: _sample(report, decode, seed) for name, report in reports.items()}
    cells = {name: [reports[name].cells[number] for number in numbers] for name, numbers in samples.items()}
    places: dict[str, Iterator[int]] = {name: iter(numbers) for name, numbers in samples.items()}
    for name, outcome in prepared_cells(work, cells):
        report, number = reports[name], next(places[name])
        if outcome.code is not None:
            report.broken[number] = (outcome.code, outcome.detail)
            continue
        report.decoded += 1
        if outcome.arrays is None:
            report.blank += 1
            continue
        report.sizes.append(float(outcome.arrays["size"][0]))
        report.silent += bool(outcome.arrays["silent"][0])


def _sample(report: CellReport, decode: int | None, seed: int) -> list[int]:
    whole = np.array([number for number in range(len(report.cells)) if number not in report.broken], dtype=np.int64)
    if decode is not None and decode < len(whole):
        order = np.argsort(np.random.PCG64(seed).random_raw(len(whole)), kind="stable")
        whole = np.sort(whole[order[:decode]])
    numbers: list[int] = whole.tolist()
    return numbers


def measured(media: Any) -> dict[str, NDArray[Any]]:
    """Return the size of a decoded value, and whether it is silent; worker processes import this function."""
    is_silent = isinstance(media, Audio) and not media.samples.any()
    return {"size": np.array([_size(media)]), "silent": np.array([is_silent])}


def _size(media: Media) -> float:
    if isinstance(media, Audio):
        return media.seconds
    if isinstance(media, Video):
        return float(media.seconds or 0.0)
    if isinstance(media, str):
        return float(len(media))
    return float(media.shape[0] * media.shape[1]) if media.ndim == 3 else float(media.size)
