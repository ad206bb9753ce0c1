"""Write the page of a ranking from its `results.json`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.io import replace_file
from unialign.report._bars import labeled_bars
from unialign.report._format import NumberFormat, p_value
from unialign.report._model import MetricEstimate, number
from unialign.report._results import read_results
from unialign.report._schema import clean
from unialign.report._tables import plain_rows
from unialign.report._template import fill

# Maximum number of models in the plot and tasks in the table; the file lists all.
_PANELS, _TASKS = 30, 30
# Scores of neighboring models differ by hundredths of a percentage point.
_FORMAT = NumberFormat(percent=True, decimals=2)


def write_ranking_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the ranking in `folder` and return its path.

    Raises:
        DataError: `results.json` cannot be read or does not contain a ranking.
    """
    target = Path(folder) / "report.html"
    results = read_results(folder, "rank", "ranking", lambda found: found.get("kind") == "ranking")
    replace_file(target, fill("ranking.html.j2", context=_context(clean(results))))
    return target


def _context(results: Mapping[str, Any]) -> dict[str, Any]:
    models, settings = results["models"], results["settings"]
    estimates = [MetricEstimate(number(m["score"]), number(m["low"]), number(m["high"])) for m in models]
    bars = [(f"{m['rank']}  {m['name']}", e) for m, e in zip(models, estimates, strict=True)][:_PANELS]
    facts = [count(len(models), "model"), count(settings["tasks"], "task")]
    if settings["queries"]:
        facts.append(count(settings["queries"], "query", "queries"))
    tasks = list(results["scores"])[:_TASKS]
    return {
        "title": "Ranking of models",
        "facts": facts,
        "answer": results["answer"],
        "unit": results["unit"],
        "statistic": results["statistic"],
        "groups": results["groups"],
        "bars": labeled_bars("scores", "Score with 95 % interval", _FORMAT, bars),
        "panels": _PANELS,
        "rows": [
            {
                **model,
                "score": _FORMAT.with_unit(estimate.mean),
                "interval": _FORMAT.interval_with_unit(estimate.low, estimate.high),
                "ranks": f"{model['rank_low']} to {model['rank_high']}"
                if model["rank_low"] < model["rank_high"]
                else str(model["rank_low"]),
            }
            for model, estimate in zip(models, estimates, strict=True)
        ],
        "pairs": [_pair(pair) for pair in results["differences"][: len(models) - 1]],
        "tasks": tasks,
        "task_rows": [
            (model["name"], [_FORMAT.number(number(results["scores"][task][model["name"]])) for task in tasks])
            for model in models
        ],
        "all_tasks": len(results["scores"]),
        "notes": results["notes"],
        "settings": plain_rows(settings),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _pair(pair: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **pair,
        "difference": _FORMAT.number(number(pair["difference"])),
        "interval": _FORMAT.interval(number(pair["low"]), number(pair["high"])),
        "p": p_value(number(pair["p_holm"])),
        "verdict": "separable" if pair["is_separable"] else "not separable",
    }
