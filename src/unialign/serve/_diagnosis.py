"""Route `/diagnosis/{id}`: findings of `unialign.diagnose` and the affected items."""

import math
from typing import Annotated, Any

from fastapi import APIRouter, Path

from unialign.diagnostics import (
    Finding,
    SuspicionKind,
    SuspiciousItem,
    SuspiciousItems,
    items_compared,
    suspicious_items,
)
from unialign.index import Index
from unialign.serve._answers import json_response, media_links
from unialign.serve._errors import ApiError
from unialign.serve._jobs import Progress
from unialign.serve._map_points import calibration_name, corrected
from unialign.serve._service import Service

__all__ = ["routes"]

# Maximum number of suspected items of each kind in a response, and of their keys for exports.
_MOST_SHOWN, _MOST_KEYS = 500, 100_000
# Measured on one core: operations per second of the comparisons, and seconds of the rest.
_RATE, _FIXED_SECONDS = 3e10, 3.0
_RESAMPLES, _SAMPLE = 200, 1024
_SEED = 0
_TITLES: dict[SuspicionKind, str] = {
    "mispaired": "Mispaired items",
    "copy": "Copies",
    "hub": "Hubs",
    "outlier": "Outliers",
}
# Findings for which affected items are listed.
_EXPLAINED: dict[str, SuspicionKind] = {
    "random_pairs": "mispaired",
    "misaligned_block": "mispaired",
    "row_offset": "mispaired",
    "pairing": "mispaired",
    "not_paired": "mispaired",
    "duplicates": "copy",
    "near_duplicates": "copy",
    "hubness": "hub",
    "norm_outliers": "outlier",
}


def routes(service: Service) -> APIRouter:
    """Return the route of the diagnosis."""
    router = APIRouter()

    @router.get("/diagnosis/{id}", summary="Findings of a diagnosis and the affected items")
    async def diagnosis(id: Annotated[str, Path(min_length=1, max_length=200)], start: bool = True) -> Any:
        name, index = service.index(id)
        kept: dict[Any, Any] = service.state.setdefault("diagnoses", {})
        state = (name, index.generation, await service.read(calibration_name, index))
        if state in kept:
            return json_response(kept[state])
        if len(index) == 0:
            raise ApiError(409, "no_items", "the index has no items to diagnose")
        items = items_compared(len(index), len(index.modalities), index.dim)
        if not start:
            return json_response(
                {"state": "not_run", "items": items, "of": len(index), "seconds": _estimate(index, items)}
            )
        job = service.jobs.submit(
            "diagnosis", lambda progress: _diagnose(service, name, index, items, progress), key=("diagnosis", *state)
        )
        return json_response({"job": job.id, "state": job.state}, 202)

    return router


def _estimate(index: Index, items: int) -> int:
    operations = 2.0 * len(index.modalities) ** 2 * items**2 * index.dim
    return math.ceil(_FIXED_SECONDS + operations / _RATE)


def _diagnose(service: Service, name: str, index: Index, items: int, progress: Progress) -> dict[str, Any]:
    from unialign.diagnostics import diagnose

    steps = len(index.modalities) ** 2 + 2
    progress(0, steps)
    with service.guards[name].reading():
        generation, calibration = index.generation, calibration_name(index)
        drawn = index.embeddings(limit=items, seed=_SEED)
        z = corrected(index, drawn.z)
        method = index.calibration.method
    faults = suspicious_items(
        z, keys=drawn.keys, present=drawn.present, on_progress=lambda done, _: progress(1 + done, steps)
    )
    progress(steps - 1, steps)
    # The rows as they are stored: a diagnosis of corrected rows would hide a gap.
    given = {modality: rows for modality, rows in drawn.z.items() if drawn.present[modality].any()}
    report = diagnose(
        given,
        present={modality: drawn.present[modality] for modality in given},
        sample=min(_SAMPLE, max(16, len(drawn.keys))),
        resamples=_RESAMPLES,
        seed=_SEED,
    )
    result = {
        "answer": report.answer,
        "findings": [_finding(finding) for finding in report.findings],
        "lists": {kind: _listed(service, name, index, faults, kind) for kind in _TITLES},
        "untrusted": [list(pair) for pair in faults.untrusted],
        "items": len(drawn.keys),
        "of": len(index),
        "correction": method,
        "generation": generation,
    }
    # One state of each index is kept.
    state = (name, generation, calibration)
    for key, value in (("faults", faults), ("diagnoses", result)):
        kept = service.state.setdefault(key, {})
        for old in [one for one in kept if one[0] == name]:
            del kept[old]
        kept[state] = value
    return result


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "modalities": list(finding.modalities),
        "text": finding.text,
        "advice": finding.advice,
        "list": _EXPLAINED.get(finding.code),
    }


def _listed(service: Service, name: str, index: Index, faults: SuspiciousItems, kind: SuspicionKind) -> dict[str, Any]:
    found = faults.of(kind)
    keys = list(dict.fromkeys(fault.key for fault in found))
    return {
        "title": _TITLES[kind],
        "total": len(found),
        "total_items": len(keys),
        "keys": keys[:_MOST_KEYS],
        "items": [_described(service, name, index, fault) for fault in found[:_MOST_SHOWN]],
    }


def _described(service: Service, name: str, index: Index, fault: SuspiciousItem) -> dict[str, Any]:
    found = fault.to_dict()
    for field, key in (("item", fault.key), ("other", fault.partner)):
        if key is None or key not in index:
            found[field] = None
            continue
        item = index.get(key, with_rows=False)
        found[field] = {
            "key": key,
            "name": item.name,
            "label": item.label,
            "modalities": list(item.modalities),
            "media": media_links(service, name, index, key),
        }
    return found
