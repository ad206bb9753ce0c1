"""Check the requirements on our losses against the results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RequirementCheck", "judge"]

MEGABYTE = 10**6


@dataclass(frozen=True)
class RequirementCheck:
    """The state is NOT RUN if a case is missing or was not measured."""

    requirement: str
    state: str
    found: str


def judge(results: Mapping[str, Any]) -> list[RequirementCheck]:
    verdicts = [v for form, ratio in (("outer_log", 3.3), ("mean_log", 2.3)) for v in _uniformity(results, form, ratio)]
    return [*verdicts, *_infonce(results)]


def _uniformity(results: Mapping[str, Any], form: str, ratio: float) -> list[RequirementCheck]:
    group = f"uniformity/{form}"
    label = {"outer_log": "Uniformity, log of the mean", "mean_log": "Uniformity, mean of row logs"}[form]
    ours = {size: _case(results, group, "unialign", 1, size) for size in (1024, 16384, 65536)}
    plain = {size: _case(results, group, "torch", 1, size) for size in (1024, 16384)}
    return [
        _ratio(f"{label}, B = 16,384: at least {ratio:g}x less processor time than torch", ours, plain, 16384, ratio),
        _ratio(f"{label}, B = 1,024: not slower than torch", ours, plain, 1024, 1.0),
        _at_most(f"{label}, B = 16,384: at most 150 MB above the baseline", _peak(ours[16384]), 150, " MB"),
        _at_most(f"{label}, B = 65,536: below 1,000 MB in all", _whole(ours[65536]), 1000, " MB"),
        *_errors(f"{label}, B = 16,384", ours[16384]),
    ]


def _infonce(results: Mapping[str, Any]) -> list[RequirementCheck]:
    ours = {16384: _case(results, "infonce", "unialign", 2, 16384)}
    plain = {16384: _case(results, "infonce", "torch", 2, 16384)}
    return [
        _ratio("InfoNCE, B = 16,384: at most torch's processor time", ours, plain, 16384, 1.0),
        _at_most("InfoNCE, B = 16,384: at most 300 MB above the baseline", _peak(ours[16384]), 300, " MB"),
        *_errors("InfoNCE, B = 16,384", ours[16384]),
    ]


def _case(results: Mapping[str, Any], group: str, name: str, modalities: int, size: int) -> Mapping[str, Any] | None:
    row = results["cases"].get(f"{group}/{name}/{modalities}/{size}")
    return row if row is not None and row["status"] == "measured" else None


def _peak(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else row["memory"]["peak"] / MEGABYTE


def _whole(row: Mapping[str, Any] | None) -> float | None:
    return None if row is None else row["memory"]["whole_process"] / MEGABYTE


def _errors(label: str, row: Mapping[str, Any] | None) -> list[RequirementCheck]:
    error = {} if row is None else row.get("error", {})
    value, gradient = error.get("value"), error.get("gradient")
    return [
        _at_most(f"{label}: value within 1e-6 of float64", value, 1e-6),
        _at_most(f"{label}: gradient within 1e-5 of float64", gradient, 1e-5),
    ]


def _ratio(
    requirement: str,
    ours: Mapping[int, Mapping[str, Any] | None],
    plain: Mapping[int, Mapping[str, Any] | None],
    size: int,
    least: float,
) -> RequirementCheck:
    mine, theirs = ours[size], plain[size]
    if mine is None or theirs is None:
        return RequirementCheck(requirement, "NOT RUN", "no measurement")
    a, b = mine["cpu_seconds"]["best"], theirs["cpu_seconds"]["best"]
    found = f"{b / a:.2f}x ({a:.3g} s against {b:.3g} s)"
    return RequirementCheck(requirement, "MET" if b / a >= least else "NOT MET", found)


def _at_most(requirement: str, found: float | None, most: float, unit: str = "") -> RequirementCheck:
    if found is None:
        return RequirementCheck(requirement, "NOT RUN", "no measurement")
    return RequirementCheck(requirement, "MET" if found <= most else "NOT MET", f"{found:.3g}{unit}")
