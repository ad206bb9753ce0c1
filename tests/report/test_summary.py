import math

import pytest

from unialign.errors import DataError
from unialign.report import text_table, verdict_lines
from unialign.report._format import number_format


def results(*comparisons, objectives=("unialign", "infonce", "gram"), metrics=None):
    means = {"unialign": 0.312, "infonce": 0.289, "gram": 0.2}
    labels = {"unialign": "UniAlign", "infonce": "InfoNCE", "gram": "GRAM"}
    gaps = {"unialign": 0.012, "infonce": 0.03, "gram": 0.03}
    return {
        "schema": 1,
        "data": {"name": "emoji", "modalities": ["image", "text"]},
        "objectives": {o: {"label": labels[o], "note": "InfoNCE warmup" if o == "gram" else ""} for o in objectives},
        "metrics": metrics
        or {
            "recall@1": {"label": "R@1", "unit": "percent", "higher_is_better": True, "primary": True},
            "gap": {"label": "gap", "unit": "number", "higher_is_better": False, "primary": True},
            "other": {"label": "other", "unit": "number"},
        },
        "runs": [{"objective": o, "seed": 0, "metrics": {"recall@1": means[o], "gap": gaps[o]}} for o in objectives],
        "summary": {
            o: {
                "recall@1": {"mean": means[o], "low": means[o] - 0.01, "high": means[o] + 0.01},
                "gap": {"mean": gaps[o], "low": gaps[o] - 0.002, "high": gaps[o] + 0.002},
            }
            for o in objectives
        },
        "comparisons": list(comparisons),
    }


def comparison(verdict, *, metric="recall@1", baseline="infonce", difference=0.023, low=0.011, high=0.035, p=0.004):
    return {
        "metric": metric,
        "objective": "unialign",
        "baseline": baseline,
        "difference": difference,
        "low": low,
        "high": high,
        "p": p / 4,
        "p_holm": p,
        "verdict": verdict,
        "higher_is_better": metric != "gap",
    }


def test_a_win_is_reported_with_difference_and_interval():
    lines = verdict_lines(results(comparison("win")))
    assert lines == [
        "UniAlign wins all of 1 comparison with InfoNCE.",
        "Against InfoNCE: 1 win, 0 ties, 0 losses.",
        "  On R@1 UniAlign wins: 31.2 % against 28.9 %, 2.3 points higher "
        "(95 % interval 1.1 to 3.5 higher; p = 0.004).",
    ]


def test_a_tie_is_reported_with_both_bounds_of_its_interval():
    lines = verdict_lines(results(comparison("tie", low=-0.006, high=0.052, p=0.3)))
    assert "from 0.6 lower to 5.2 higher; p = 0.30), no reliable difference." in lines[-1]


def test_a_tie_whose_interval_excludes_zero_names_the_correction():
    assert verdict_lines(results(comparison("tie", p=0.08)))[-1].endswith(
        "not significant after correction for multiple tests."
    )


def test_one_seed_gives_some_metrics_no_interval():
    """Regression test: a raw gap was reported with the interval 0.125 to 0.125."""
    table = results(objectives=("unialign",))
    table["summary"]["unialign"]["gap"] = {"mean": 0.125, "low": 0.12499999999999997, "high": 0.12500000000000003}
    assert "0.125 [-]" in text_table(table)
    assert "31.2 [30.2, 32.2]" in text_table(table)
    assert "Value [95 % interval over items]" in text_table(table)
    (line,) = verdict_lines(table)
    assert line == "UniAlign on emoji: R@1 31.2 % (95 % interval 30.2 to 32.2) and gap 0.125."
    table["runs"].append(table["runs"][0] | {"seed": 1})
    assert "0.125 [0.125, 0.125]" in text_table(table), "equal values of several seeds have an interval"


def test_a_lower_gap_is_a_win_with_the_remark_that_lower_is_better():
    line = verdict_lines(results(comparison("win", metric="gap", difference=-0.018, low=-0.022, high=-0.014)))[-1]
    assert "On gap (lower is better) UniAlign wins: 0.012 against 0.030, 0.018 lower" in line
    assert "0.014 to 0.022 lower" in line


def test_a_lead_without_wins_counts_ties_and_losses():
    lines = verdict_lines(
        results(comparison("tie"), comparison("lose", baseline="gram", difference=-0.02, low=-0.03, high=-0.01))
    )
    assert lines[0] == "UniAlign wins none of 2 comparisons with InfoNCE and GRAM: it ties 1 and loses 1."


def test_the_lead_names_the_metrics_won_and_lost():
    lines = verdict_lines(results(comparison("win"), comparison("lose", metric="gap")))
    assert lines[0] == "UniAlign wins 1 of 2 comparisons (R@1), ties none and loses 1 (gap)."


def test_one_objective_gives_numbers_and_no_verdict():
    (line,) = verdict_lines(results(objectives=("unialign",)))
    assert "verdict" not in line, "a single objective has no verdict"
    assert "R@1 31.2 % (95 % interval 30.2 to 32.2)" in line


def test_the_table_has_intervals_notes_and_a_star_for_significant_results_only():
    both = (comparison("win"), comparison("win", baseline="gram"))
    lines = text_table(
        results(*both, comparison("win", metric="gap"), comparison("tie", metric="gap", baseline="gram"))
    ).splitlines()
    assert lines[0].split() == ["UniAlign", "InfoNCE", "GRAM", "[1]"]
    assert "31.2 [ 30.2,  32.2] *" in lines[2]
    assert "28.9 [ 27.9,  29.9]" in lines[2]
    assert "*" not in lines[3]
    assert lines[-1] == "[1] GRAM: InfoNCE warmup"
    assert all(ord(c) < 128 for line in lines for c in line)


@pytest.mark.parametrize(("items", "noted"), [(49, True), (50, False), (1, True)])
def test_few_items_are_noted(items, noted):
    few = results()
    few["data"]["test_items"] = items
    expected = f"Only {items} item{'s' if items > 1 else ''} measured: intervals are wide."
    assert (expected in text_table(few).splitlines()) == noted


def test_a_baseline_is_starred_when_it_beats_the_first_which_beats_the_rest():
    chain = (comparison("lose"), comparison("win", baseline="gram"))
    row = text_table(results(*chain)).splitlines()[2]
    assert row.count("*") == 1
    assert "28.9 [ 27.9,  29.9] *" in row


def test_a_comparison_without_a_verdict_is_omitted():
    declared = (comparison("tie"), comparison("tie", baseline="gram"))
    beyond = [
        {k: v for k, v in comparison("win", metric="gap", baseline=r).items() if k != "verdict"}
        for r in ("infonce", "gram")
    ]
    assert text_table(results(*declared, *beyond)) == text_table(results(*declared))


def test_the_required_entries_are_enough():
    bare = {key: results()[key] for key in ("schema", "data", "runs")}
    assert "0.312" in text_table(bare)
    assert "no paired tests" in verdict_lines(bare)[0]


def test_invalid_results_raise_by_name() -> None:
    for change, message in (
        ({"schema": 2}, "schema 2"),
        ({"runs": []}, "no runs"),
        ({"data": {"name": "x", "modalities": ["a"]}}, "at least 2 modalities"),
        ({"comparisons": [comparison("draw")]}, "'draw'"),
        ({"comparisons": [comparison("win", baseline="missing")]}, "'missing'"),
        ({"runs": [{"objective": "missing", "seed": 0, "metrics": {}}]}, "'missing'"),
        ({"runs": [{"objective": "gram", "seed": "x", "metrics": {}}]}, "seed 'x'"),
        ({"metrics": []}, "'metrics'"),
    ):
        with pytest.raises(DataError, match=message):
            verdict_lines(results() | change)


def test_a_row_of_numbers_shares_its_decimals():
    assert number_format([0.03, 0.004], unit="number").number(0.03) == "0.030"
    assert number_format([61.2, 5.0], unit="number").number(5.0) == "5.0"
    assert number_format([0.5], unit="percent").with_unit(0.312) == "31.2 %"
    assert number_format([0.5], unit="number").number(-0.0001) == "0.000"
    assert number_format([0.5], unit="number").number(-0.5) == "−0.500"
    assert number_format([], unit="number").with_unit(math.nan) == "–"


def test_no_difference_is_written_as_equal():
    same = comparison("tie", difference=0.0, low=0.0, high=0.0, p=1.0)
    line = verdict_lines(results(same))[-1]
    assert "28.9 %, equal (95 % interval 0.0 to 0.0; p = 1.00), no reliable difference." in line
    within = comparison("tie", difference=0.0, low=-0.01, high=0.01, p=1.0)
    assert "equal (95 % interval from 1.0 lower to 1.0 higher" in verdict_lines(results(within))[-1]
