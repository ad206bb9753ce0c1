"""Test the committed results of the exact-search benchmark, and its comparison of implementations."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import retrieval as benchmark

ROOT = Path(__file__).resolve().parent.parent


def test_the_committed_run_is_the_required_one_and_meets_it():
    facts = json.loads(benchmark.RESULT.read_text("utf-8"))
    assert (facts["queries"], facts["gallery"], facts["dim"]) == (5000, 1_000_000, 256)
    seconds = facts["contestants"]
    for clock in ("cpu_seconds", "wall_seconds"):
        assert facts["times_of_faiss"]["ranks"][clock] == seconds["ranks"][clock] / seconds["faiss"][clock] <= 1.2
    assert facts["results"]["of_those_wrong"] == 0
    assert facts["results"]["largest_difference_of_their_cosines"] <= 1e-6
    assert facts["met"]


@pytest.fixture
def answers(tmp_path):
    queries_QD, gallery_GD, own_Q = benchmark.draw(30, 200, 8)
    for part, rows in (("queries", queries_QD), ("gallery", gallery_GD), ("own", own_Q)):
        np.save(tmp_path / f"{part}.npy", rows)
    order_QG = np.argsort(-(queries_QD.astype(float) @ gallery_GD.T.astype(float)), axis=1)
    rows_QK, ranks_Q = order_QG[:, : benchmark.NEIGHBORS], (order_QG == own_Q[:, None]).argmax(1) + 1.0

    def leave(ranks=ranks_Q, ours=rows_QK, theirs=rows_QK):
        np.savez(tmp_path / "found-ranks.npz", ranks=ranks)
        np.savez(tmp_path / "found-knn.npz", rows=ours)
        np.savez(tmp_path / "found-faiss.npz", rows=theirs)
        return benchmark.compared(tmp_path)

    return ranks_Q, rows_QK, leave


def test_correct_results_agree(answers):
    _, _, leave = answers
    found = leave()
    assert found["places_with_another_row"] == found["ranks_beside_the_place_in_the_list"] == 0
    assert found["of_those_wrong"] == 0


def test_wrong_ranks_and_neighbors_are_detected(answers):
    ranks_Q, rows_QK, leave = answers
    found = leave(ranks=ranks_Q + 1)
    assert found["of_those_wrong"] == benchmark.CHECKED
    assert found["ranks_beside_the_place_in_the_list"] > 0
    assert found["of_those_explained_by_float32"] == 0
    found = leave(ours=rows_QK[:, ::-1])
    assert found["largest_difference_of_their_cosines"] > 1e-3
    assert found["places_with_another_row"] == rows_QK.size
