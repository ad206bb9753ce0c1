"""Validate `results.json` and convert it to `ComparisonResults`."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unialign.errors import DataError
from unialign.report._model import (
    ComparisonResults,
    DataInfo,
    MetricComparison,
    MetricEstimate,
    MetricInfo,
    ObjectiveInfo,
    Run,
    number,
)

SCHEMA = 1
VERDICTS = ("win", "tie", "lose")


def clean(value: Any) -> Any:
    """Replace lone surrogates and control characters in strings at any depth."""
    if isinstance(value, str):
        return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in value)
    if isinstance(value, Mapping):
        return {clean(k): clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    return value


def parse_results(raw: Mapping[str, Any]) -> ComparisonResults:
    raw = clean(raw)
    if not isinstance(raw, Mapping) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, Mapping) else type(raw).__name__
        raise DataError(
            f"results.json has schema {found!r}, but this version reads schema {SCHEMA}; create it again with this "
            "version, or read it with the version that wrote it"
        )
    runs = tuple(_run(run, i) for i, run in enumerate(_need(raw, "runs", "results.json", list)))
    if not runs:
        raise DataError("results.json has no runs, so there is nothing to report; finish at least one run first")
    objectives = _objectives(raw, runs)
    metrics = _metrics(raw, runs)
    for run in runs:
        if run.objective not in objectives:
            raise DataError(f"results.json has a run of {run.objective!r}, which 'objectives' does not list")
    return ComparisonResults(
        environment=_mapping(raw.get("environment", {}), "environment"),
        protocol=_mapping(raw.get("protocol", {}), "protocol"),
        data=_data(_need(raw, "data", "results.json", dict)),
        objectives=objectives,
        metrics=metrics,
        runs=runs,
        summary=_summary(raw, objectives, metrics, runs),
        comparisons=tuple(_comparisons(raw, objectives, metrics)),
        reproduce=str(raw.get("reproduce", "")),
    )


def _need(mapping: Mapping[str, Any], key: str, where: str, kind: type = object) -> Any:
    if key not in mapping:
        raise DataError(f"{where} has no {key!r}; it has {', '.join(map(repr, mapping)) or 'nothing'}")
    if not isinstance(mapping[key], kind):
        expected = "a list" if kind is list else "an object"
        raise DataError(f"{key!r} in {where} must be {expected}, found {type(mapping[key]).__name__}")
    return mapping[key]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(f"'{where}' in results.json must be an object, found {type(value).__name__}")
    return value


def _entries(value: Any, where: str) -> dict[str, Mapping[str, Any]]:
    return {key: _mapping(entry, f"{where}.{key}") for key, entry in _mapping(value, where).items()}


def _whole(value: Any) -> int | None:
    found = number(value)
    return int(found) if math.isfinite(found) else None


def _data(raw: Mapping[str, Any]) -> DataInfo:
    modalities = tuple(str(m) for m in _need(raw, "modalities", "'data'", list))
    if len(modalities) < 2:
        raise DataError(f"'data' in results.json needs at least 2 modalities, found {list(modalities)}")
    return DataInfo(
        name=str(_need(raw, "name", "'data'")),
        fingerprint=str(raw.get("fingerprint", "")),
        items=_whole(raw.get("items")),
        modalities=modalities,
        split=str(raw.get("split", "")),
        test_items=_whole(raw.get("test_items")),
        synthetic=frozenset(str(m) for m in raw.get("synthetic") or ()),
        description=str(raw.get("description", "")),
        sources=tuple(str(s) for s in raw.get("sources") or ()),
        encoders=_encoders(_mapping(raw.get("columns") or {}, "data.columns")),
    )


def _encoders(columns: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, entry in columns.items():
        texts = [entry.get(key) for key in ("input", "encoder")] if isinstance(entry, Mapping) else []
        found[name] = "; ".join(text for text in texts if isinstance(text, str))
    return {name: text for name, text in found.items() if text}


def _run(raw: Any, position: int) -> Run:
    where = f"run {position}"
    raw = _mapping(raw, where)
    objective, seed = str(_need(raw, "objective", where)), _whole(_need(raw, "seed", where))
    if seed is None:
        raise DataError(f"{where} has seed {raw['seed']!r}, expected an integer")
    metrics = _need(raw, "metrics", where, dict)
    directions = _entries(raw.get("directions", {}), f"{where} directions")
    seconds = number(raw.get("seconds"))
    return Run(
        objective=objective,
        seed=seed,
        metrics={key: number(value) for key, value in metrics.items()},
        directions={key: {k: number(v) for k, v in values.items()} for key, values in directions.items()},
        seconds=None if math.isnan(seconds) else seconds,
        warnings=tuple(_mapping(w, f"{where} warnings") for w in raw.get("warnings") or ()),
        folder=str(raw.get("folder", f"runs/{objective}-seed{seed}")),
    )


def _objectives(raw: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, ObjectiveInfo]:
    return {
        key: ObjectiveInfo(
            key=key,
            label=str(entry.get("label") or key),
            note=str(entry.get("note") or ""),
            settings=_mapping(entry.get("settings") or {}, f"objectives.{key}.settings"),
            parameters=_whole(entry.get("parameters")),
        )
        for key, entry in _entries(raw.get("objectives", {run.objective: {} for run in runs}), "objectives").items()
    }


def _metrics(raw: Mapping[str, Any], runs: Sequence[Run]) -> dict[str, MetricInfo]:
    return {
        key: MetricInfo(
            key=key,
            label=str(entry.get("label") or key),
            description=str(entry.get("description") or ""),
            higher_is_better=entry["higher_is_better"] if isinstance(entry.get("higher_is_better"), bool) else None,
            percent=entry.get("unit") == "percent",
            primary=entry.get("primary") is True,
        )
        for key, entry in _entries(raw.get("metrics", {k: {} for run in runs for k in run.metrics}), "metrics").items()
    }


def _summary(
    raw: Mapping[str, Any], objectives: Iterable[str], metrics: Iterable[str], runs: Sequence[Run]
) -> dict[str, dict[str, MetricEstimate]]:
    given = _entries(raw.get("summary", {}), "summary")
    summary: dict[str, dict[str, MetricEstimate]] = {objective: {} for objective in objectives}
    for objective, row in summary.items():
        for metric in metrics:
            entry = given.get(objective, {}).get(metric)
            values = [run.metrics[metric] for run in runs if run.objective == objective and metric in run.metrics]
            if isinstance(entry, Mapping):
                row[metric] = read_estimate(entry)
            elif values:  # without a summary, use the mean over runs without an interval
                row[metric] = MetricEstimate(math.fsum(values) / len(values))
    return summary


def read_estimate(entry: Mapping[str, Any]) -> MetricEstimate:
    """Read an estimate; missing numbers become NaN."""
    return MetricEstimate(*(number(entry.get(key)) for key in ("mean", "low", "high")))


def _comparisons(
    raw: Mapping[str, Any], objectives: Mapping[str, ObjectiveInfo], metrics: Mapping[str, MetricInfo]
) -> list[MetricComparison]:
    found = []
    for i, value in enumerate(raw.get("comparisons") or ()):
        entry = _mapping(value, f"comparisons.{i}")
        if "verdict" not in entry:
            continue  # not in the declared family of tests
        metric, objective, baseline, verdict = (
            str(_need(entry, key, f"comparison {i}")) for key in ("metric", "objective", "baseline", "verdict")
        )
        for name, known in ((metric, metrics), (objective, objectives), (baseline, objectives)):
            if name not in known:
                raise DataError(
                    f"comparison {i} in results.json refers to {name!r}; expected one of {', '.join(known)}"
                )
        if verdict not in VERDICTS:
            raise DataError(f"comparison {i} in results.json has verdict {verdict!r}, expected win, tie or lose")
        numbers = {key: number(entry.get(key)) for key in ("difference", "low", "high", "p", "p_holm")}
        found.append(
            MetricComparison(metric=metric, objective=objective, baseline=baseline, verdict=verdict, **numbers)
        )
    return found
