"""Summarize the families of a study for the terminal, from the content of results.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from research._read import family_tests, label, metric_label, primary_metrics
from unialign.report import count, join_words

__all__ = ["smoke_run_note", "tally_lines"]

Results = Mapping[str, Any]
# The maximum number of families with one line per metric; more lines would hide the totals.
_MAX_DETAILED = 3
_MAX_NAMED = 4


def smoke_run_note(epochs: int | None, own: int | None) -> str:
    if epochs is None or own is None or epochs >= own:
        return ""
    return f"smoke run with {epochs} of {own} epochs; its numbers are not meaningful"


def tally_lines(results: Results) -> list[str]:
    families = results["study"]["families"]
    lines = []
    for family in families:
        tests = family_tests(results, family["name"])
        if not tests:
            lines.append(f"{family['name']}: no comparison was possible.")
            continue
        baselines = list(dict.fromkeys(test["baseline"] for test in tests))
        against = label(results, baselines[0]) if len(baselines) == 1 else f"{len(baselines)} others"
        first, total = label(results, family["first"]), count(len(tests), "comparison")
        lines.append(f"{family['name']}: {first} against {against}, {total}: {_tally(tests)}.")
        if len(families) <= _MAX_DETAILED:
            lines += [f"  {_metric_line(results, metric, tests)}" for metric in primary_metrics(results)]
    return lines


def _metric_line(results: Results, metric: str, tests: Sequence[Mapping[str, Any]]) -> str:
    own = [test for test in tests if test["metric"] == metric]
    text = f"{metric_label(results, metric).removesuffix(', %')}: {_tally(own)}"
    for verdict, phrase in (("win", "wins against"), ("lose", "loses to")):
        names = [label(results, test["baseline"]) for test in own if test["verdict"] == verdict]
        if names:
            more = [f"{len(names) - _MAX_NAMED} more"] if len(names) > _MAX_NAMED else []
            text += f"; {phrase} {join_words([*names[:_MAX_NAMED], *more])}"
    return text


def _tally(tests: Sequence[Mapping[str, Any]]) -> str:
    sums = {verdict: sum(test["verdict"] == verdict for test in tests) for verdict in ("win", "tie", "lose")}
    return f"{count(sums['win'], 'win')}, {count(sums['tie'], 'tie')}, {count(sums['lose'], 'loss', 'losses')}"
