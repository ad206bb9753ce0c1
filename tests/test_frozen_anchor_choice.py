"""Test the choice of settings with a frozen anchor, and that the preset, the study and the shipped space follow it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import unialign_datasets

import unialign as ua
from benchmarks import by_eye, frozen_anchor
from benchmarks.frozen_anchor import SEEDS, TRIALS, chosen, redrawn
from research.frozen_anchor import CHOSEN, UNIALIGN
from unialign.data import EmbeddingStore, load_dataset
from unialign.generation import load_space
from unialign.losses import PRESETS

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads(frozen_anchor.RESULT.read_text("utf-8"))


@pytest.fixture(scope="module")
def emoji() -> EmbeddingStore:
    return load_dataset("emoji").select((frozen_anchor.ANCHOR, *frozen_anchor.SOURCES))


@pytest.fixture(scope="module")
def drawn(emoji: EmbeddingStore) -> dict[int, EmbeddingStore]:
    return {seed: redrawn(emoji, seed) for seed in (1, 2)}


def test_redrawn_splits_hold_no_test_row_and_keep_groups_together(
    emoji: EmbeddingStore, drawn: dict[int, EmbeddingStore]
) -> None:
    known = np.concatenate([emoji.rows("train"), emoji.rows("val")])
    test = {row.tobytes() for row in emoji.array("image")[emoji.rows("test")]}
    for store in drawn.values():
        assert store.items == len(known)
        assert len(store.rows("val")) == len(emoji.rows("val"))
        assert len(store.rows("test")) == 0
        assert not test & {row.tobytes() for row in store.array("image")}
        assert not set(store.groups[store.rows("train")]) & set(store.groups[store.rows("val")])
    assert drawn[1].split.tolist() != drawn[2].split.tolist()
    assert redrawn(emoji, 1).fingerprint == drawn[1].fingerprint


def runs_of(values: dict[str, tuple[float, float]], noise: float = 0.0) -> list[dict[str, Any]]:
    """Runs of trials with the given R@1 and FD. The R@1 of all but the best trial varies over the splits by `noise`."""
    best = max(values, key=lambda trial: values[trial][0])
    shifts = dict(zip(SEEDS, (-1, -1, 0, 1, 1), strict=True))
    return [
        {
            "trial": trial,
            "split": split,
            "seed": seed,
            "metrics": {
                "recall@1": recall + (0.0 if trial == best else noise * shifts[split]),
                **({} if split else {"text/fd": fd, "drawing/fd": fd}),
            },
        }
        for trial, (recall, fd) in values.items()
        for split, seeds in SEEDS.items()
        for seed in seeds
    ]


@pytest.mark.parametrize(("error", "expected"), [(0.0, 0), (0.015, 1), (0.025, 2), (0.1, 4)])
def test_the_smallest_distance_is_chosen_among_settings_that_keep_retrieval(error: float, expected: int) -> None:
    names = list(TRIALS[UNIALIGN])
    values = dict(zip(names, [(0.25, 30.0), (0.24, 20.0), (0.23, 15.0), (0.22, 10.0), (0.21, 5.0)], strict=True))
    # The standard deviation of the shifts is 1, so the standard error is noise / sqrt(5).
    assert chosen(runs_of(values, noise=error * 5**0.5), UNIALIGN) == names[expected]


def test_budgets_are_equal_and_every_setting_was_trained_on_every_split() -> None:
    assert {len(trials) for trials in TRIALS.values()} == {5}
    wanted = {
        (trial, split, seed)
        for trials in TRIALS.values()
        for trial in trials
        for split, seeds in SEEDS.items()
        for seed in seeds
    }
    assert {(run["trial"], run["split"], run["seed"]) for run in RESULTS["runs"]} == wanted
    assert len(RESULTS["runs"]) == len(wanted)
    assert RESULTS["data"]["fingerprint"] == load_dataset("emoji").fingerprint


def test_the_table_and_the_choice_equal_those_made_from_the_results() -> None:
    assert frozen_anchor.table(RESULTS) in frozen_anchor.PAGE.read_text("utf-8")
    assert RESULTS["chosen"] == {objective: chosen(RESULTS["runs"], objective) for objective in TRIALS}


def test_the_preset_the_study_and_the_shipped_space_have_the_chosen_settings() -> None:
    for objective, trial in RESULTS["chosen"].items():
        settings = {key.removeprefix("objective_options."): value for key, value in TRIALS[objective][trial].items()}
        assert CHOSEN[objective] == settings
    weight = CHOSEN[UNIALIGN]["alignment_weight"]
    assert PRESETS["frozen_anchor"]["alignment_weight"] == weight
    assert ua.losses.UniAlign(anchor="image", preset="frozen_anchor").alignment_weight == weight
    training = load_space("emoji").metadata["training"]
    assert training["objective_options"] == {"anchor": "image", "preset": "frozen_anchor", "alignment_weight": weight}


def test_the_graded_concepts_are_the_random_ones_and_the_table_counts_them() -> None:
    results = json.loads(by_eye.RESULT.read_text("utf-8"))
    store = load_dataset("emoji")
    rows = by_eye.random_rows(store)
    assert [item["row"] for item in results["items"]] == rows.tolist()
    assert [item["name"] for item in results["items"]] == [store.item_names[row] for row in rows]
    assert set(store.rows("test")) >= set(rows)
    for source in by_eye.SOURCES:
        assert sum(by_eye.share(results, source, grade) for grade in by_eye.GRADES) == pytest.approx(1)
    assert by_eye.table(results) in by_eye.PAGE.read_text("utf-8")
    models = Path(unialign_datasets.__file__).parent / "models" / "emoji"
    for part in ("space", "decoder"):
        shipped = json.loads((models / part / "config.json").read_text("utf-8"))
        assert results[part] == shipped["weights"], f"grade the images of the current {part}"
