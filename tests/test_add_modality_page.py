"""Test that the page on adding a modality shows the stored results, and what they must show."""

import json

from benchmarks import add_modality


def test_the_page_has_the_tables_of_the_results() -> None:
    results = json.loads((add_modality.RESULTS / "add_modality.json").read_text("utf-8"))
    assert add_modality.table(results) in add_modality.PAGE.read_text("utf-8")
    added = results["addition"]
    assert added["bitwise_equal"]
    assert added["files"] == ["README.md", "config.json", "model.safetensors"]
    assert added["directions"]["added"]["text->speech_es"]["mean"] >= 0.33
    assert added["chosen"] == max(added["validation_recall"], key=added["validation_recall"].get)
    replaced = results["replacement"]
    assert replaced["covered"] >= 0.9 * replaced["intervals"]
