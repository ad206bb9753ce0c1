"""Test that the page on missing entries shows the stored results of the closed forms."""

import json

from benchmarks.closed_forms_missing import FORMS, PAGE, RESULT, SEEDS, STUDY, table, trained_runs, values
from research.missing import conditions
from unialign.data import load_dataset

RESULTS = json.loads(RESULT.read_text("utf-8"))


def test_the_page_shows_the_stored_table() -> None:
    block = (
        f"<!-- table: benchmarks/results/closed_forms_missing.json -->\n{table(RESULTS, trained_runs())}<!-- /table -->"
    )
    assert block in PAGE.read_text("utf-8")


def test_every_form_is_measured_on_the_data_of_the_study() -> None:
    found = {(run["form"], run["condition"], run["seed"]) for run in RESULTS["runs"]}
    assert found == {(form, condition, seed) for form in FORMS for condition in conditions() for seed in SEEDS}
    study = json.loads(STUDY.read_text("utf-8"))["study"]
    assert study["options"]["seeds"] == list(SEEDS)
    assert study["options"]["fingerprints"]["emoji"] == load_dataset("emoji").fingerprint


def test_closed_forms_retrieve_less_with_more_missing_entries() -> None:
    for form in FORMS:
        means = [sum(values(RESULTS["runs"], form, f"drop{x}", "recall@1")) / len(SEEDS) for x in (0, 30, 60, 90)]
        assert means == sorted(means, reverse=True)
