"""Test that the page "Scale" equals the one made from its results, and that its model of costs equals counts."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.scale import billion
from benchmarks.scale.count import count_step
from benchmarks.scale.encoders import IMAGE, TEXT, Transformer
from benchmarks.scale.measure import SETTINGS, measure_here
from benchmarks.scale.model import costs
from benchmarks.scale.objectives import OBJECTIVES
from benchmarks.scale.page import FULL, deviations, inputs, page
from benchmarks.scale.parts import Setting
from unialign import losses

ROOT = Path(__file__).resolve().parent.parent
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text("utf-8"))
LARGE = Setting(3, 2**17, 512, 64, "gpu", width=768)


def test_the_page_equals_the_one_made_from_the_results() -> None:
    """If this test fails, run `python -m benchmarks.scale table` to update the page."""
    there = (ROOT / "docs" / "scale.md").read_text("utf-8")
    assert page(RESULTS, inputs(), there) == there


def test_the_stored_counts_agree_with_the_model() -> None:
    found = deviations(RESULTS)
    assert set(found) == set(OBJECTIVES)
    for name, row in found.items():
        assert row["messages"] == 1, name
        assert row["sent"] == 0, name
        assert row["flops"] < 0.005, name
        assert row["kept"] < 0.03, name
        assert row["peak"] < 0.07, name
    counted = {(c["modalities"], c["items"], c["dim"], c["processes"], c["width"]) for c in RESULTS["cases"]}
    assert counted == {(s.modalities, s.items, s.dim, s.processes, s.width) for s in SETTINGS}


@pytest.mark.parametrize("name", ["unialign-all", "infonce-all", "joint_queries", "gram", "align_uniform"])
def test_counts_on_one_process_equal_the_model(name: str) -> None:
    """The stored counts may be those of an earlier version; these are not."""
    s = Setting(3, 2100, 16, width=8)
    (found,) = measure_here(s, names=(name,))
    model = costs(OBJECTIVES[name], s)
    assert found["forward"] == pytest.approx(model.forward, rel=0.02)
    assert found["backward"] == pytest.approx(model.backward, rel=0.02)
    assert found["kept"] == pytest.approx(model.kept, rel=0.1)
    assert found["sent"] == []


def test_every_objective_has_a_model() -> None:
    modeled = {objective.create[0] for objective in OBJECTIVES.values()}
    assert modeled == set(losses.names())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_work_is_shared_between_processes_or_done_by_all(name: str) -> None:
    """Twice the processes halve the work of each, except for tuples, and never change the memory of the rows."""
    one, two = (costs(OBJECTIVES[name], replace(LARGE, processes=processes)) for processes in (64, 128))
    assert two.flops == pytest.approx(one.flops if name in FULL else one.flops / 2, rel=0.02)
    assert (one.peak or 0) > one.kept > 4 * LARGE.modalities * LARGE.items * LARGE.dim
    assert 0.85 * (one.peak or 0) < (two.peak or 0) < (one.peak or 0)


def test_products_and_living_tensors_are_counted() -> None:
    x = torch.ones(32, 8)
    counts = count_step({"x": x}, lambda z: (z["x"] @ z["x"].mT).sum())
    product = 2 * 32 * 32 * 8
    assert (counts.forward, counts.backward) == (product, 2 * product)
    assert counts.kept == x.nbytes + 4  # the product itself is not kept, its sum is
    assert counts.peak == counts.kept + 4 * 32 * 32


def test_the_formula_of_a_transformer() -> None:
    """Published: 17.6 and 2.95 billion multiply-adds, of which the second is without attention matrices."""
    assert IMAGE.flops() / 2e9 == pytest.approx(17.6, rel=0.01)
    assert TEXT.flops() / 2e9 == pytest.approx(2.95, rel=0.03)
    measured = RESULTS["transformer"]
    layer = Transformer(measured["layers"], measured["width"], measured["tokens"])
    assert layer.flops() == pytest.approx(measured["flops"], rel=0.01)


def test_constants_of_a_billion_items_are_read_from_other_results() -> None:
    c = billion.constants({**inputs(), "scale": RESULTS})
    assert 0.5 < c.embed_share <= 1
    assert c.links == pytest.approx(4 * 2 * 32, rel=0.1)  # 64 neighbors of 4 bytes, and upper layers
    assert billion.store_bytes(2, 256, "float16") == 2 * (512 + 1) + 16
    exact, _, graph, _ = billion.options(1e9, 256, c)
    assert exact.query is not None
    assert graph.query is not None
    assert exact.query > 1e4 * graph.query
    assert graph.memory > exact.memory
