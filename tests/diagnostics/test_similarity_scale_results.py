"""Test the stored results of the benchmark of similarity scales, and the table and statements of the page on ids."""

import itertools
import json

from benchmarks.similarity_scale import HEADS, OBJECTIVES, PAGE, RESULT, RULES, SCALES, SPLITS, table

RESULTS = json.loads(RESULT.read_text("utf-8"))


def changes(objective, scale, metric):
    """Change of a metric from scale 0, in percentage points, for each data set, split and kind of heads."""
    value = {(r["data"], r["split"], r["head"], r["objective"], r["scale"]): 100 * r[metric] for r in RESULTS["runs"]}
    return [
        value[name, split, head, objective, scale] - value[name, split, head, objective, 0.0]
        for name, splits in SPLITS.items()
        for split, head in itertools.product(splits, HEADS)
    ]


def test_the_page_has_the_table():
    block = f"<!-- table: benchmarks/results/similarity_scale.json -->\n{table(RESULTS)}<!-- /table -->"
    assert block in PAGE.read_text("utf-8")


def test_all_runs_are_stored_once():
    runs = [(r["data"], r["split"], r["head"], r["objective"], r["scale"]) for r in RESULTS["runs"]]
    assert len(runs) == len(set(runs))
    assert len(runs) == sum(map(len, SPLITS.values())) * len(HEADS) * len(OBJECTIVES) * (len(SCALES) + len(RULES))


def test_the_statements_of_the_page_hold():
    for objective, scale in itertools.product(OBJECTIVES, (2.5, 5.0, 10.0)):
        assert min(changes(objective, scale, "label_map")) > 0
        assert max(changes(objective, scale, "joint_recall@1")) < 0
    for scale in (2.5, 5.0, *RULES):
        assert max(map(abs, changes("UniAlign", scale, "recall@1"))) <= 0.5
    assert round(min(changes("UniAlign", 20.0, "recall@1")), 1) == -2.5
    assert round(min(changes("InfoNCE", 5.0, "recall@1")), 1) == -3.2
    for rule, least, most, loss in (("twentieth", 1.1, 6.5, -3.1), ("half", 0.3, 1.9, -0.6)):
        gains = changes("UniAlign", rule, "label_map")
        assert (round(min(gains), 1), round(max(gains), 1)) == (least, most)
        assert round(min(changes("UniAlign", rule, "joint_recall@1")), 1) == loss
    bold = [line.split(" | ")[3:].index(next(c for c in line.split(" | ")[3:] if "**" in c)) for line in rows()]
    assert {0, SCALES.index(10.0)} <= set(bold)


def rows():
    return [line for line in table(RESULTS).splitlines() if "**" in line]
