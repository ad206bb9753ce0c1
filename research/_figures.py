"""The usual tables and figures of studies, from the content of results.json.

Everything takes `results` and keys of arms; an arm without a summary (it failed) is left out where it would stand.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from research.pages import Dot, Panel, Table, dots
from unialign.report import DASH, Style, style

__all__ = [
    "HEADLINE",
    "chosen_table",
    "dot_panel",
    "headline",
    "known",
    "label",
    "looks",
    "metric_label",
    "metric_table",
    "number_style",
    "run_metric",
    "runs_of",
    "sound",
    "tally_table",
    "verdict_table",
]

Results = Mapping[str, Any]
HEADLINE = ("recall@1", "joint_recall@1", "label_map", "v_measure", "modality_gap_debiased")
_SIGNS = {"win": "▲", "tie": "≈", "lose": "▼"}


def headline(results: Results) -> list[str]:
    """The headline metrics that the results have."""
    return [name for name, about in results["metrics"].items() if about["headline"]]


def known(value: float | None) -> float:
    """A number of a file as a float: null is NaN."""
    return math.nan if value is None else value


def label(results: Results, arm: str) -> str:
    """How an arm is called."""
    return str(results["objectives"][arm]["label"])


def sound(results: Results, arms: Iterable[str]) -> list[str]:
    """Those of the arms that have a summary."""
    return [arm for arm in arms if arm in results["summary"]]


def runs_of(results: Results, arm: str) -> list[Mapping[str, Any]]:
    """The runs of an arm, one a seed."""
    return [run for run in results["runs"] if run["objective"] == arm]


def run_metric(results: Results, arm: str, metric: str) -> list[float | None]:
    """A metric of every seed."""
    return [run["metrics"].get(metric) for run in runs_of(results, arm)]


def looks(results: Results, arm: str, name: str) -> dict[int, list[float | None]]:
    """What was measured during training: step -> one number a seed."""
    found: dict[int, list[float | None]] = {}
    for run in runs_of(results, arm):
        for look in run.get("looks", ()):
            found.setdefault(int(look["step"]), []).append(look.get(name))
    return found


def metric_label(results: Results, metric: str) -> str:
    """A metric's name with its unit."""
    about = results["metrics"][metric]
    return str(about["label"]) + (", %" if about["unit"] == "percent" else "")


def number_style(results: Results, metric: str, arms: Iterable[str]) -> Style:
    """Decimals that suit a metric's values."""
    values = [results["summary"][arm][metric]["mean"] for arm in arms if metric in results["summary"][arm]]
    return style((v for v in values if v is not None), unit=results["metrics"][metric]["unit"])


def metric_table(
    results: Results,
    arms: Sequence[str],
    metrics: Sequence[str] = HEADLINE,
    *,
    family: str = "",
    first_column: str = "arm",
) -> Table:
    """Mean and interval of some metrics by arm; with a family, a sign says how each compares with its first arm."""
    arms = sound(results, arms)
    shown = [m for m in metrics if m in results["metrics"]]
    looks_of = {m: number_style(results, m, arms) for m in shown}
    signs = {
        (c["rival"], c["metric"]): _SIGNS[_turned(c["verdict"])]
        for c in results["comparisons"]
        if c.get("family") == family and "verdict" in c
    }
    rows = [
        [label(results, arm), *(_cell(results, arm, m, looks_of[m], signs.get((arm, m), "")) for m in shown)]
        for arm in arms
    ]
    level = f"{100 * results['protocol']['bootstrap']['level']:.0f} %"
    note = f"Mean over seeds [{level} interval over groups of items and seeds]."
    first = next((f["first"] for f in results["study"]["families"] if f["name"] == family), None)
    if first is not None and first in arms:
        note += (
            f" ▲ better, ▼ worse than {label(results, first)} by the paired test after Holm's correction, "
            "≈ no reliable difference."
        )
    return Table([first_column, *(metric_label(results, m) for m in shown)], rows, note)


def _turned(verdict: str) -> str:
    """A verdict is of the first arm; a table's rows are the rivals."""
    return {"win": "lose", "lose": "win"}.get(verdict, verdict)


def _cell(results: Results, arm: str, metric: str, look: Style, sign: str) -> str:
    found = results["summary"][arm].get(metric)
    if found is None or found["mean"] is None:
        return DASH
    text = look.bare(found["mean"])
    if found["low"] is not None and found["high"] is not None:
        text += f" [{look.bare(found['low'])}, {look.bare(found['high'])}]"
    return f"{text} {sign}".strip()


def verdict_table(results: Results, family: str) -> Table:
    """The first arm of a family against each rival: difference, interval and verdict on each headline metric."""
    arms = next(f for f in results["study"]["families"] if f["name"] == family)
    found = {(c["rival"], c["metric"]): c for c in results["comparisons"] if c["family"] == family and "verdict" in c}
    shown = [m for m in headline(results) if any(metric == m for _, metric in found)]
    rows = []
    for rival in arms["rivals"]:
        if not any(key == rival for key, _ in found):
            continue
        cells = [_contest(results, found[rival, m], m) if (rival, m) in found else DASH for m in shown]
        rows.append([label(results, rival), *cells])
    first = label(results, arms["first"])
    note = (
        f"{first} minus the row's arm [interval], paired on items and seeds; the verdict is {first}'s after Holm's "
        f"correction over all {len(found)} tests."
    )
    return Table([f"{first} against", *(metric_label(results, m) for m in shown)], rows, note)


def _contest(results: Results, contest: Mapping[str, Any], metric: str) -> str:
    percent = results["metrics"][metric]["unit"] == "percent"
    look = Style(percent=percent, decimals=1 if percent else 3)
    ends = ", ".join(_signed(look, contest[key]) for key in ("low", "high"))
    return f"{contest['verdict']} {_signed(look, contest['difference'])} [{ends}]"


def _signed(look: Style, value: float) -> str:
    text = look.bare(value)
    return f"+{text}" if value > 0 and text.strip("0.,") else text


def tally_table(results: Results, family: str) -> Table:
    """How often the first arm of a family wins, ties and loses on each headline metric."""
    found = [c for c in results["comparisons"] if c["family"] == family and "verdict" in c]
    arms = next(f for f in results["study"]["families"] if f["name"] == family)
    rows = []
    for metric in headline(results):
        own = [c for c in found if c["metric"] == metric]
        named = {v: [label(results, c["rival"]) for c in own if c["verdict"] == v] for v in _SIGNS}
        if own:
            rows.append([metric_label(results, metric), *(_listed(named[v]) for v in _SIGNS)])
    return Table([label(results, arms["first"]), "wins against", "ties with", "loses to"], rows)


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else "0"


def chosen_table(results: Results, arms: Sequence[str]) -> Table:
    """What tuning chose for each arm, and how far the trials lay apart."""
    rows = []
    for arm in arms:
        tuning = results["study"]["tuning"].get(arm)
        if tuning is None or "trials" not in tuning:
            continue
        scores = [t["recall@1"] for t in tuning["trials"] if t["recall@1"] is not None]
        chosen = tuning["trials"][tuning["chosen"]]
        settings = ", ".join(f"{k.removeprefix('objective_options.')} {v:g}" for k, v in chosen["settings"].items())
        failed = sum("failed" in t for t in tuning["trials"])
        said = f"{100 * min(scores):.1f} to {100 * max(scores):.1f}" + (f", {failed} failed" if failed else "")
        rows.append([label(results, arm), settings, said])
    budget = max((len(t.get("trials", ())) for t in results["study"]["tuning"].values()), default=0)
    return Table(
        ["arm", "chosen", "R@1 on validation, %"],
        rows,
        f"The best of {budget} trials an arm by R@1 on the validation split.",
    )


def dot_panel(
    results: Results,
    arms: Sequence[str],
    metric: str,
    *,
    number: Callable[[str], int] = lambda arm: 0,
    reference: str = "",
) -> Panel:
    """A metric with its interval for each arm; `reference` names the arm whose value is drawn through all rows."""
    arms = sound(results, arms)
    look = number_style(results, metric, arms)
    rows = []
    for arm in arms:
        found = results["summary"][arm].get(metric)
        if found is not None:
            mean, low, high = (known(found[key]) for key in ("mean", "low", "high"))
            rows.append(Dot(label(results, arm), mean, low, high, number(arm)))
    line = known(results["summary"][reference][metric]["mean"]) if reference in arms else None
    return dots(metric_label(results, metric), rows, reference=line, write=look.bare)
