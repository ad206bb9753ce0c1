"""Check the files of cells and decode a sample of them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unialign.errors import MediaError
from unialign.items import Items
from unialign.media import Audio, Cell, Kind, Media, MediaLimits, OpenFiles, Video, file_mark, load_cell

# What the size of a decoded value of each kind is measured in.
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
        cells: number of distinct cells.
        bytes: total size of the files; a file is counted once.
        broken: cell number -> (code, detail).
        decoded: number of cells in the sample.
        sizes: size of each decoded cell in the unit of its kind.
        silent: number of decoded sounds whose samples are all 0.
        blank: number of decoded cells without content.
        seconds: CPU time of decoding.
    """

    cells: int
    bytes: int = 0
    broken: dict[int, tuple[str, str]] = field(default_factory=dict)
    decoded: int = 0
    sizes: list[float] = field(default_factory=list)
    silent: int = 0
    blank: int = 0
    seconds: float = 0.0

    @property
    def codes(self) -> dict[str, int]:
        return dict(sorted(Counter(code for code, _ in self.broken.values()).items()))

    @property
    def quartiles(self) -> list[float] | None:
        return [float(x) for x in np.quantile(self.sizes, [0, 0.25, 0.5, 0.75, 1])] if self.sizes else None


def check_cells(
    items: Items, modality: str, *, decode: int | None, limits: MediaLimits, seed: int
) -> tuple[CellReport, Sequence[Cell], NDArray[np.int64]]:
    """Return the report, the distinct cells, and the (N,) number of the cell of each item, -1 if absent."""
    cells, index_N = items.column(modality)
    report = CellReport(cells=len(cells))
    seen: set[tuple[int, str]] = set()
    for number in range(len(cells)):
        cell = cells[number]
        if cell.file is None or (cell.root, cell.file) in seen:
            continue
        try:
            mark = file_mark(cell, roots=items.roots)
        except MediaError as error:
            report.broken[number] = (error.code, error.detail)
            continue
        seen.add((cell.root, cell.file))
        report.bytes += 0 if mark is None else mark.size
    _decode_sample(report, items, modality, cells, decode=decode, limits=limits, seed=seed)
    return report, cells, index_N


def _decode_sample(
    report: CellReport,
    items: Items,
    modality: str,
    cells: Sequence[Cell],
    *,
    decode: int | None,
    limits: MediaLimits,
    seed: int,
) -> None:
    whole = np.array([number for number in range(len(cells)) if number not in report.broken], dtype=np.int64)
    if decode is not None and decode < len(whole):
        order = np.argsort(np.random.PCG64(seed).random_raw(len(whole)), kind="stable")
        whole = np.sort(whole[order[:decode]])
    kind = items.kinds[modality]
    started = time.process_time()
    with OpenFiles() as files:
        for number in whole.tolist():
            try:
                media = load_cell(cells[number], kind, roots=items.roots, limits=limits, files=files)
            except MediaError as error:
                report.broken[number] = (error.code, error.detail)
                continue
            report.decoded += 1
            if media is None:
                report.blank += 1
                continue
            report.sizes.append(_size(media))
            report.silent += isinstance(media, Audio) and not media.samples.any()
    report.seconds = time.process_time() - started


def _size(media: Media) -> float:
    if isinstance(media, Audio):
        return media.seconds
    if isinstance(media, Video):
        return float(media.seconds or 0.0)
    if isinstance(media, str):
        return float(len(media))
    return float(media.shape[0] * media.shape[1]) if media.ndim == 3 else float(media.size)
