"""Test studies that vary one setting, end to end on a few items, and the numbers in their pages."""

import dataclasses
import itertools
import json
import math
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_cases import MODALITIES, TRAIN, base, write_store

from research import anchor, continued, divergence, load_study, missing, partition_mix, temperature, weights
from research._closed_forms import is_closed_form
from research._figures import best_arm, format_interval
from research._measures import View, measure_divergence, measure_modalities
from research._plan import DataTransform, Options, Plan
from research._read import mean_recall
from research._run import run_study
from research._transforms import transformed
from research.pages import Mark, Point, Series, lines, tiles
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.experiments import open_store
from unialign.geometry import holder_divergence, holder_upper_bound, modality_gap_debiased
from unialign.losses import create
from unialign.train import fit

COLUMNS = {
    "emoji": ("image", "drawing", "text", "keywords", "speech"),
    "digits": ("pix", "fou", "kar"),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("stores")
    return {name: write_store(folder / name, columns, name=name, dim=40) for name, columns in COLUMNS.items()}


@pytest.fixture
def tiny(tmp_path: Path) -> EmbeddingStore:
    return open_store(write_store(tmp_path / "tiny"), MODALITIES, None)


def one_trial(plan: Plan) -> Plan:
    return dataclasses.replace(plan, arms=tuple(dataclasses.replace(arm, trials=arm.trials[:1]) for arm in plan.arms))


FEWER: dict[str, dict[str, Any]] = {
    "divergence": {
        "POINTS": 3,
        "MODALITIES": {"digits": divergence.MODALITIES["digits"]},
        "_trained": lambda trained=divergence._trained: [*trained()[:2], trained()[-1]],
    },
    "partition_mix": {"BETAS": (0.0, 1.0)},
    "missing": {
        "DROPPED": (0.0, 0.6),
        "TRAINED": {name: missing.TRAINED[name] for name in ("unialign", "infonce-all", "triangle", "symile")},
    },
    "continued": {"LOSSES": {name: continued.LOSSES[name] for name in ("infonce", "balanced", "paper-stop", "gram")}},
    "anchor": {"TARGETS": {"unialign": ("image", "text", "all", "centroid"), "infonce": ("image", "text", "all")}},
    "temperature": {"TEMPERATURES": (0.05, 0.07, 0.4)},
    "weights": {"ALIGNMENT": (0.5, 1.0), "UNIFORMITY": (0.5, 1.0), "TUPLE": (0.0, 0.3)},
}


@pytest.mark.parametrize("name", FEWER)
def test_a_sweep_runs_to_its_page(
    name: str, stores: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(name)
    for variable, values in FEWER[name].items():
        monkeypatch.setattr(import_module(f"research.{name}"), variable, values)
    shortened = dataclasses.replace(study, plan=lambda options: one_trial(study.plan(options)))
    plan = study.plan(Options(study=name))
    options = Options(
        study=name,
        epochs=1,
        seeds=(0, 1) if name == "divergence" else (0,),
        resamples=max([100, *(200 * len(family.baselines) for family in plan.families)]),
        stores={data: stores[data] for data in {arm.data for arm in plan.arms}},
    )
    results = run_study(shortened, options, tmp_path / "run")
    assert not results["study"]["failed"]
    assert set(results["summary"]) == set(results["study"]["factors"])
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    sections = study.page(written)
    text = (tmp_path / "run" / "page.md").read_text()
    assert all(f"<!-- generated: {section.key} -->" in text for section in sections)
    assert "nan" not in text.lower()
    figures = {path.stem for path in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {figure.name for section in sections for figure in section.figures}
    assert figures
    if name == "missing":
        kept = written["study"]["analysis"]["kept"]
        assert kept["drop0"] == dict.fromkeys(kept["drop0"], TRAIN)
        assert kept["never-image-text"]["complete"] == kept["never-image-text"]["image-text"] == 0
        assert 0 < kept["drop60"]["at_least_two"] < TRAIN
    if name == "divergence":
        assert sum(b["evaluations"] for b in written["study"]["analysis"]["bound"]) == 5 * sum(
            len(run["evaluations"]) for run in written["runs"] if not is_closed_form(written, run["objective"])
        )
        assert all(b["violations"] == 0 for b in written["study"]["analysis"]["bound"])


# --- changes and measures -------------------------------------------------------------------------------------------


def test_no_training_item_has_both_modalities_of_a_pair(tiny: EmbeddingStore) -> None:
    """Each training item keeps one of the two modalities, chosen at random; all other data are unchanged."""
    change = DataTransform("no_overlap", {"pair": ["image", "audio"]})
    there = transformed(tiny, change, 0)
    image, audio = there.present("image"), there.present("audio")
    train = there.rows("train")
    assert not (image & audio)[train].any()
    assert (image | audio)[train].all()
    assert TRAIN / 4 < image[train].sum() < 3 * TRAIN / 4
    assert there.present("text").all()
    for split in ("val", "test"):
        assert (image & audio)[there.rows(split)].all()
    np.testing.assert_array_equal(transformed(tiny, change, 0).present("image"), image)
    assert (transformed(tiny, change, 1).present("image") != image).any()
    with pytest.raises(ConfigError, match="each of pair 'video'"):
        transformed(tiny, DataTransform("no_overlap", {"pair": ["image", "video"]}), 0)


@pytest.mark.parametrize("objective", missing.COMPLETE_ONLY)
@pytest.mark.parametrize(
    "change",
    [DataTransform("drop_entries", {"fraction": 0.6}), DataTransform("no_overlap", {"pair": ["image", "audio"]})],
    ids=["dropped", "never"],
)
def test_objectives_of_complete_items_skip_batches_without_any(
    tiny: EmbeddingStore, objective: str, change: DataTransform
) -> None:
    """The loss of a batch without complete items is 0 and has finite gradients."""
    options = {"anchor": "text"} if objective == "triangle" else {}
    config = base(objective, 2, objective_options=options, batch_size=6)
    result = fit(transformed(tiny, change, 0), config, progress="none")
    assert all(math.isfinite(record["loss"]) for record in result.history)
    if change.name == "no_overlap":
        assert {record["loss"] for record in result.history} == {0.0}
    assert all(bool(torch.isfinite(p).all()) for p in result.space.parameters())


def test_measured_divergences_equal_those_of_geometry() -> None:
    """The test has missing rows, and an anchor that is not the first modality."""
    generator = torch.Generator().manual_seed(0)
    embeddings = {
        m: torch.nn.functional.normalize(torch.randn(9, 4, generator=generator), dim=1)
        for m in ("image", "text", "audio")
    }
    present = {m: torch.ones(9, dtype=torch.bool) for m in embeddings}
    present["audio"][:2] = False
    view = View(embeddings, present, torch.arange(9))
    found: dict[str, Any] = measure_divergence(view, anchor="text", bandwidths=[0.8, "median"])
    at = {"bandwidth": 0.8, "present": present}
    plugin = holder_divergence(embeddings, estimator="plugin", reference="text", **at)
    assert found["divergence/plugin@0.8"] == pytest.approx(float(plugin), rel=1e-9)
    for estimator in ("plugin_avg", "pooled", "debiased"):
        value = holder_divergence(embeddings, estimator=estimator, **at)
        assert found[f"divergence/{estimator}@0.8"] == pytest.approx(float(value), rel=1e-9)
    bound = holder_upper_bound(embeddings, bandwidth=0.8, anchor="text", present=present)
    assert found["divergence/bound@0.8"] == pytest.approx(float(bound), rel=1e-9)
    assert found["divergence/bound@0.8"] > found["divergence/plugin@0.8"]
    assert "divergence/exact@0.8" not in found
    gaps = [
        float(modality_gap_debiased(embeddings[m][present[m] & present[n]], embeddings[n][present[m] & present[n]]))
        for m, n in itertools.combinations(embeddings, 2)
    ]
    assert found["divergence/gap_debiased"] == pytest.approx(sum(gaps) / 3)
    assert 0 <= found["divergence/recall@1"] <= 1
    ranks = measure_modalities(view)
    assert set(ranks) == {f"modality/{m}/effective_rank" for m in embeddings}
    assert all(1 <= float(rank) <= 4 for rank in ranks.values())


# --- plans ----------------------------------------------------------------------------------------------------------


def test_mix_begins_with_infonce_and_ends_with_unialign() -> None:
    arms = {arm.key: arm for arm in partition_mix.plan(Options(study="partition_mix")).arms}
    generator = torch.Generator().manual_seed(0)
    embeddings = {m: torch.randn(6, 5, generator=generator) for m in partition_mix.MODALITIES}

    def loss(key: str) -> float:
        train = arms[key].train
        return float(create(train.objective, **train.objective_options)(embeddings).total)

    for target in partition_mix.ANCHORS:
        assert loss(f"{target}-w1-beta0") == pytest.approx(loss(f"infonce-{target}"), abs=1e-4)
        plain = create("unialign", anchor=target)(embeddings).total
        assert loss(f"{target}-w1-beta1") == pytest.approx(float(plain), rel=1e-6)


def test_continued_runs_begin_with_the_same_space_and_learn_slowly() -> None:
    parent, *others = continued.plan(Options(study="continued")).arms
    closed = [arm for arm in others if "closed_form" in arm.factors]
    assert all(arm.init_from is None for arm in closed)
    others = [arm for arm in others if "closed_form" not in arm.factors]
    assert parent.init_from is None
    assert {arm.init_from for arm in others} == {parent.key}
    shares = {round(arm.train.lr / parent.train.lr, 6) for arm in others}
    assert shares == set(continued.RATES.values())
    assert all(arm.train.infonce_warmup_ratio == 0 for arm in others)
    held = [arm for arm in others if arm.train.objective_options.get("stop_gradient") == "anchor"]
    assert len(held) == 4


def test_sweeps_vary_one_setting() -> None:
    """The arms of a family differ only in the varied setting."""
    for module, swept in (
        (temperature, {"temperature"}),
        (partition_mix, {"partition_mix"}),
        (anchor, {"anchor"}),
        (weights, {"alignment_weight", "uniformity_weight"}),
    ):
        plan = module.STUDY.plan(Options(study=module.STUDY.name))
        for family in plan.families:
            if family.name.startswith(("same-", "closed-")) or family.name == "tuple":
                continue
            first = plan.arm(family.first).train.to_dict()
            for baseline in family.baselines:
                other = plan.arm(baseline).train.to_dict()
                differ = {k for k in first if first[k] != other[k]}
                assert differ == {"objective_options"}
                options, theirs = first["objective_options"], other["objective_options"]
                assert {k for k in options | theirs if options.get(k) != theirs.get(k)} <= swept


# --- numbers of pages -----------------------------------------------------------------------------------------------


def _results(**runs: list[dict[str, float]]) -> dict[str, Any]:
    """Return results that contain only R@1 by direction; `runs` maps each arm to one mapping per seed."""
    return {
        "runs": [
            {"objective": arm, "directions": {name: {"recall@1": v} for name, v in seed.items()}, "evaluations": []}
            for arm, seeds in runs.items()
            for seed in seeds
        ],
        "summary": {arm: {} for arm in runs},
        "study": {"factors": {arm: {"objective": "unialign", "anchor": arm.split("-")[1]} for arm in runs}},
    }


def test_recall_with_and_without_the_anchor() -> None:
    every = list(itertools.permutations(anchor.MODALITIES, 2))
    values = {f"{q}->{a}": 0.8 if "text" in (q, a) else 0.2 for q, a in every}
    values["image->speech"] = 0.1
    values["image+drawing->text"] = 1.0
    results = _results(**{"unialign-text": [values, values], "unialign-all": [values]})
    found = anchor.analyse(results)
    assert found["unialign-text"]["with"] == pytest.approx([0.8, 0.8])
    assert found["unialign-text"]["without"] == pytest.approx([(11 * 0.2 + 0.1) / 12] * 2)
    assert found["unialign-text"]["worst"] == [0.1, 0.1]
    assert found["unialign-text"]["worst_direction"] == "image->speech"
    assert found["unialign-text"]["spread"] == pytest.approx([0.8 - (2 * 0.8 + 5 * 0.2 + 0.1) / 8] * 2)
    assert "with" not in found["unialign-all"]
    assert math.isnan(mean_recall(results, "unialign-all", [("image", "video")])[0])


def test_a_bound_below_its_value_counts_as_violated_unless_by_rounding() -> None:
    evaluations = [
        {"divergence/plugin@1": 1.0, "divergence/bound@1": bound, "divergence/mean_log@1": 0.5}
        for bound in (2.0, 0.9, 1.0 - 1e-8)
    ]
    results: dict[str, Any] = {
        "summary": {"emoji-unialign": {}},
        "study": {"factors": {"emoji-unialign": {"data": "emoji"}}},
        "runs": [{"objective": "emoji-unialign", "evaluations": evaluations}],
    }
    found = divergence._bound(results, "emoji", "1")
    assert (found["evaluations"], found["violations"], found["violations_mean_log"]) == (3, 1, 3)
    assert found["slack_smallest"] == pytest.approx(-0.1)


def test_best_is_the_smallest_where_smaller_is_better() -> None:
    results: dict[str, Any] = {
        "metrics": {"recall@1": {"higher_is_better": True}, "gap": {"higher_is_better": False}},
        "summary": {
            "a": {"recall@1": {"mean": 0.1}, "gap": {"mean": 0.1}},
            "b": {"recall@1": {"mean": 0.2}, "gap": {"mean": 0.2}},
        },
    }
    assert best_arm(results, ["a", "b", "failed"], "recall@1") == "b"
    assert best_arm(results, ["a", "b", "failed"], "gap") == "a"
    assert best_arm(results, ["failed"], "gap") is None


def test_intervals_are_formatted() -> None:
    assert format_interval({"mean": -0.5, "low": -0.75, "high": 0.25}, decimals=2) == "−0.50 [−0.75, 0.25]"
    assert format_interval({"mean": 0.5, "low": None, "high": None}, scale=100, decimals=1) == "50.0"
    assert format_interval({"mean": None, "low": None, "high": None}) == "–"


def test_tiles_and_named_ticks() -> None:
    panel = tiles(
        "R@1", ["a", "b"], ["x", "y"], [[1.0, 2.0], [math.nan, 4.0]], write=lambda v: f"{v:.1f}", row_label="r"
    )
    assert panel.body.count("<rect") == 3
    assert panel.alternative == "R@1: from 1.0 to 4.0"
    assert 'fill-opacity="0.06"' in panel.body
    assert 'fill-opacity="0.96"' in panel.body
    assert tiles("none", ["a"], ["x"], [[math.nan]]).alternative == "none: no values"
    drawn = lines(
        "t", [Series(Mark("m", 0), [Point(0, 1.0), Point(1, 2.0)])], x_label="x", x_ticks={0: "low", 1: "high"}
    )
    assert ">low<" in drawn.body
    assert ">high<" in drawn.body
