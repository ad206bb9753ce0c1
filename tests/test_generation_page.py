"""Test that the table of generated images in the docs equals the table generated from the results."""

import json
from pathlib import Path

from benchmarks import generation
from unialign.data import load_dataset
from unialign.generation import DecoderConfig, load_decoder

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "generation.json").read_text("utf-8"))


def test_the_table_equals_the_one_made_from_the_results() -> None:
    page = (ROOT / "docs" / "how-to" / "generate.md").read_text("utf-8")
    start, end = "<!-- table: benchmarks/results/generation.json -->\n", "\n<!-- /table -->"
    written = page[page.index(start) + len(start) :]
    assert written[: written.index(end)] == generation.table(RESULTS["scores"], RESULTS["intervals"])


def test_the_results_are_of_the_shipped_data_and_recipe() -> None:
    assert RESULTS["data"]["fingerprint"] == load_dataset("emoji").fingerprint
    assert [config["seed"] for config in RESULTS["decoders"]] == [0], "the shipped decoder"
    recipe = DecoderConfig().to_dict()
    for config in RESULTS["decoders"]:
        assert {**config, "seed": 0} == recipe
    shipped = load_decoder("emoji")
    assert shipped.config == DecoderConfig()  # type: ignore[attr-defined]


def test_self_is_far_above_shuffled() -> None:
    scores = RESULTS["scores"]
    assert scores["self"]["recall@10"] > 6 * scores["shuffled"]["recall@10"]
