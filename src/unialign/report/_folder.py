"""Read a comparison folder; files outside the folder are never read."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data import THUMBNAILS, Thumbnails
from unialign.errors import DataError
from unialign.report._model import ComparisonResults, Run, number
from unialign.report._schema import clean, parse_results


@dataclass(frozen=True)
class Items:
    rows: tuple[int, ...]
    names: tuple[str, ...]
    ids: tuple[int, ...]  # items with the same id are positives of each other


@dataclass(frozen=True)
class LogLine:
    step: int
    objective: str
    loss: float
    terms: Mapping[str, float]


@dataclass(frozen=True)
class TestRows:
    """Absent rows are 0."""

    z: Mapping[str, NDArray[np.float64]]

    @cached_property
    def present(self) -> dict[str, NDArray[np.bool_]]:
        return {name: np.any(rows != 0, axis=1) for name, rows in self.z.items()}

    @property
    def items(self) -> int:
        return len(next(iter(self.z.values())))


@dataclass(frozen=True)
class ComparisonFolder:
    folder: Path
    results: ComparisonResults
    items: Items | None
    thumbnails: Thumbnails

    def space(self, run: Run) -> TestRows:
        path = self._inside(run) / "embeddings.safetensors"
        if not path.is_file():
            raise DataError(f"{path} is missing; train or evaluate {run.objective} seed {run.seed} again")
        return _read_space(path, self.results.data.modalities, None if self.items is None else len(self.items.rows))

    def log(self, run: Run) -> list[LogLine]:
        path = self._inside(run) / "log.jsonl"
        return _read_log(path, run.objective) if path.is_file() else []

    def _inside(self, run: Run) -> Path:
        """Raise DataError for a folder outside the comparison folder."""
        path = (self.folder / run.folder).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise DataError(f"results.json refers to a run outside its folder: {run.folder!r}")
        return path


def read_comparison(folder: Path) -> ComparisonFolder:
    path = folder / "results.json"
    if not path.is_file():
        raise DataError(f"{path} is missing; expected a folder written by `unialign compare`, `train` or `evaluate`")
    results = parse_results(_read_json(path))
    return ComparisonFolder(folder, results, _read_items(folder / "items.json"), Thumbnails(folder / THUMBNAILS))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}) and may be truncated; create it again") from error


def _read_items(path: Path) -> Items | None:
    if not path.is_file():
        return None
    raw = clean(_read_json(path))
    rows = raw.get("rows") if isinstance(raw, Mapping) else None
    if not isinstance(rows, list) or not all(math.isfinite(number(row)) for row in rows):
        raise DataError(f"{path} has no list 'rows' with the row numbers of the test items")
    names = [f"item {row}" for row in rows] if raw.get("names") is None else raw["names"]
    if not isinstance(names, list) or len(names) != len(rows):
        raise DataError(f"{path} must have one name for each of its {len(rows)} rows")
    # Folders of earlier versions have no ids, so treat all items as distinct.
    ids = list(range(len(rows))) if raw.get("ids") is None else raw["ids"]
    if not isinstance(ids, list) or len(ids) != len(rows) or not all(isinstance(value, int) for value in ids):
        raise DataError(f"{path} must have one integer in 'ids' for each of its {len(rows)} rows")
    return Items(tuple(int(row) for row in rows), tuple(str(name) for name in names), tuple(ids))


def _read_space(path: Path, modalities: tuple[str, ...], items: int | None) -> TestRows:
    # Import lazily, since the verdict and the table do not need safetensors.
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"{path} is not a readable safetensors file ({error}); evaluate the run again") from error
    z: dict[str, NDArray[np.float64]] = {}
    for name in modalities:
        if name not in arrays:
            raise DataError(f"{path} has no {name!r}; it has {', '.join(sorted(arrays)) or 'nothing'}")
        rows = np.asarray(arrays[name])
        if rows.ndim != 2 or not np.issubdtype(rows.dtype, np.floating):
            raise DataError(f"{path}: {name!r} must be a matrix of floats, found {rows.dtype} {rows.shape}")
        if items is not None and len(rows) != items:
            raise DataError(f"{path}: {name!r} has {len(rows)} rows, but items.json has {items}")
        if not np.isfinite(rows).all():
            bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
            raise DataError(f"{path}: {name!r} row {bad} is not finite")
        z[name] = rows.astype(np.float64)
    if len({rows.shape for rows in z.values()}) > 1:
        raise DataError(f"{path}: shapes differ between modalities: { {name: rows.shape for name, rows in z.items()} }")
    return TestRows(z)


def _read_log(path: Path, objective: str) -> list[LogLine]:
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            continue  # an interrupted run may leave an incomplete line
        if not isinstance(raw, Mapping) or not math.isfinite(number(raw.get("step"))) or "loss" not in raw:
            continue
        terms = raw.get("terms")
        values = {clean(str(k)): number(v) for k, v in terms.items()} if isinstance(terms, Mapping) else {}
        # Values of early stopping get a panel like a family of terms.
        validation = raw.get("validation")
        if isinstance(validation, Mapping):
            values |= {f"validation/{clean(str(k))}": number(v) for k, v in validation.items()}
        name = clean(str(raw.get("objective", objective)))
        lines.append(LogLine(int(raw["step"]), name, number(raw["loss"]), values))
    return sorted(lines, key=lambda line: line.step)
