"""What a study found, in a few lines for the terminal: the tally of each family, from the content of results.json."""

from collections.abc import Mapping
from typing import Any

from research._figures import headline, label, metric_label
from unialign.report import count, listed

__all__ = ["quick_look", "tally_lines"]

Results = Mapping[str, Any]
# With more families a line for each metric would hide the sums.
_DETAILED = 3
_NAMED = 4


def quick_look(asked: int | None, own: int | None) -> str:
    """A warning that trainings have fewer epochs than the study's own number, or nothing."""
    if asked is None or own is None or asked >= own:
        return ""
    return f"quick look: {asked} of {own} epochs, numbers mean little"


def tally_lines(results: Results) -> list[str]:
    """How often the first arm of each family wins, ties and loses, and where it does which."""
    families = results["study"]["families"]
    lines = []
    for family in families:
        found = [c for c in results["comparisons"] if c["family"] == family["name"] and "verdict" in c]
        if not found:
            lines.append(f"{family['name']}: no comparison could be made.")
            continue
        rivals = list(dict.fromkeys(c["rival"] for c in found))
        against = label(results, rivals[0]) if len(rivals) == 1 else f"{len(rivals)} others"
        first, total = label(results, family["first"]), count(len(found), "comparison")
        lines.append(f"{family['name']}: {first} against {against}, {total}: {_tally(found)}.")
        if len(families) <= _DETAILED:
            lines += [f"  {_metric(results, metric, found)}" for metric in headline(results)]
    return lines


def _metric(results: Results, metric: str, found: list[Mapping[str, Any]]) -> str:
    own = [c for c in found if c["metric"] == metric]
    text = f"{metric_label(results, metric).removesuffix(', %')}: {_tally(own)}"
    for verdict, word in (("win", "wins against"), ("lose", "loses to")):
        names = [label(results, c["rival"]) for c in own if c["verdict"] == verdict]
        if names:
            more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
            text += f"; {word} {listed([*names[:_NAMED], *more])}"
    return text


def _tally(found: list[Mapping[str, Any]]) -> str:
    sums = {verdict: sum(c["verdict"] == verdict for c in found) for verdict in ("win", "tie", "lose")}
    return f"{count(sums['win'], 'win')}, {count(sums['tie'], 'tie')}, {count(sums['lose'], 'loss', 'losses')}"
