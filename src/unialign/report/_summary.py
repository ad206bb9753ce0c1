"""The verdict in words, and the table as text: pure functions of the results. Nothing here computes a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unialign.report._format import NumberFormat, count, listed, p_value, number_format
from unialign.report._model import MetricComparison, Estimate, MetricInfo, Results
from unialign.report._schema import parse_results

__all__ = ["best", "metric_style", "text_table", "verdict", "verdict_lines"]

VERBS = {"win": "wins", "tie": "ties", "lose": "loses"}


@dataclass(frozen=True)
class Sentence:
    comparison: MetricComparison
    metric: MetricInfo
    text: str


@dataclass(frozen=True)
class BaselineVerdict:
    baseline: str
    label: str
    tally: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Verdict:
    lead: str
    baselines: tuple[BaselineVerdict, ...]


def verdict_lines(results: Mapping[str, Any]) -> list[str]:
    """The content of `results.json` as sentences: the sum, then each rival with one sentence a headline metric."""
    found = verdict(parse_results(results))
    lines = [found.lead]
    for rival in found.baselines:
        lines.append(f"Against {rival.label}: {rival.tally}.")
        lines.extend(f"  {sentence.text}" for sentence in rival.sentences)
    return lines


def text_table(results: Mapping[str, Any], *, metrics: Sequence[str] | None = None) -> str:
    """A plain-text table of means and intervals, for a terminal; `metrics` defaults to the headline ones."""
    parsed = parse_results(results)
    shown = primary_metrics(parsed) if metrics is None else [parsed.metrics[key] for key in metrics]
    noted = [o for o in parsed.objectives.values() if o.note]
    marks = {o.key: f" [{noted.index(o) + 1}]" if o.note else "" for o in parsed.objectives.values()}
    rows = [["", *(o.label + marks[o.key] for o in parsed.objectives.values())]]
    starred = False
    for metric in shown:
        winner = best(parsed, metric.key)
        starred = starred or winner is not None
        cells = [_cell(parsed, metric, key) + (" *" if key == winner else "") for key in parsed.objectives]
        rows.append([metric.label + (", %" if metric.percent else "") + _hint(metric), *cells])
    widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    seeds, spread = len(parsed.seeds), f"[{parsed.level} interval"
    once = "Value" if parsed.single else "One seed"
    lines.append(f"Mean over {count(seeds, 'seed')} {spread}]." if seeds > 1 else f"{once} {spread} over items].")
    if starred:
        lines[-1] += " * better than every other by the paired test."
    lines.extend(f"[{i + 1}] {o.label}: {o.note}" for i, o in enumerate(noted))
    return "\n".join(lines)


def verdict(results: Results) -> Verdict:
    """The first objective against each other one, in sentences."""
    first = next(iter(results.objectives))
    shown = [metric.key for metric in primary_metrics(results)]
    contests = [c for c in results.comparisons if c.objective == first and c.metric in shown]
    if not contests:
        return Verdict(_alone(results, first), ())
    rivals = []
    for rival in dict.fromkeys(c.baseline for c in contests):
        own = sorted((c for c in contests if c.baseline == rival), key=lambda c: shown.index(c.metric))
        sentences = tuple(Sentence(c, results.metrics[c.metric], _sentence(results, c)) for c in own)
        rivals.append(BaselineVerdict(rival, results.objectives[rival].label, tally(own), sentences))
    return Verdict(_lead(results, first, contests), tuple(rivals))


def primary_metrics(results: Results) -> list[MetricInfo]:
    """The key metrics; all of them where none is marked."""
    return [m for m in results.metrics.values() if m.primary] or list(results.metrics.values())


def tally(contests: Sequence[MetricComparison]) -> str:
    sums = {verdict: sum(c.verdict == verdict for c in contests) for verdict in VERBS}
    return f"{count(sums['win'], 'win')}, {count(sums['tie'], 'tie')}, {count(sums['lose'], 'loss', 'losses')}"


def best(results: Results, metric: str) -> str | None:
    """The objective that the paired tests put ahead of every other one, directly or through a third; often none."""
    ahead: dict[str, set[str]] = {key: set() for key in results.objectives}
    for contest in results.comparisons:
        if contest.metric == metric and contest.verdict == "win":
            ahead[contest.objective].add(contest.baseline)
        elif contest.metric == metric and contest.verdict == "lose":
            ahead[contest.baseline].add(contest.objective)
    for _ in ahead:
        for key in ahead:
            ahead[key] |= {beaten for through in tuple(ahead[key]) for beaten in ahead[through]}
    winners = [key for key in ahead if len(ahead) > 1 and ahead[key] == set(ahead) - {key}]
    return winners[0] if winners else None


def metric_style(results: Results, metric: MetricInfo) -> NumberFormat:
    """How a metric is written: its unit, and decimals that suit its values."""
    values = [results.estimate(objective, metric.key).mean for objective in results.objectives]
    return number_format(values, unit="percent" if metric.percent else "number")


def _lead(results: Results, first: str, contests: Sequence[MetricComparison]) -> str:
    label = results.objectives[first].label
    sums = {verdict: sum(c.verdict == verdict for c in contests) for verdict in VERBS}
    rivals = listed((results.objectives[key].label for key in dict.fromkeys(c.baseline for c in contests)), last="or")
    total = len(contests)
    if sums["win"] == 0:
        rest = f"Of {count(total, 'comparison')} it ties {sums['tie'] or 'none'} and loses {sums['lose'] or 'none'}."
        return f"{label} wins nowhere: on no headline metric does the paired test put it ahead of {rivals}. {rest}"
    if sums["win"] == total:
        return f"{label} wins everywhere: on every headline metric the paired test puts it ahead of {rivals}."
    won, lost = (
        listed(dict.fromkeys(results.metrics[c.metric].label for c in contests if c.verdict == verdict))
        for verdict in ("win", "lose")
    )
    loses = f"loses {sums['lose']} ({lost})" if lost else "loses none"
    return (
        f"{label} wins {sums['win']} of {count(total, 'comparison')} ({won}), ties {sums['tie'] or 'none'} and {loses}."
    )


def _alone(results: Results, first: str) -> str:
    """The numbers: of one objective, which has no verdict to wait for, or of several without paired tests."""
    texts = []
    for metric in primary_metrics(results):
        look, estimate = metric_style(results, metric), results.estimate(first, metric.key)
        if math.isfinite(estimate.mean):
            texts.append(f"{metric.label} {look.with_unit(estimate.mean)}" + _between(results, look, estimate))
    label = results.objectives[first].label
    if not results.single:
        found = f" {label} reaches {listed(texts)}." if texts else ""
        return f"There are no paired tests, so there is no verdict.{found}"
    data = results.data
    items = "" if data.test_items is None else f"{count(data.test_items, 'item')} of "
    where = items + (f"the {data.split} split of " if data.split else "") + data.name
    return f"{label} on {where}: {listed(texts)}." if texts else f"{label} on {where}: nothing was measured."


def _between(results: Results, look: NumberFormat, estimate: Estimate) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f" ({results.level} interval {look.number(estimate.low)} to {look.number(estimate.high)})"


def _sentence(results: Results, contest: MetricComparison) -> str:
    metric = results.metrics[contest.metric]
    look = metric_style(results, metric)
    own, other = (results.estimate(key, metric.key).mean for key in (contest.objective, contest.baseline))
    label = results.objectives[contest.objective].label
    lower = " (lower is better)" if metric.higher_is_better is False else ""
    size = look.magnitude(contest.difference) + (" points" if metric.percent else "")
    text = (
        f"On {metric.label}{lower} {label} {VERBS[contest.verdict]}: {look.with_unit(own)} against {look.with_unit(other)}, "
        f"{size} {_side(contest.difference)} ({results.level} interval {_interval(look, contest)}"
    )
    text += f"; {p_value(contest.p_holm)})" if p_value(contest.p_holm) else ")"
    if contest.verdict != "tie":
        return text + "."
    if contest.low > 0 or contest.high < 0:
        return text + ", not significant once corrected for the number of tests."
    return text + ", no reliable difference."


def _interval(look: NumberFormat, contest: MetricComparison) -> str:
    low, high = contest.low, contest.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if low >= 0 or high <= 0:
        near, far = sorted((low, high), key=abs)
        return f"{look.magnitude(near)} to {look.magnitude(far)} {_side(low + high)}"
    return f"from {look.magnitude(low)} lower to {look.magnitude(high)} higher"


def _side(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def _hint(metric: MetricInfo) -> str:
    return " (lower is better)" if metric.higher_is_better is False else ""


def _cell(results: Results, metric: MetricInfo, objective: str) -> str:
    look, estimate = metric_style(results, metric), results.estimate(objective, metric.key)
    text = look.number(estimate.mean)
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        text += f" [{look.number(estimate.low)}, {look.number(estimate.high)}]"
    elif math.isfinite(estimate.mean):
        text += " [-]"
    return text.replace("−", "-").replace("–", "-")  # plain ASCII: some terminals have nothing else
