"""Test the stored error rates of diagnoses, and the table of the guide."""

import json

from benchmarks.diagnosis import PAGE, RESULT, SERIOUS, SIZES, table

RESULTS = json.loads(RESULT.read_text("utf-8"))


def test_the_guide_has_the_table():
    block = f"<!-- table: benchmarks/results/diagnosis.json -->\n{table(RESULTS)}<!-- /table -->"
    assert block in PAGE.read_text("utf-8")


def test_healthy_spaces_have_few_findings():
    for key, kind in (("spaces", "healthy"), ("large_spaces", "large")):
        spaces, (low, high) = RESULTS[key], SIZES[kind].items
        assert all(low <= space["items"] <= high for space in spaces)
        assert {space["modalities"] for space in spaces} <= set(SIZES[kind].modalities)
        serious = [code for space in spaces for code, severity in space["reported"].items() if severity in SERIOUS]
        assert len(serious) <= 0.05 * len(spaces)
        assert not set(serious) & set(RESULTS["findings"])
