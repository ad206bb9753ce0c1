"""Summarize results in sentences and as a text table."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from unialign._plain_text import count, join_words, percent, table_lines
from unialign.report._format import NumberFormat, number_format, p_value
from unialign.report._model import ComparisonResults, MetricComparison, MetricInfo
from unialign.report._schema import parse_results

TRAINING_ITEMS = "including training items if the space was trained on them"
# With fewer items, the 95 % interval of a hit rate of 50 % is wider than 28 points.
FEW_ITEMS = 50
_VERBS = {"win": "wins", "tie": "ties", "lose": "loses"}


class VerdictSentence(NamedTuple):
    comparison: MetricComparison
    metric: MetricInfo
    text: str


class BaselineVerdict(NamedTuple):
    baseline: str
    label: str
    tally: str  # such as `2 wins, 1 tie, 0 losses`
    sentences: tuple[VerdictSentence, ...]


class OverallVerdict(NamedTuple):
    lead: str
    baselines: tuple[BaselineVerdict, ...]


def verdict_lines(results: Mapping[str, Any]) -> list[str]:
    """Summarize the content of `results.json`: the overall verdict, then one sentence per test against a baseline."""
    found = verdict(parse_results(results))
    lines = [found.lead]
    for baseline in found.baselines:
        lines.append(f"Against {baseline.label}: {baseline.tally}.")
        lines.extend(f"  {sentence.text}" for sentence in baseline.sentences)
    return lines


def text_table(results: Mapping[str, Any]) -> str:
    """Format the primary metrics of `results.json` as a plain-text table, with the definitions of the metrics."""
    parsed = parse_results(results)
    shown, objectives = primary_metrics(parsed), list(parsed.objectives.values())
    noted = [o for o in objectives if o.note]
    head = ["", *(o.label + (f" [{noted.index(o) + 1}]" if o.note else "") for o in objectives)]
    rows = []
    winners = {metric.key: best(parsed, metric.key) for metric in shown}
    for metric in shown:
        cells = [_cell(parsed, metric, o.key) + (" *" if o.key == winners[metric.key] else "") for o in objectives]
        label = metric.label + (", %" if metric.percent else "")
        rows.append([label + _direction(metric) + chance_note(parsed, metric, unit=""), *cells])
    lines = table_lines(head, rows)
    seeds, interval = len(parsed.seeds), f"[{parsed.level} interval"
    once = "Value" if parsed.single else "One seed"
    lines.append(f"Mean over {count(seeds, 'seed')} {interval}]." if seeds > 1 else f"{once} {interval} over items].")
    if any(winners.values()):
        lines[-1] += " * significantly better than all others (paired test)."
    if parsed.data.test_items is not None and parsed.data.test_items < FEW_ITEMS:
        lines.append(f"Only {count(parsed.data.test_items, 'item')} measured: intervals are wide.")
    lines.extend(f"[{i + 1}] {o.label}: {o.note}" for i, o in enumerate(noted))
    lines.extend(f"{metric.label}: {metric.description}" for metric in shown if metric.description)
    return "\n".join(lines)


def verdict(results: ComparisonResults) -> OverallVerdict:
    first = next(iter(results.objectives))
    shown = [metric.key for metric in primary_metrics(results)]
    comparisons = [c for c in results.comparisons if c.objective == first and c.metric in shown]
    if not comparisons:
        return OverallVerdict(_without_tests(results, first), ())
    baselines = []
    for baseline in dict.fromkeys(c.baseline for c in comparisons):
        tests = sorted((c for c in comparisons if c.baseline == baseline), key=lambda c: shown.index(c.metric))
        sentences = tuple(VerdictSentence(c, results.metrics[c.metric], _sentence(results, c)) for c in tests)
        sums = Counter(c.verdict for c in tests)
        tally = ", ".join([count(sums["win"], "win"), count(sums["tie"], "tie"), count(sums["lose"], "loss", "losses")])
        baselines.append(BaselineVerdict(baseline, results.objectives[baseline].label, tally, sentences))
    return OverallVerdict(_lead(results, first, comparisons), tuple(baselines))


def primary_metrics(results: ComparisonResults) -> list[MetricInfo]:
    """Return the primary metrics; all metrics if none is marked as primary."""
    return [m for m in results.metrics.values() if m.primary] or list(results.metrics.values())


def best(results: ComparisonResults, metric: str) -> str | None:
    """Return the objective that beats all others in paired tests, directly or transitively; None if there is none."""
    above: dict[str, set[str]] = {key: set() for key in results.objectives}
    for comparison in results.comparisons:
        if comparison.metric == metric and comparison.verdict == "win":
            above[comparison.objective].add(comparison.baseline)
        elif comparison.metric == metric and comparison.verdict == "lose":
            above[comparison.baseline].add(comparison.objective)
    for _ in above:
        for key in above:
            above[key] |= {beaten for through in tuple(above[key]) for beaten in above[through]}
    return next((key for key in above if len(above) > 1 and above[key] == set(above) - {key}), None)


def metric_style(results: ComparisonResults, metric: MetricInfo) -> NumberFormat:
    values = [results.estimate(objective, metric.key).mean for objective in results.objectives]
    return number_format(values, unit="percent" if metric.percent else "number")


def _lead(results: ComparisonResults, first: str, comparisons: Sequence[MetricComparison]) -> str:
    label, total = results.objectives[first].label, len(comparisons)
    sums = Counter(c.verdict for c in comparisons)
    labels = (results.objectives[key].label for key in dict.fromkeys(c.baseline for c in comparisons))
    against = f"{count(total, 'comparison')} with {join_words(labels)}"
    if sums["win"] == 0:
        return f"{label} wins none of {against}: it ties {sums['tie'] or 'none'} and loses {sums['lose'] or 'none'}."
    if sums["win"] == total:
        return f"{label} wins all of {against}."
    won, lost = (
        join_words(dict.fromkeys(results.metrics[c.metric].label for c in comparisons if c.verdict == verdict))
        for verdict in ("win", "lose")
    )
    loses = f"loses {sums['lose']} ({lost})" if lost else "loses none"
    return (
        f"{label} wins {sums['win']} of {count(total, 'comparison')} ({won}), ties {sums['tie'] or 'none'} and {loses}."
    )


def _without_tests(results: ComparisonResults, first: str) -> str:
    texts = []
    for metric in primary_metrics(results):
        fmt, estimate = metric_style(results, metric), results.estimate(first, metric.key)
        if not math.isfinite(estimate.mean):
            continue
        interval = f" ({results.level} interval {fmt.interval(estimate.low, estimate.high)})"
        value = f"{metric.label} {fmt.with_unit(estimate.mean)}" + (interval if estimate.has_interval else "")
        texts.append(value + chance_note(results, metric))
    label = results.objectives[first].label
    if not results.single:
        found = f" {label} reaches {join_words(texts)}." if texts else ""
        return f"There is no verdict, since there are no paired tests.{found}"
    data = results.data
    items = "" if data.test_items is None else f"{count(data.test_items, 'item')} of "
    where = items + (f"the {data.split} split of " if data.split else "") + data.name
    if data.is_whole:
        where = f"all {items}{data.name} ({TRAINING_ITEMS})"
    return f"{label} on {where}: {join_words(texts)}." if texts else f"{label} on {where}: no metrics were measured."


def _sentence(results: ComparisonResults, comparison: MetricComparison) -> str:
    metric = results.metrics[comparison.metric]
    fmt = metric_style(results, metric)
    own, other = (
        fmt.with_unit(results.estimate(key, metric.key).mean) for key in (comparison.objective, comparison.baseline)
    )
    label = results.objectives[comparison.objective].label
    size = fmt.magnitude(comparison.difference) + (" points" if metric.percent else "")
    change = f"{size} {_side(comparison.difference)}" if _is_visible(size) else "equal"
    p = f"; {p_value(comparison.p_holm)}" if p_value(comparison.p_holm) else ""
    end = ""
    if comparison.verdict == "tie" and (comparison.low > 0 or comparison.high < 0):
        end = ", not significant after correction for multiple tests"
    elif comparison.verdict == "tie":
        end = ", no reliable difference"
    about = f"{metric.label}{_direction(metric)}{chance_note(results, metric)}"
    return (
        f"On {about} {label} {_VERBS[comparison.verdict]}: {own} against {other}, "
        f"{change} ({results.level} interval {_interval(fmt, comparison)}{p}){end}."
    )


def _interval(fmt: NumberFormat, comparison: MetricComparison) -> str:
    low, high = comparison.low, comparison.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if low < 0 < high and _is_visible(fmt.magnitude(max(-low, high))):
        return f"from {fmt.magnitude(low)} lower to {fmt.magnitude(high)} higher"
    near, far = sorted((low, high), key=abs)
    text = f"{fmt.magnitude(near)} to {fmt.magnitude(far)}"
    return f"{text} {_side(low + high)}" if _is_visible(fmt.magnitude(far)) else text


def _is_visible(size: str) -> bool:
    """Return whether a formatted difference is not 0, as in `0.0 points`."""
    return bool(size.split()[0].strip("0.,"))


def _side(difference: float) -> str:
    return "lower" if difference < 0 else "higher"


def _direction(metric: MetricInfo) -> str:
    return " (lower is better)" if metric.higher_is_better is False else ""


def chance_note(results: ComparisonResults, metric: MetricInfo, *, unit: str = " %") -> str:
    """Return ` (chance 0.35 %)`, or ""."""
    chance = results.chance(metric.key)
    return f" (chance {percent(chance).removesuffix(' %')}{unit})" if math.isfinite(chance) else ""


def _cell(results: ComparisonResults, metric: MetricInfo, objective: str) -> str:
    fmt, estimate = metric_style(results, metric), results.estimate(objective, metric.key)
    text = fmt.number(estimate.mean)
    if estimate.has_interval:
        text += f" [{fmt.number(estimate.low)}, {fmt.number(estimate.high)}]"
    elif math.isfinite(estimate.mean):
        text += " [-]"
    return text.replace("−", "-").replace("–", "-")  # use ASCII, which all terminals display
