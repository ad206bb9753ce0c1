"""Test the stored measurements of repairs, and the table of the guide."""

import json
from typing import Any

from benchmarks.repair import PAGE, RESULT, table


def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text("utf-8"))
    return found


def test_the_guide_shows_the_stored_table() -> None:
    block = f"<!-- table: benchmarks/results/repair.json -->\n{table(results())}<!-- /table -->"
    assert block in PAGE.read_text("utf-8")


def test_spaces_without_a_gap_lose_at_most_half_a_point() -> None:
    healthy = [space for space in results()["spaces"] if space["kind"] == "healthy"]
    assert len(healthy) >= 11
    for space in healthy:
        for found in space["fit_items"].values():
            assert min(found[key]["gain"] for key in ("choice", "index_choice")) >= -0.005, space["name"]


def test_planted_gaps_are_removed() -> None:
    spaces = {space["name"]: space for space in results()["spaces"]}
    planted = [space for space in spaces.values() if space["kind"] == "planted"]
    assert planted
    for space in planted:
        level = spaces[space["name"].rpartition(",")[0]]["fit_items"]["400"]["methods"]["none"]["balanced"]
        assert space["fit_items"]["400"]["choice"]["balanced"] >= 0.95 * level
