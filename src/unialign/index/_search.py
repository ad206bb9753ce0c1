"""The steps of a search: targets -> filter -> scores -> best items -> records."""

import time
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unialign._checks import suggestion
from unialign.errors import ConfigError
from unialign.index._calibration import Calibration
from unialign.index._catalog import Catalog
from unialign.index._found import Found, Hit
from unialign.index._query_vectors import Vectors
from unialign.index._scores import best_scores, item_scores, row_scores
from unialign.index._snapshot import Derived, Part, Snapshot

Fuse = Literal["mean", "frechet_mean", "max", "rrf"]


def target_modalities(target: str | Sequence[str], modalities: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modalities of a target: all for `any` and `best`."""
    if target in ("any", "best"):
        return modalities
    names = (target,) if isinstance(target, str) else tuple(target)
    for name in names:
        if name not in modalities:
            known = (*modalities, "any", "best")
            raise ConfigError(
                f"unknown target {name!r}; expected {', '.join(map(repr, known))}{suggestion(name, known)}"
            )
    if not names:
        raise ConfigError("target must name at least one modality")
    return names


def search(
    snapshot: Snapshot,
    derived: dict[int, Derived],
    catalog: Catalog,
    calibration: Calibration,
    vectors: Vectors,
    *,
    k: int,
    target: str | Sequence[str] = "any",
    allowed: NDArray[np.int64] | None = None,
    exclude: Sequence[Collection[str]] = (),
) -> list[Found]:
    """Compare all items with each query, and return the best k."""
    started = time.perf_counter()
    targets = target_modalities(target, snapshot.modalities)
    best: list[list[tuple[float, str, int, int]]] = [[] for _ in vectors.q_QD]
    scanned, cancelled, without = 0, 0, 0
    for part in snapshot.parts:
        rows = row_scores(part, derived[part.id], calibration, vectors, targets)
        if not rows:
            without += part.items
            continue
        if target == "best":
            scores_Qn = best_scores(part, rows)
        else:
            scores_Qn, cancelled_n = item_scores(part, derived[part.id], rows, targets, snapshot.modalities)
            cancelled += int(cancelled_n.sum())
        keep_n = _kept(part, snapshot, allowed)
        scores_Qn = scores_Qn.masked_fill(~keep_n, -torch.inf)
        scanned += int((keep_n & (scores_Qn[0] > -torch.inf)).sum())
        without += int((keep_n & (scores_Qn[0] == -torch.inf)).sum())
        for number, scores_n in enumerate(scores_Qn):
            wide = min(part.items, k + len(exclude[number]) if exclude else k)
            values, places = scores_n.topk(wide)
            records = catalog.at_places([(part.id, int(place)) for place in places])
            for value, place, record in zip(values.tolist(), places.tolist(), records, strict=True):
                if value > -torch.inf and not (exclude and record.key in exclude[number]):
                    best[number].append((value, record.key, part.id, place))
    seconds = {"search": time.perf_counter() - started}
    warnings = _warnings(without, cancelled, targets)
    parts = {part.id: part for part in snapshot.parts}
    found = []
    for number, candidates in enumerate(best):
        candidates.sort(key=lambda entry: (-entry[0], entry[1]))
        hits = tuple(
            _hit(entry, parts[entry[2]], derived[entry[2]], snapshot, catalog, calibration, vectors, number, targets)
            for entry in candidates[:k]
        )
        found.append(Found(hits, True, scanned, calibration.method, seconds, warnings, snapshot.generation))
    return found


def _kept(part: Part, snapshot: Snapshot, allowed: NDArray[np.int64] | None) -> torch.Tensor:
    alive = snapshot.alive.get(part.id)
    keep_n = torch.ones(part.items, dtype=torch.bool) if alive is None else torch.from_numpy(alive.copy())
    if allowed is not None:
        chosen_n = torch.zeros(part.items, dtype=torch.bool)
        chosen_n[torch.from_numpy(allowed[allowed[:, 0] == part.id, 1])] = True
        keep_n &= chosen_n
    return keep_n


def _hit(
    entry: tuple[float, str, int, int],
    part: Part,
    derived: Derived,
    snapshot: Snapshot,
    catalog: Catalog,
    calibration: Calibration,
    vectors: Vectors,
    number: int,
    targets: Sequence[str],
) -> Hit:
    score, _, _, place = entry
    record = catalog.at_places([(part.id, place)])[0]
    cosines: dict[str, float] = {}
    missing = []
    for name in snapshot.modalities:
        places = part.places.get(name)
        row = place if places is None else int(np.searchsorted(places, place))
        if name not in part.rows or (places is not None and (row == len(places) or places[row] != place)):
            missing.append(name)
        elif name in targets:
            z_1D = torch.from_numpy(np.array(part.rows[name][row : row + 1]))
            cosines[name] = float(calibration.correct(name, z_1D)[0] @ vectors.q_QD[number])
    matched = max(cosines, key=lambda name: cosines[name])
    return Hit(
        record.key, record.name, score, None, None, matched, cosines, tuple(missing), record.label, record.metadata
    )


def _warnings(without: int, cancelled: int, targets: Sequence[str]) -> tuple[str, ...]:
    found = []
    if without:
        found.append(f"{without} items have none of the target modalities {', '.join(targets)}")
    if cancelled:
        found.append(f"the vectors of {cancelled} items cancel, so these items have no direction")
    return tuple(found)
