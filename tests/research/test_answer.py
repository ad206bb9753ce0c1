"""Test the summary of a study that is printed in the terminal."""

from typing import Any

import pytest

from research._terminal import smoke_run_note, tally_lines

METRICS = {
    "recall@1": {"label": "R@1", "unit": "percent", "primary": True},
    "gap": {"label": "gap", "unit": "number", "primary": True},
    "other": {"label": "other", "unit": "number", "primary": False},
}


def results(families: int = 1) -> dict[str, Any]:
    verdicts = {"recall@1": ["win", "lose", "lose", "lose", "lose", "lose"], "gap": ["tie"] * 6}
    return {
        "objectives": {"us": {"label": "Us"}, **{f"r{i}": {"label": f"Rival {i}"} for i in range(6)}},
        "metrics": METRICS,
        "study": {"families": [{"name": f"f{n}", "first": "us", "baselines": ["r0"]} for n in range(families)]},
        "comparisons": [
            {"family": f"f{n}", "metric": metric, "baseline": f"r{i}", "verdict": verdict}
            for n in range(families)
            for metric, own in verdicts.items()
            for i, verdict in enumerate(own)
        ]
        + [{"family": "f0", "metric": "other", "baseline": "r0"}],
    }


def test_tallies_of_a_family_and_of_each_metric() -> None:
    assert tally_lines(results()) == [
        "f0: Us against 6 others, 12 comparisons: 1 win, 6 ties, 5 losses.",
        "  R@1: 1 win, 0 ties, 5 losses; wins against Rival 0; loses to Rival 1, Rival 2, Rival 3, Rival 4 and 1 more",
        "  gap: 0 wins, 6 ties, 0 losses",
    ]


def test_many_families_have_one_line_each() -> None:
    many = results(4)
    many["comparisons"] = [c for c in many["comparisons"] if c["family"] != "f1"]
    lines = tally_lines(many)
    assert len(lines) == 4
    assert lines[1] == "f1: no comparison was possible."


@pytest.mark.parametrize(
    ("asked", "own", "said"),
    [
        (2, 40, "smoke run with 2 of 40 epochs; its numbers are not meaningful"),
        (40, 40, ""),
        (80, 40, ""),
        (None, 40, ""),
        (2, None, ""),
    ],
)
def test_only_fewer_epochs_than_the_studys_own_are_a_smoke_run(asked: int | None, own: int | None, said: str) -> None:
    assert smoke_run_note(asked, own) == said
