"""Test the page, implementations, reference values and limits of the benchmark of speed and memory."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.speed.cases import SIZES, Case, Limits, cases, growth, out_of_reach
from benchmarks.speed.exact import exact, tangent
from benchmarks.speed.implementations import IMPLEMENTATIONS, Implementation
from benchmarks.speed.inputs import draw
from benchmarks.speed.measure import in_process, measure
from benchmarks.speed.page import page
from benchmarks.speed.peers import COMPARISONS, why_slower
from benchmarks.speed.requirements import judge

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
HERE = [c for c in IMPLEMENTATIONS if not c.packages and not c.compiled]


def test_every_loss_that_is_slower_than_a_peer_has_a_reason() -> None:
    rows = json.loads(RESULTS.read_text("utf-8"))["peers"]
    for comparison in COMPARISONS:
        for items in (64, 128, 256, 512, 1024):
            row = rows[f"{comparison.key}/{items}"]
            assert row["status"] == "measured"
            assert row["ratio"] <= 1 or why_slower(items) != "not known"


def test_the_page_equals_the_one_made_from_the_results() -> None:
    """If this test fails, run `python -m benchmarks.speed --page` to update the page."""
    there = (ROOT / "docs" / "reference" / "speed.md").read_text("utf-8")
    results, retrieval = (
        json.loads((RESULTS.parent / f"{name}.json").read_text("utf-8")) for name in ("speed", "retrieval")
    )
    assert page(results, retrieval, there) == there


@pytest.mark.parametrize("implementation", HERE, ids=lambda c: f"{c.loss}-{c.name}")
def test_implementations_compute_their_formula(implementation: Implementation) -> None:
    """Values and tangential gradients are compared in float64, so that only wrong formulas cause differences."""
    rows = draw(implementation.modalities, 24, 8)
    value, gradients = exact(implementation.loss, rows)
    leaves = [torch.nn.functional.normalize(z.detach().double(), dim=-1).requires_grad_() for z in rows]
    found = implementation.make()(*leaves)
    assert found.item() == pytest.approx(value, rel=1e-12)
    for z, got, expected in zip(leaves, torch.autograd.grad(found, leaves), gradients, strict=True):
        torch.testing.assert_close(tangent(z.detach(), got), expected, rtol=1e-9, atol=1e-12)


def test_exact_values_do_not_depend_on_the_chunk_size() -> None:
    """600 rows give two chunks, and the logarithm is applied to the sum over both chunks."""
    rows = draw(1, 600, 4)
    value, (gradient_BD,) = exact("uniformity/outer_log", rows)
    z_BD = torch.nn.functional.normalize(rows[0].detach().double(), dim=-1).requires_grad_()
    off_BB = ~torch.eye(600, dtype=torch.bool)
    whole = (4 * (z_BD @ z_BD.mT - 1)[off_BB]).exp().mean().log()
    (expected_BD,) = torch.autograd.grad(whole, z_BD)
    assert value == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(gradient_BD, tangent(z_BD.detach(), expected_BD), rtol=1e-9, atol=1e-15)


def test_a_measurement_has_all_its_numbers() -> None:
    implementation = next(c for c in HERE if (c.loss, c.name) == ("infonce", "torch"))
    row = measure(implementation.make, modalities=2, items=16, dim=4, threads=torch.get_num_threads(), in_double=True)
    assert row["status"] == "measured"
    assert row["cpu_seconds"]["best"] <= row["cpu_seconds"]["median"]
    assert row["bytes_kept"] >= row["memory"]["inputs"] == 2 * 16 * 4 * 4
    assert row["error"]["value"] < 1e-5
    assert row["error"]["gradient"] < 1e-4


def test_slow_and_failing_cases_are_reported() -> None:
    def slow() -> dict[str, Any]:
        threading_wait(30)
        return {"status": "measured"}

    def broken() -> dict[str, Any]:
        raise ImportError("no", name="nowhere")

    assert in_process(slow, seconds=0.2, gigabytes=16)["status"] == "time"
    assert in_process(broken, seconds=30, gigabytes=16) == {"status": "absent", "reason": "not installed: nowhere"}


def threading_wait(seconds: float) -> None:
    import threading

    threading.Event().wait(seconds)


def test_growth_is_the_exponent() -> None:
    assert growth([(x, 3 * x**2) for x in (2, 3, 4, 6)]) == pytest.approx(2)
    assert growth([(256, 1.0)]) is None


def test_only_selected_cases_are_run() -> None:
    chosen = cases(names=["infonce"], only=["objectives"], sizes=[256, 1024], modalities=[2, 6])
    assert [(c.modalities, c.items) for c in chosen] == [(2, 256), (2, 1024), (6, 256), (6, 1024)]
    assert {c.group for c in cases(names=[], only=["uniformity"], sizes=None, modalities=None)} == {
        "uniformity/outer_log",
        "uniformity/mean_log",
    }
    assert {c.modalities for c in cases(names=["triangle"], only=["objectives"], sizes=None, modalities=None)} == {3}


def test_cases_beyond_the_limits_are_skipped_with_a_reason() -> None:
    case = Case("infonce", "torch", 2, 65536, 512)
    small = {
        "items": 16384,
        "status": "measured",
        "cpu_seconds": {"best": 1.0},
        "memory": {"peak": 4 * 10**9, "inputs": 64 * 10**6},
        "bytes_kept": 2 * 10**9,
    }
    skipped = out_of_reach(case, {f"{case.series}/16384": small}, Limits(), seconds=300)
    assert skipped is not None
    assert skipped["status"] == "memory"
    slow = small | {"cpu_seconds": {"best": 60.0}}
    skipped = out_of_reach(case, {f"{case.series}/16384": slow}, Limits(), seconds=300)
    assert skipped is not None
    assert skipped["status"] == "time"
    assert out_of_reach(case, {}, Limits(), seconds=300) is None


def test_requirements_are_checked_against_the_numbers() -> None:
    results: dict[str, Any] = {"cases": {}}
    assert {v.state for v in judge(results)} == {"NOT RUN"}
    for group, m in (("uniformity/outer_log", 1), ("uniformity/mean_log", 1), ("infonce", 2)):
        for name, seconds in (("unialign", 1.0), ("torch", 3.0)):
            for size in SIZES:
                results["cases"][f"{group}/{name}/{m}/{size}"] = {
                    "status": "measured",
                    "cpu_seconds": {"best": seconds},
                    "memory": {"peak": 200 * 10**6, "whole_process": 900 * 10**6},
                    "error": {"value": 1e-7, "gradient": math.inf},
                }
    states = {v.requirement: v.state for v in judge(results)}
    assert states["Uniformity, log of the mean, B = 16,384: at least 3.3x less processor time than torch"] == "NOT MET"
    assert states["Uniformity, mean of row logs, B = 16,384: at least 2.3x less processor time than torch"] == "MET"
    assert states["Uniformity, log of the mean, B = 16,384: at most 150 MB above the baseline"] == "NOT MET"
    assert states["InfoNCE, B = 16,384: at most 300 MB above the baseline"] == "MET"
    assert states["InfoNCE, B = 16,384: gradient within 1e-5 of float64"] == "NOT MET"
