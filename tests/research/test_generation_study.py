"""Test the generation study with three arms and small decoders, and its choice of a weight."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research import _generation_page, generation, load_study
from research._image_bench import CONTROLS
from research._plan import Options, Plan, Study
from research._run import answer_lines, make_plan, run_study
from research.generation import analyse
from unialign.data import EmbeddingStore, load_dataset
from unialign.errors import ConfigError
from unialign.generation import FlowDecoder

pytest.importorskip("PIL")

ARMS = ("unialign-u0", "unialign-u0.1", "infonce")
SOURCES = ("text", "drawing", "text+speech")
DECODER_SEEDS = (0, 1)


@pytest.fixture(scope="module", autouse=True)
def _fewer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (generation, _generation_page):
            patch.setattr(module, "SOURCES", SOURCES)
            patch.setattr(module, "DECODER_SEEDS", DECODER_SEEDS)
        yield


def shortened() -> Study:
    study = load_study("generation")

    def plan(options: Options) -> Plan:
        whole = study.plan(options)
        return dataclasses.replace(
            whole,
            arms=tuple(arm for arm in whole.arms if arm.key in ARMS),
            comparisons=tuple(c for c in whole.comparisons if c.first in ARMS and c.baseline in ARMS),
        )

    return dataclasses.replace(study, plan=plan)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    emoji = load_dataset("emoji").select(generation.MODALITIES)
    rows = np.arange(0, emoji.items, 5)
    content = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(emoji.asset("thumbnails.zip"))) as whole, zipfile.ZipFile(content, "w") as part:
        for i, row in enumerate(rows):
            part.writestr(f"image/{i}.webp", whole.read(f"image/{row}.webp"))
    folder = tmp_path_factory.mktemp("data") / "emoji"
    EmbeddingStore.write(
        folder,
        {name: emoji.array(name)[rows] for name in emoji.modalities},
        present={name: emoji.present(name)[rows] for name in emoji.modalities},
        groups=emoji.groups[rows],
        labels=emoji.labels[rows],
        label_names=emoji.label_names,
        split=emoji.split[rows],
        assets={"thumbnails.zip": content.getvalue()},
    )
    return Options(study="generation", epochs=1, seeds=(0,), resamples=100, stores={"emoji": str(folder)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, options: Options) -> Path:
    folder = tmp_path_factory.mktemp("study") / "run"
    run_study(shortened(), options, folder)
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_every_arm_has_scores_of_every_source_and_one_has_the_controls(results: dict[str, Any]) -> None:
    assert set(results["summary"]) == set(ARMS)
    for run in results["runs"]:
        metrics = run["metrics"]
        for source in SOURCES:
            assert 0 <= metrics[f"images/{source}/recall@10"] <= 1
            assert metrics[f"images/{source}/fd"] > 0
        assert "val/recall@1" in metrics
        assert "val/text/fd" in metrics
        measured = {name.split("/")[1] for name in metrics if name.startswith("images/")}
        assert measured == set(SOURCES) | (set(CONTROLS) if run["objective"] == "infonce" else set())
    for arm in ARMS:
        found = results["summary"][arm]["images/text/fd"]
        assert found["low"] <= found["mean"] <= found["high"]


def test_comparisons_are_paired_ratios_and_differences(results: dict[str, Any]) -> None:
    means = {run["objective"]: run["metrics"] for run in results["runs"]}
    comparisons = results["study"]["comparisons"]
    assert {c["first"] for c in comparisons} == {"unialign-u0", "unialign-u0.1"}
    for c in comparisons:
        first, baseline = (means[c[side]][c["metric"]] for side in ("first", "baseline"))
        expected = first / baseline if c["kind"] == "ratio" else first - baseline
        assert c["value"] == pytest.approx(expected, abs=1e-5)
        assert c["low"] <= c["high"]


def test_decoders_are_trained_once(folder: Path, options: Options) -> None:
    seeds = {
        FlowDecoder.from_pretrained(folder / "decoders" / f"seed-{s}" / "decoder").config.seed for s in DECODER_SEEDS
    }
    assert seeds == set(DECODER_SEEDS)
    weights = folder / "decoders" / "seed-1" / "decoder" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = run_study(shortened(), options, folder)
    assert weights.stat().st_mtime_ns == before
    assert again["runs"] == json.loads((folder / "results.json").read_text())["runs"]


def test_decoders_of_other_settings_raise(folder: Path, options: Options, tmp_path: Path) -> None:
    from research._image_scores import _decoder

    with pytest.raises(ConfigError, match="differ from those of the study; delete"):
        _decoder(folder, {"steps": 77}, 0)


def test_page_and_terminal_summary(folder: Path, results: dict[str, Any]) -> None:
    text = (folder / "page.md").read_text()
    for source in SOURCES:
        assert f"| {source} -> image |" in text
    for name, meaning in CONTROLS.items():
        assert f"{name}: {meaning}" in text
    assert "alignment only" in text
    assert (folder / "figures" / "generation-front.svg").exists()
    assert any("Rank correlation" in line for line in answer_lines(shortened(), results))


def synthetic_results(validation: dict[str, tuple[float, float]]) -> dict[str, Any]:
    """Return study results with only the given validation scores."""
    runs = [
        {"objective": arm, "metrics": {"val/recall@1": recall, "val/text/fd": fd, "val/drawing/fd": fd}}
        for arm, (recall, fd) in validation.items()
    ]
    return {"runs": runs, "summary": {arm: {} for arm in validation}, "study": {"factors": dict.fromkeys(validation)}}


def test_the_weight_is_chosen_on_validation_among_those_that_keep_retrieval() -> None:
    arms = {
        "infonce": (0.20, 30.0),
        "unialign-u0": (0.15, 20.0),
        "unialign-u0.1": (0.195, 25.0),
        "unialign-u1": (0.21, 31.0),
    }
    assert analyse(synthetic_results(arms))["chosen"] == "unialign-u0.1"
    arms["unialign-u0"] = (0.191, 20.0)
    assert analyse(synthetic_results(arms))["chosen"] == "unialign-u0"
    assert analyse(synthetic_results({"infonce": (0.9, 1.0), "unialign-u1": (0.1, 1.0)}))["chosen"] is None


def test_every_arm_freezes_the_anchor_and_is_evaluated_once() -> None:
    plan, _, _ = make_plan(load_study("generation"), Options(study="generation"))
    for arm in plan.arms:
        assert arm.train.frozen == {"image": "whiten"}
        assert arm.train.objective_options.get("anchor", "image") == "image"
        assert arm.eval_hook is not None
        assert arm.eval_hook.steps(90) == [90]
        assert arm.eval_hook.arguments["extractor"] == "lite2"
    assert sum(arm.eval_hook.arguments["controls"] == "yes" for arm in plan.arms if arm.eval_hook) == 1
