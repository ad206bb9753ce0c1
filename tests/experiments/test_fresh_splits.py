"""Test the stored results of the recipe on new splits, and the splits themselves."""

import json

import numpy as np
import pytest

from benchmarks.fresh_splits import DATA, LARGEST_GROUP, PAGE, RESULT, SPLITS, new_split, resplit, table
from unialign.data import load_dataset

RESULTS = json.loads(RESULT.read_text("utf-8"))


@pytest.mark.parametrize("name", DATA)
def test_a_new_split_keeps_groups_together_and_the_numbers_of_each_label(name):
    store = load_dataset(name)
    split = new_split(store, 1)
    for code in (0, 1, 2):
        others = set(store.groups[split != code])
        assert not others & set(store.groups[split == code])
    sizes = {group: int((store.groups == group).sum()) for group in set(store.groups[split > 0])}
    assert max(sizes.values()) <= LARGEST_GROUP
    for label in np.unique(store.labels):
        for code in (1, 2):
            own = store.labels == label
            assert abs(int((split[own] == code).sum()) - int((store.split[own] == code).sum())) <= LARGEST_GROUP
    assert (split != new_split(store, 2)).mean() > 0.1
    assert (split != store.split).mean() > 0.1


def test_every_split_is_one_of_the_shipped_data():
    found = {(one["data"], one["split_seed"]): one for one in RESULTS["splits"]}
    assert set(found) == {(name, seed) for name in DATA for seed in SPLITS}
    for (name, seed), one in found.items():
        store = resplit(load_dataset(name), seed)
        assert one["fingerprint"] == store.fingerprint
        assert one["items"] == {split: len(store.rows(split)) for split in ("train", "val", "test")}


def test_settings_and_the_best_entry_are_chosen_on_the_validation_rows():
    for one in RESULTS["splits"]:
        assert {len(trials) for trials in one["trials"].values()} == {RESULTS["protocol"]["trials"]}
        for objective, trials in one["trials"].items():
            best = max(trials, key=lambda trial: trial["recall@1"])
            assert one["chosen"][objective] == best["settings"]
            assert one["validation_recall@1"][objective] == best["recall@1"]
        trained = {name: one["validation_recall@1"][name] for name in one["trials"]}
        assert one["best_trained"] == max(trained, key=trained.__getitem__)
    assert not set(RESULTS["protocol"]["seeds"]) & set(RESULTS["protocol"]["tuning_seeds"])


def test_the_page_has_the_table():
    assert f"<!-- table: benchmarks/results/fresh_splits.json -->\n{table(RESULTS)}<!-- /table -->" in PAGE.read_text(
        "utf-8"
    )
