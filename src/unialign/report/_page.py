"""Write the HTML page of a comparison."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from unialign._plain_text import count, join_words
from unialign.io import replace_file
from unialign.report import _bars, _curves, _gallery, _heatmap, _maps
from unialign.report._folder import ComparisonFolder, TestRows, read_comparison
from unialign.report._generation import generated_images
from unialign.report._model import ComparisonResults, number
from unialign.report._projection import PCAMap, pca_map
from unialign.report._summary import FEW_ITEMS, TRAINING_ITEMS, metric_style, verdict
from unialign.report._tables import metric_rows, plain_rows, settings_rows, warning_rows
from unialign.report._template import fill

# Metric -> explanation, in the order of the charts.
_BARS = {
    "modality_gap_debiased": "Distance between the means of two modalities without sampling noise. 0: equal means.",
    "modality_gap": "Distance without the correction. On a small test set, much of it is sampling noise.",
    "zeta": "Conflict of the alignment and uniformity gradients. Near 1 in any good space; harmless by itself.",
    "zeta_neg": "Conflict of alignment with the negatives only, without the positive.",
    "chi": "Disagreement between the positives of an item. 0 means that they agree.",
}
_UNDER_MAPS = ("recall@1", "modality_gap_debiased")


class PageFigure(NamedTuple):
    title: str
    chart: Markup
    note: str = ""


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the comparison in `folder` and return its path."""
    target = Path(folder) / "report.html"
    replace_file(target, fill("page.html.j2", context=_context(read_comparison(Path(folder)))))
    return target


def _context(comparison: ComparisonFolder) -> dict[str, Any]:
    results = comparison.results
    # Show the run with the lowest seed in maps and examples.
    spaces = {key: comparison.space(runs[0]) for key in results.objectives if (runs := results.runs_of(key))}
    modalities = results.data.modalities
    return {
        **_text(results),
        "maps": _space_maps(comparison, spaces),
        "markers": _maps.marker_definitions(modalities),
        "legend": [(_maps.legend_mark(i), results.data.display_name(m)) for i, m in enumerate(modalities)],
        "heat": _heat(results),
        "bars": _bar_panels(results),
        "curves": _curve_panels(comparison),
        **_gallery.example_section(comparison, spaces),
        "generated": generated_images(comparison.folder),
    }


def _text(results: ComparisonResults) -> dict[str, Any]:
    objectives, found = list(results.objectives.values()), verdict(results)
    where = f"all items of {results.data.name}" if results.data.is_whole else results.data.name
    reach: dict[str, float] = {}  # shared scale of each metric, so that baselines can be compared
    for c in results.comparisons:
        ends = [abs(v) for v in (c.difference, c.low, c.high) if math.isfinite(v)]
        reach[c.metric] = max([reach.get(c.metric, 0.0), *ends])
    differences = {
        (s.comparison.baseline, s.metric.key): _bars.difference_chart(s.comparison, s.metric, reach[s.metric.key])
        for baseline in found.baselines
        for s in baseline.sentences
    }
    return {
        "title": f"{join_words(o.label for o in objectives)} on {where}",
        "results": results,
        "facts": _facts(results),
        "objectives": objectives,
        "first": objectives[0],
        "notes": [o for o in objectives if o.note],
        "kicker": _kicker(results),
        "verdict": found,
        "differences": differences,
        "tests": sum(len(baseline.sentences) for baseline in found.baselines),
        "rows": metric_rows(results),
        "settings": settings_rows(results),
        "protocol": plain_rows(results.protocol),
        "environment": plain_rows(results.environment),
        "warnings": warning_rows(results),
        "reproduce": results.reproduce
        or f"unialign {'train' if len(results.runs) == 1 else 'compare'} --config config.yaml",
    }


def _facts(results: ComparisonResults) -> list[str]:
    data = results.data
    facts = [] if data.items is None else [count(data.items, "item")]
    facts.append(f"{len(data.modalities)} modalities: {', '.join(data.display_name(m) for m in data.modalities)}")
    queries = number(results.protocol.get("queries"))
    if math.isfinite(queries) and data.test_items is not None:
        facts.append(f"measured on a random sample of {queries:,.0f} of {count(data.test_items, 'item')}")
    elif data.is_whole:
        facts.append(f"measured on all items, {TRAINING_ITEMS}")
    elif data.test_items is not None and data.split == "test":
        facts.append(f"measured on {count(data.test_items, 'unseen item')}")
    elif data.test_items is not None:
        facts.append(f"measured on {count(data.test_items, 'item')} of the split {data.split!r}")
    if data.test_items is not None and data.test_items < FEW_ITEMS:
        facts[-1] += ", so intervals are wide"
    objectives, seeds = len(results.objectives), len(results.seeds)
    if objectives > 1 or seeds > 1:
        facts.append(f"{count(objectives, 'objective')} × {count(seeds, 'seed')}")
    return facts


def _kicker(results: ComparisonResults) -> str:
    if not results.single:
        return "Comparison of training objectives"
    return "Evaluation of one space" if len(results.runs) == 1 else "Evaluation of one training objective"


def _space_maps(comparison: ComparisonFolder, spaces: Mapping[str, TestRows]) -> list[PageFigure]:
    results = comparison.results
    if not spaces:
        return []
    projections: dict[str, PCAMap] = {}
    for key, space in spaces.items():
        projections[key] = pca_map(space, like=next(iter(projections.values()), None))
    half = _maps.reach(list(projections.values()))
    items = next(iter(spaces.values())).items
    names = comparison.items.names if comparison.items else [f"item {n}" for n in range(items)]
    drawn = _maps.drawn_items(items, len(results.data.modalities), len(spaces))
    metrics = [results.metrics[m] for m in _UNDER_MAPS if m in results.metrics]
    figures = []
    for i, (key, projection) in enumerate(projections.items()):
        label, (first, second) = results.objectives[key].label, projection.explained
        title = f"Map of the space trained with {label}"
        chart = _maps.space_map(f"map{i}", title, results.data, projection, half, names, drawn)
        notes = [f"{m.label} {metric_style(results, m).with_unit(results.estimate(key, m.key).mean)}" for m in metrics]
        notes.append(f"the axes explain {100 * first:.0f} % and {100 * second:.0f} % of the variance")
        figures.append(PageFigure(label, chart, "; ".join(notes)))
    return figures


def _heat(results: ComparisonResults) -> dict[str, Any] | None:
    metric = "recall@1"
    label = results.metrics[metric].label if metric in results.metrics else "R@1"
    modalities = results.data.modalities
    values = {key: _heatmap.mean_directions(results.runs_of(key), metric, modalities) for key in results.objectives}
    top = max((v for cells in values.values() for v in cells.values()), default=math.nan)
    if not math.isfinite(top):
        return None
    figures = [
        PageFigure(o.label, _heatmap.heatmap(f"heat{i}", o.label, label, results.data, values[o.key], top))
        for i, o in enumerate(results.objectives.values())
        if values[o.key]
    ]
    return {"figures": figures, "scale": _heatmap.scale_bar(top, label), "label": label}


def _bar_panels(results: ComparisonResults) -> list[PageFigure]:
    figures = []
    for key, note in _BARS.items():
        metric = results.metrics.get(key)
        if metric is None or not any(math.isfinite(results.estimate(o, key).mean) for o in results.objectives):
            continue
        rows = [(o.label, results.estimate(o.key, key)) for o in results.objectives.values()]
        items = results.data.test_items if key == "modality_gap" else None
        floor = (math.sqrt(2 / items), "dashed: unrelated rows") if items else None
        chart = _bars.bars(f"bar-{key}", metric.label, metric_style(results, metric), rows, floor=floor)
        figures.append(PageFigure(metric.label, chart, note))
    return figures


def _curve_panels(comparison: ComparisonFolder) -> list[dict[str, Any]]:
    results = comparison.results
    found = []
    for i, objective in enumerate(results.objectives.values()):
        logs = {run.seed: comparison.log(run) for run in results.runs_of(objective.key)}
        logs = {seed: lines for seed, lines in logs.items() if lines}
        if not logs:
            continue
        shown = logs[min(logs)]
        last, switched = max(line.step for lines in logs.values() for line in lines), _curves.switches(shown)
        charts = [
            PageFigure(panel.title, _curves.chart(f"curve{i}-{j}", objective.label, panel, last, switched))
            for j, panel in enumerate(_curves.panels(logs, results.data.modalities))
        ]
        before = dict.fromkeys(line.objective for line in shown)
        names = [results.objectives[name].label if name in results.objectives else name for name in before]
        note = f"Dashed: {' changes to '.join(names)} at step {switched[0]:,}." if switched else ""
        found.append({"label": objective.label, "charts": charts, "note": note})
    return found
