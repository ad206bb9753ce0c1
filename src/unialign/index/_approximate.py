"""Approximate candidates for large indexes, by faiss.

A graph or an inverted file over the corrected vectors of one target (`any`: the normalized sums of the rows of each
item) returns candidates, which are then scored exactly. It is a cache: items that it does not cover are compared
exactly, and it can be built again at any time.

Shapes: `N` covered items, `Q` queries, `D` dimension, `C` candidates.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_choice, check_number
from unialign._optional import optional_module
from unialign.errors import ConfigError, DataError
from unialign.index._calibration import Calibration
from unialign.index._derived import row_places
from unialign.index._snapshot import Part, Snapshot
from unialign.io import digest, replace_file

Kind = Literal["hnsw", "ivf"]
KINDS = ("hnsw", "ivf")

_NEIGHBORS = 32
_BUILD_EFFORT = 80
# Rows that train the cells of an inverted file, per cell.
_TRAINING_ROWS = 64
_QUERIES = 200
_BLOCK = 16384


@dataclass(frozen=True)
class ApproximateInfo:
    """Description of an approximate index.

    Attributes:
        kind: `hnsw` (a graph) or `ivf` (an inverted file).
        target: `any` or a modality.
        recall: fraction of the exact ten nearest items that are found, for the query modality with the lowest one.
        effort: `efSearch` of the graph or `nprobe` of the inverted file, chosen to reach the requested recall.
        parts: ids of the covered parts.
        calibration: id of the calibration that corrected the covered vectors.
        seconds: duration of the build.
    """

    kind: Kind
    target: str
    recall: float
    effort: int
    parts: tuple[int, ...]
    calibration: str
    seconds: float


class Approximate:
    """Candidates for a target.

    Attributes:
        info: the description.
        at_N2: (N, 2) part and place of the covered items.
    """

    def __init__(self, info: ApproximateInfo, faiss_index: Any, at_N2: NDArray[np.int64]) -> None:
        self.info, self.at_N2 = info, at_N2
        self._faiss_index = faiss_index

    def candidates(
        self, q_QD: NDArray[np.float32], count: int, *, effort: int | None = None
    ) -> list[NDArray[np.int64]]:
        """Return, for each query, the (C, 2) parts and places of at most `count` items, best first."""
        faiss = _faiss()
        effort = max(self.info.effort if effort is None else effort, count if self.info.kind == "hnsw" else 1)
        # Passed to this call, since attributes of the shared index would affect concurrent searches.
        parameters = (
            faiss.SearchParametersHNSW(efSearch=effort)
            if self.info.kind == "hnsw"
            else faiss.SearchParametersIVF(nprobe=effort)
        )
        wanted = min(count, len(self.at_N2))
        _, rows_QC = self._faiss_index.search(np.ascontiguousarray(q_QD, np.float32), wanted, params=parameters)
        # faiss returns -1 if it finds fewer items.
        return [self.at_N2[rows_C[rows_C >= 0]] for rows_C in rows_QC]

    def save(self, folder: Path) -> str:
        """Write `NAME.faiss` and `NAME.json` to a folder, and return NAME, the start of the checksum."""
        content = _faiss().serialize_index(self._faiss_index).tobytes()
        places = self.at_N2.astype("<i8").tobytes()
        checksum = digest(content + places)
        name = checksum[:16]
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{name}.faiss", content + places, error=DataError)
        described = asdict(self.info) | {"checksum": checksum, "items": len(self.at_N2)}
        replace_file(folder / f"{name}.json", json.dumps(described).encode(), error=DataError)
        return name

    @classmethod
    def load(cls, folder: Path, name: str) -> "Approximate":
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing or altered.
        """
        try:
            described = json.loads((folder / f"{name}.json").read_bytes())
            content = (folder / f"{name}.faiss").read_bytes()
            if digest(content) != described.pop("checksum"):
                raise DataError("its checksum differs")
            items = described.pop("items")
            split = len(content) - 16 * items
            at_N2 = np.frombuffer(content[split:], "<i8").reshape(items, 2).astype(np.int64)
            info = ApproximateInfo(**described | {"parts": tuple(described["parts"])})
        except (OSError, ValueError, KeyError, TypeError, DataError) as error:
            raise DataError(
                f"the approximate index {folder / name} cannot be used ({error}); build it again with "
                "`build_approximate`; until then, searches are exact"
            ) from None
        found = _faiss().deserialize_index(np.frombuffer(content[:split], np.uint8))
        return cls(info, found, at_N2)


def build_approximate(
    snapshot: Snapshot,
    calibration: Calibration,
    *,
    kind: Kind,
    target: str,
    recall: float,
    calibration_id: str,
    seed: int = 0,
) -> Approximate:
    """Build a graph or inverted file over the corrected vectors of a target, and choose its effort.

    Args:
        kind: `hnsw` or `ivf`.
        target: `any` or a modality.
        recall: requested fraction of the exact ten nearest items, in (0, 1]. The effort is doubled until the rows of
            each modality reach it.
        calibration_id: id of the calibration.
        seed: seed of the training rows and of the held-out queries.

    Raises:
        ConfigError: an option is invalid, or the target has no rows.
        MissingDependencyError: faiss is not installed.
    """
    check_choice("kind", kind, KINDS)
    check_number("recall", recall, "in (0, 1]", lambda x: 0 < x <= 1)
    faiss = _faiss()
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    blocks = [target_vectors(part, snapshot, calibration, target) for part in snapshot.parts]
    if not sum(len(places) for places, _ in blocks):
        raise ConfigError(f"no item of the index has the target {target!r}, so there is nothing to build")
    at_N2 = np.concatenate(
        [
            np.stack([np.full(len(places), part.id), places], 1)
            for part, (places, _) in zip(snapshot.parts, blocks, strict=True)
        ]
    )
    z_ND = np.concatenate([rows for _, rows in blocks])
    built = _empty(faiss, kind, z_ND, rng)
    for start in range(0, len(z_ND), _BLOCK):
        built.add(z_ND[start : start + _BLOCK])
    parts = tuple(part.id for part in snapshot.parts)
    info = ApproximateInfo(kind, target, 0.0, 16 if kind == "hnsw" else 1, parts, calibration_id, 0.0)
    found = Approximate(info, built, at_N2)
    queries_QD, modality_Q = _queries(snapshot, calibration, rng)
    nearest = [set(map(tuple, at_N2[rows].tolist())) for rows in _nearest(queries_QD, z_ND, 10)]
    most = len(z_ND) if kind == "hnsw" else built.nlist

    def recall_of(effort: int) -> float:
        """Return the recall of the modality of queries with the lowest recall."""
        close = found.candidates(queries_QD.astype(np.float32), 10, effort=effort)
        found_Q = np.array(
            [
                len(true & set(map(tuple, got.tolist()))) / max(1, len(true))
                for true, got in zip(nearest, close, strict=True)
            ]
        )
        return min(float(found_Q[modality_Q == number].mean()) for number in np.unique(modality_Q))

    effort, measured = _smallest_effort(recall_of, recall, first=info.effort, most=most)
    seconds = time.perf_counter() - started
    return Approximate(ApproximateInfo(kind, target, measured, effort, parts, calibration_id, seconds), built, at_N2)


def _smallest_effort(recall_of: Callable[[int], float], target: float, *, first: int, most: int) -> tuple[int, float]:
    """Return the effort with the target recall, within an eighth, and its recall; `most` if none has it."""
    low, effort = 0, min(first, most)
    while (measured := recall_of(effort)) < target and effort < most:
        low, effort = effort, min(2 * effort, most)
    while low > 0 and effort - low > max(1, effort // 8):
        middle = (low + effort) // 2
        if (between := recall_of(middle)) >= target:
            effort, measured = middle, between
        else:
            low = middle
    return effort, measured


def _nearest(queries_QD: NDArray[np.float64], z_ND: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the (Q, k) rows with the largest inner products, in float32, which suffices to measure the recall."""
    q_QD = torch.from_numpy(queries_QD.astype(np.float32))
    best: Tensor | None = None
    rows: Tensor | None = None
    for start in range(0, len(z_ND), _BLOCK):
        s_Qb = q_QD @ torch.from_numpy(z_ND[start : start + _BLOCK]).mT
        number_Qb = torch.arange(start, start + s_Qb.shape[1]).expand_as(s_Qb)
        if best is not None and rows is not None:
            s_Qb, number_Qb = torch.cat([best, s_Qb], 1), torch.cat([rows, number_Qb], 1)
        best, place = s_Qb.topk(min(k, s_Qb.shape[1]), dim=1)
        rows = number_Qb.gather(1, place)
    assert rows is not None
    found: NDArray[np.int64] = rows.numpy()
    return found


def target_vectors(
    part: Part, snapshot: Snapshot, calibration: Calibration, target: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the (n,) places of the living items that have the target, and their (n, D) unit vectors.

    The vector of `any` is the normalized sum of the corrected rows of an item.
    """
    names = snapshot.modalities if target == "any" else (target,)
    sum_nD = np.zeros((part.items, snapshot.dim), np.float32)
    for name in names:
        if name in part.rows:
            places = row_places(part, name)
            for start in range(0, len(places), _BLOCK):
                rows = slice(start, start + _BLOCK)
                z_bD = torch.from_numpy(np.array(part.rows[name][rows]))
                sum_nD[places[rows]] += calibration.correct(name, z_bD).nan_to_num().float().numpy()
    norm_n = np.linalg.norm(sum_nD, axis=1)
    keep_n = norm_n > 1e-3
    alive = snapshot.alive.get(part.id)
    if alive is not None:
        keep_n &= alive
    places = np.flatnonzero(keep_n)
    return places, sum_nD[places] / norm_n[places, None]


def _empty(faiss: Any, kind: Kind, z_ND: NDArray[np.float32], rng: np.random.Generator) -> Any:
    items, dim = z_ND.shape
    if kind == "hnsw":
        built = faiss.IndexHNSWFlat(dim, _NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
        built.hnsw.efConstruction = _BUILD_EFFORT
        return built
    cells = max(1, min(int(4 * items**0.5), items // 40))
    built = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    sample = rng.permutation(items)[: _TRAINING_ROWS * cells]
    built.train(z_ND[np.sort(sample)])
    return built


def _queries(
    snapshot: Snapshot, calibration: Calibration, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (Q, D) corrected rows of random items, and the (Q,) numbers of their modalities; the same number for each
    modality.
    """
    counts = snapshot.counts()
    names = [name for name in snapshot.modalities if counts[name]]
    chosen: list[NDArray[np.float64]] = []
    for name in names:
        parts = [part for part in snapshot.parts if name in part.rows and len(part.rows[name])]
        for _ in range(max(1, _QUERIES // len(names))):
            part = parts[int(rng.integers(len(parts)))]
            row = int(rng.integers(len(part.rows[name])))
            z_1D = torch.from_numpy(np.array(part.rows[name][row : row + 1]))
            chosen.append(calibration.correct(name, z_1D).numpy())
    queries_QD = np.concatenate(chosen)
    modality_Q = np.repeat(np.arange(len(names)), len(chosen) // len(names))
    usable_Q = ~np.isnan(queries_QD).any(1)
    return queries_QD[usable_Q], modality_Q[usable_Q]


def approximate_candidates(
    approximate: Approximate, snapshot: Snapshot, q_QD: NDArray[np.float32], count: int
) -> list[NDArray[np.int64]]:
    """Return, for each query, (C, 2) parts and places: candidates, and all items of the parts that are not covered."""
    living = {part.id for part in snapshot.parts}
    all_live = living.issuperset(approximate.info.parts)
    rest = [part for part in snapshot.parts if part.id not in approximate.info.parts]
    added = [np.stack([np.full(part.items, part.id), np.arange(part.items)], 1) for part in rest]
    found = []
    for at_C2 in approximate.candidates(q_QD, count):
        known_C2 = at_C2 if all_live else at_C2[np.isin(at_C2[:, 0], list(living))]
        found.append(np.concatenate([known_C2, *added]) if added else known_C2)
    return found


def uncovered(approximate: Approximate, snapshot: Snapshot) -> float:
    """Return the fraction of items in parts that the approximate index does not cover."""
    items = sum(part.items for part in snapshot.parts)
    outside = sum(part.items for part in snapshot.parts if part.id not in approximate.info.parts)
    return outside / max(1, items)


def _faiss() -> Any:
    return optional_module("faiss", "an approximate index", "index")
