"""Tables and panels that several studies use. Failed arms have no summary and are omitted."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from research._estimates import Interval, seed_interval
from research._read import (
    PRIMARY,
    Results,
    completed,
    family_tests,
    label,
    mean_of,
    metric_label,
    primary_metrics,
    scale_of,
)
from research.pages import Dot, Mark, Panel, Point, Section, Series, Table, dots, lines, tiles
from unialign.report import DASH, NumberFormat, number_format

__all__ = [
    "UNTUNED",
    "best_arm",
    "dot_panel",
    "failed_sections",
    "format_interval",
    "format_seeds",
    "metric_lines",
    "metric_table",
    "metric_tiles",
    "minus",
    "range_table",
    "seed_series",
    "tally_table",
    "trials_table",
    "verdict_table",
]

UNTUNED = "No settings are tuned, since the study varies them."
_SIGNS = {"win": "▲", "tie": "≈", "lose": "▼"}
# Invert the verdicts, which refer to the family's first arm, since the rows of the table are baselines.
_BASELINE_SIGNS = {"win": "▼", "tie": "≈", "lose": "▲"}


def minus(text: str) -> str:
    return text.replace("-", "−")


def format_interval(found: Interval | Mapping[str, Any], *, scale: float = 1.0, decimals: int = 3) -> str:
    mean, low, high = (found if isinstance(found, Interval) else Interval.read(found)).scaled(scale)
    if math.isnan(mean):
        return DASH
    text = f"{mean:.{decimals}f}"
    if not math.isnan(low):
        text += f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return minus(text)


def format_seeds(values: Sequence[float | None], *, scale: float = 1.0, decimals: int = 3) -> str:
    return format_interval(seed_interval(values), scale=scale, decimals=decimals)


def seed_series(mark: Mark, values: Mapping[int, Sequence[float]], *, band: bool = True) -> Series:
    """`values` maps x to one value per seed. Dashed lines have no band."""
    found = {x: seed_interval(own) for x, own in sorted(values.items())}
    band = band and mark.dash == "solid"
    return Series(mark, [Point(x, *at) if band else Point(x, at.mean) for x, at in found.items()])


def failed_sections(results: Results) -> list[Section]:
    lines = [f"{label(results, arm)}: {message}." for arm, message in results["study"]["failed"].items()]
    return [Section("failed", "Failed arms", lines)] if lines else []


# --- tables ---------------------------------------------------------------------------------------------------------


def metric_table(
    results: Results,
    arms: Iterable[str],
    metrics: Sequence[str] = PRIMARY,
    *,
    family: str = "",
    first_column: str = "arm",
) -> Table:
    """With a family, signs compare each arm with its first arm."""
    arms = completed(results, arms)
    shown = [m for m in metrics if m in results["metrics"]]
    styles = {m: _style(results, m, arms) for m in shown}
    signs = {(t["baseline"], t["metric"]): _BASELINE_SIGNS[t["verdict"]] for t in family_tests(results, family)}
    rows = [
        [label(results, arm), *(_cell(results, arm, m, styles[m], signs.get((arm, m), "")) for m in shown)]
        for arm in arms
    ]
    level = f"{100 * results['protocol']['bootstrap']['level']:.0f} %"
    note = f"Mean over seeds [{level} bootstrap interval over groups of items and seeds]."
    first = next((f["first"] for f in results["study"]["families"] if f["name"] == family), None)
    if first is not None and first in arms:
        note += (
            f" ▲ significantly better than “{label(results, first)}”, ▼ significantly worse, ≈ no significant "
            "difference (paired test, Holm-corrected)."
        )
    return Table([first_column, *(metric_label(results, m) for m in shown)], rows, note)


def _style(results: Results, metric: str, arms: Iterable[str]) -> NumberFormat:
    means = (mean_of(results, arm, metric) for arm in arms)
    return number_format((v for v in means if not math.isnan(v)), unit=results["metrics"][metric]["unit"])


def _cell(results: Results, arm: str, metric: str, fmt: NumberFormat, sign: str) -> str:
    found = results["summary"][arm].get(metric)
    if found is None or found["mean"] is None:
        return DASH
    text = fmt.number(found["mean"])
    if found["low"] is not None and found["high"] is not None:
        text += f" [{fmt.number(found['low'])}, {fmt.number(found['high'])}]"
    return f"{text} {sign}".strip()


def verdict_table(results: Results, family: str) -> Table:
    arms = next(f for f in results["study"]["families"] if f["name"] == family)
    tests = {(t["baseline"], t["metric"]): t for t in family_tests(results, family)}
    shown = [m for m in primary_metrics(results) if any(metric == m for _, metric in tests)]
    rows = [
        [label(results, arm), *(_verdict(results, tests[arm, m]) if (arm, m) in tests else DASH for m in shown)]
        for arm in arms["baselines"]
        if any(key == arm for key, _ in tests)
    ]
    first = label(results, arms["first"])
    note = (
        f"Differences are “{first}” minus the arm of the row [95 % interval], paired on items and seeds. Verdicts "
        f"are those of “{first}”, Holm-corrected over {len(tests)} tests."
    )
    return Table([f"{first} against", *(metric_label(results, m) for m in shown)], rows, note)


def _verdict(results: Results, test: Mapping[str, Any]) -> str:
    percent = results["metrics"][test["metric"]]["unit"] == "percent"
    fmt = NumberFormat(percent=percent, decimals=1 if percent else 3)
    difference, low, high = (_signed(fmt, test[key]) for key in ("difference", "low", "high"))
    return f"{test['verdict']} {difference} [{low}, {high}]"


def _signed(fmt: NumberFormat, value: float) -> str:
    text = fmt.number(value)
    return f"+{text}" if value > 0 and text.strip("0.,") else text


def tally_table(results: Results, family: str) -> Table:
    tests = family_tests(results, family)
    first = next(f["first"] for f in results["study"]["families"] if f["name"] == family)
    rows = []
    for metric in primary_metrics(results):
        own = [test for test in tests if test["metric"] == metric]
        named = [[label(results, test["baseline"]) for test in own if test["verdict"] == v] for v in _SIGNS]
        if own:
            cells = (f"{len(names)}: {', '.join(names)}" if names else "0" for names in named)
            rows.append([metric_label(results, metric), *cells])
    return Table([label(results, first), "wins against", "ties with", "loses to"], rows)


def trials_table(results: Results, arms: Iterable[str] | None = None) -> Table:
    tuning = results["study"]["tuning"]
    rows = []
    for arm in results["study"]["factors"] if arms is None else arms:
        trials = tuning.get(arm, {}).get("trials")
        if trials is None:
            continue
        scores = [t["recall@1"] for t in trials if t["recall@1"] is not None]
        chosen = trials[tuning[arm]["chosen"]]["settings"]
        settings = ", ".join(f"{k.removeprefix('objective_options.')} {v:g}" for k, v in chosen.items())
        failed = sum("failed" in t for t in trials)
        spread = f"{100 * min(scores):.1f} to {100 * max(scores):.1f}" + (f", {failed} failed" if failed else "")
        rows.append([label(results, arm), settings, spread])
    budget = max((len(t.get("trials", ())) for t in tuning.values()), default=0)
    note = f"The settings with the highest R@1 on the validation split, out of {budget} trials per arm."
    return Table(["arm", "chosen settings", "validation R@1 of the trials, %"], rows, note)


def best_arm(results: Results, arms: Iterable[str], metric: str) -> str | None:
    sign = 1 if results["metrics"].get(metric, {}).get("higher_is_better") else -1
    known = [arm for arm in arms if not math.isnan(mean_of(results, arm, metric))]
    return max(known, key=lambda arm: sign * mean_of(results, arm, metric), default=None)


def range_table(
    results: Results, swept: Mapping[str, Mapping[str, str]], metrics: Sequence[str], *, first_column: str, note: str
) -> Table:
    """`swept` maps name -> setting -> arm."""
    shown = [metric for metric in metrics if metric in results["metrics"]]
    rows = []
    for name, arms in swept.items():
        cells = []
        for metric in shown:
            best = best_arm(results, arms.values(), metric)
            if best is None:
                cells.append(DASH)
                continue
            fmt = _style(results, metric, arms.values())
            means = [m for arm in arms.values() if not math.isnan(m := mean_of(results, arm, metric))]
            at = next(setting for setting, arm in arms.items() if arm == best)
            best_mean, low, high = map(fmt.number, (mean_of(results, best, metric), min(means), max(means)))
            cells.append(f"{best_mean} at {at}; {low} to {high}")
        rows.append([name, *cells])
    return Table([first_column, *(metric_label(results, metric) for metric in shown)], rows, note)


# --- panels ---------------------------------------------------------------------------------------------------------


def dot_panel(
    results: Results,
    arms: Iterable[str],
    metric: str,
    *,
    number: Callable[[str], int] = lambda arm: 0,
    reference: str = "",
) -> Panel:
    arms = completed(results, arms)
    summary = results["summary"]
    rows = [
        Dot(label(results, arm), *Interval.read(summary[arm][metric]), number(arm))
        for arm in arms
        if metric in summary[arm]
    ]
    line = mean_of(results, reference, metric) if reference in arms else None
    return dots(metric_label(results, metric), rows, reference=line, write=_style(results, metric, arms).number)


def metric_lines(
    results: Results,
    arms: Mapping[Mark, Mapping[float, str]],
    metrics: Sequence[str],
    *,
    x_label: str,
    x_ticks: Sequence[float] | Mapping[float, str] | None = None,
) -> list[Panel]:
    """`arms` maps marks to x -> arm."""
    return [
        lines(
            metric_label(results, metric),
            [Series(mark, _points(results, own, metric)) for mark, own in arms.items()],
            x_label=x_label,
            x_ticks=x_ticks,
        )
        for metric in metrics
        if metric in results["metrics"]
    ]


def _points(results: Results, arms: Mapping[float, str], metric: str) -> list[Point]:
    found = {x: results["summary"].get(arm, {}).get(metric) for x, arm in sorted(arms.items())}
    scale = scale_of(results, metric)
    return [Point(x, *Interval.read(entry).scaled(scale)) for x, entry in found.items() if entry is not None]


def metric_tiles(
    results: Results,
    arms: Sequence[Sequence[str]],
    metrics: Sequence[str],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_label: str,
    column_label: str,
) -> list[Panel]:
    return [
        tiles(
            metric_label(results, metric),
            rows,
            columns,
            [[mean_of(results, arm, metric) for arm in row] for row in arms],
            row_label=row_label,
            column_label=column_label,
            write=_style(results, metric, [arm for row in arms for arm in row]).number,
        )
        for metric in metrics
        if metric in results["metrics"]
    ]
