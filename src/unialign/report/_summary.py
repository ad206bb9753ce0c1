"""The verdict in words, and the table as text: pure functions of the results. Nothing here computes a verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unialign.report._format import Style, count, listed, p_value, style
from unialign.report._model import Contest, Estimate, MetricInfo, Results
from unialign.report._schema import parse_results

__all__ = ["best", "metric_style", "text_table", "verdict", "verdict_lines"]

VERBS = {"win": "wins", "tie": "ties", "lose": "loses"}


@dataclass(frozen=True)
class Sentence:
    contest: Contest
    metric: MetricInfo
    text: str


@dataclass(frozen=True)
class RivalVerdict:
    rival: str
    label: str
    tally: str
    sentences: tuple[Sentence, ...]


@dataclass(frozen=True)
class Verdict:
    lead: str
    rivals: tuple[RivalVerdict, ...]


def verdict_lines(results: Mapping[str, Any]) -> list[str]:
    """The content of `results.json` as sentences: the sum, then each rival with one sentence a headline metric."""
    found = verdict(parse_results(results))
    lines = [found.lead]
    for rival in found.rivals:
        lines.append(f"Against {rival.label}: {rival.tally}.")
        lines.extend(f"  {sentence.text}" for sentence in rival.sentences)
    return lines


def text_table(results: Mapping[str, Any], *, metrics: Sequence[str] | None = None) -> str:
    """A plain-text table of means and intervals, for a terminal; `metrics` defaults to the headline ones."""
    parsed = parse_results(results)
    shown = headline(parsed) if metrics is None else [parsed.metrics[key] for key in metrics]
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
    once = "Value" if parsed.alone else "One seed"
    lines.append(f"Mean over {count(seeds, 'seed')} {spread}]." if seeds > 1 else f"{once} {spread} over items].")
    if starred:
        lines[-1] += " * better than every other by the paired test."
    lines.extend(f"[{i + 1}] {o.label}: {o.note}" for i, o in enumerate(noted))
    return "\n".join(lines)


def verdict(results: Results) -> Verdict:
    """The first objective against each other one, in sentences."""
    first = next(iter(results.objectives))
    shown = [metric.key for metric in headline(results)]
    contests = [c for c in results.contests if c.objective == first and c.metric in shown]
    if not contests:
        return Verdict(_alone(results, first), ())
    rivals = []
    for rival in dict.fromkeys(c.rival for c in contests):
        own = sorted((c for c in contests if c.rival == rival), key=lambda c: shown.index(c.metric))
        sentences = tuple(Sentence(c, results.metrics[c.metric], _sentence(results, c)) for c in own)
        rivals.append(RivalVerdict(rival, results.objectives[rival].label, tally(own), sentences))
    return Verdict(_lead(results, first, contests), tuple(rivals))


def headline(results: Results) -> list[MetricInfo]:
    """The key metrics; all of them where none is marked."""
    return [m for m in results.metrics.values() if m.headline] or list(results.metrics.values())


def tally(contests: Sequence[Contest]) -> str:
    sums = {verdict: sum(c.verdict == verdict for c in contests) for verdict in VERBS}
    return f"{count(sums['win'], 'win')}, {count(sums['tie'], 'tie')}, {count(sums['lose'], 'loss', 'losses')}"


def best(results: Results, metric: str) -> str | None:
    """The objective that the paired tests put ahead of every other one, directly or through a third; often none."""
    ahead: dict[str, set[str]] = {key: set() for key in results.objectives}
    for contest in results.contests:
        if contest.metric == metric and contest.verdict == "win":
            ahead[contest.objective].add(contest.rival)
        elif contest.metric == metric and contest.verdict == "lose":
            ahead[contest.rival].add(contest.objective)
    for _ in ahead:
        for key in ahead:
            ahead[key] |= {beaten for through in tuple(ahead[key]) for beaten in ahead[through]}
    winners = [key for key in ahead if len(ahead) > 1 and ahead[key] == set(ahead) - {key}]
    return winners[0] if winners else None


def metric_style(results: Results, metric: MetricInfo) -> Style:
    """How a metric is written: its unit, and decimals that suit its values."""
    values = [results.estimate(objective, metric.key).mean for objective in results.objectives]
    return style(values, unit="percent" if metric.percent else "number")


def _lead(results: Results, first: str, contests: Sequence[Contest]) -> str:
    label = results.objectives[first].label
    sums = {verdict: sum(c.verdict == verdict for c in contests) for verdict in VERBS}
    rivals = listed((results.objectives[key].label for key in dict.fromkeys(c.rival for c in contests)), last="or")
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
    for metric in headline(results):
        look, estimate = metric_style(results, metric), results.estimate(first, metric.key)
        if math.isfinite(estimate.mean):
            texts.append(f"{metric.label} {look.value(estimate.mean)}" + _between(results, look, estimate))
    label = results.objectives[first].label
    if not results.alone:
        found = f" {label} reaches {listed(texts)}." if texts else ""
        return f"There are no paired tests, so there is no verdict.{found}"
    data = results.data
    items = "" if data.test_items is None else f"{count(data.test_items, 'item')} of "
    where = items + (f"the {data.split} split of " if data.split else "") + data.name
    return f"{label} on {where}: {listed(texts)}." if texts else f"{label} on {where}: nothing was measured."


def _between(results: Results, look: Style, estimate: Estimate) -> str:
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return ""
    return f" ({results.level} interval {look.bare(estimate.low)} to {look.bare(estimate.high)})"


def _sentence(results: Results, contest: Contest) -> str:
    metric = results.metrics[contest.metric]
    look = metric_style(results, metric)
    own, other = (results.estimate(key, metric.key).mean for key in (contest.objective, contest.rival))
    label = results.objectives[contest.objective].label
    lower = " (lower is better)" if metric.higher_is_better is False else ""
    size = look.distance(contest.difference) + (" points" if metric.percent else "")
    text = (
        f"On {metric.label}{lower} {label} {VERBS[contest.verdict]}: {look.value(own)} against {look.value(other)}, "
        f"{size} {_side(contest.difference)} ({results.level} interval {_interval(look, contest)}"
    )
    text += f"; {p_value(contest.p_holm)})" if p_value(contest.p_holm) else ")"
    if contest.verdict != "tie":
        return text + "."
    if contest.low > 0 or contest.high < 0:
        return text + ", not significant once corrected for the number of tests."
    return text + ", no reliable difference."


def _interval(look: Style, contest: Contest) -> str:
    low, high = contest.low, contest.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if low >= 0 or high <= 0:
        near, far = sorted((low, high), key=abs)
        return f"{look.distance(near)} to {look.distance(far)} {_side(low + high)}"
    return f"from {look.distance(low)} lower to {look.distance(high)} higher"


def _side(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def _hint(metric: MetricInfo) -> str:
    return " (lower is better)" if metric.higher_is_better is False else ""


def _cell(results: Results, metric: MetricInfo, objective: str) -> str:
    look, estimate = metric_style(results, metric), results.estimate(objective, metric.key)
    text = look.bare(estimate.mean)
    if math.isfinite(estimate.low) and math.isfinite(estimate.high):
        text += f" [{look.bare(estimate.low)}, {look.bare(estimate.high)}]"
    elif math.isfinite(estimate.mean):
        text += " [-]"
    return text.replace("−", "-").replace("–", "-")  # plain ASCII: some terminals have nothing else
