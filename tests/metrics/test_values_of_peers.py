"""Compare retrieval metrics with the values in examples and tests of torchmetrics and pytrec_eval."""

from typing import Any

import pytest
import torch

from unialign.metrics import RetrievalResult, retrieval_from_scores


def rank(scores: list[float], relevance: list[float], k: tuple[int, ...] = (1, 2, 3, 1000)) -> RetrievalResult:
    table = torch.tensor([scores], dtype=torch.float64)
    options: dict[str, Any] = {"queries": 1, "gallery": len(scores), "k": k}
    return retrieval_from_scores(lambda r: table[r], relevance=[relevance], **options)


EXAMPLE = [([0.2, 0.3, 0.5], [0, 0, 1]), ([0.1, 0.3, 0.5, 0.2], [0, 1, 0, 1])]


@pytest.mark.parametrize(("metric", "value"), [("map", 0.7917), ("mrr", 0.75), ("ndcg", 0.8467)])
def test_example_of_torchmetrics(metric: str, value: float):
    mean = sum(float(rank(*query).scores(metric)) for query in EXAMPLE) / len(EXAMPLE)
    assert mean == pytest.approx(value, abs=5e-5)


def test_functional_examples_of_torchmetrics():
    assert rank([0.1, 0.2, 0.3, 4, 70], [10, 0, 0, 1, 5]).ndcg == pytest.approx(0.6957, abs=5e-5)
    two = rank([0.2, 0.3, 0.5], [1, 0, 1])
    assert two.map == pytest.approx(0.8333, abs=5e-5)
    assert two.recall[2] == 1.0
    assert rank([0.2, 0.3, 0.5], [0, 1, 0]).mrr == 0.5
    hits = [rank([0.2, 0.3, 0.5], [1, 0, 0]), rank([0.1, 0.3, 0.5, 0.2], [0, 1, 0, 1])]
    assert sum(result.recall[2] for result in hits) / 2 == 0.5


def test_negative_scores_are_ranked():
    """Candidates with scores of at most 0 are ranked, as in trec_eval; torchmetrics treats them as not retrieved."""
    assert rank([-0.8, -0.7, -0.5], [1, 0, 1]).map == pytest.approx(0.8333, abs=5e-5)


@pytest.mark.parametrize(
    ("scores", "ndcg"),
    [([1.0, 0.0, 1.5], 0.5), ([1.0, 2.0, 1.5], 1.0), ([4.0, 2.0, 1.5], 0.6309297535714575)],
)
def test_ndcg_of_pytrec_eval(scores: list[float], ndcg: float):
    assert rank(scores, [0, 1, 0]).ndcg == pytest.approx(ndcg, abs=1e-12)


def test_cut_offs_of_pytrec_eval():
    assert rank([1.0, 0.0, 1.5], [0, 1, 0]).ndcg_at == pytest.approx({1: 0.0, 2: 0.0, 3: 0.5, 1000: 0.5})
    assert rank([1.0, 2.0, 1.5], [0, 1, 0]).ndcg_at[1] == 1.0


def test_example_of_pytrec_eval():
    first, second = rank([1.0, 0.0, 1.5], [0, 1, 0]), rank([1.5, 0.2, 0.5], [0, 1, 1])
    assert (first.ndcg, first.map) == pytest.approx((0.5, 0.3333333333333333), abs=1e-12)
    assert second.ndcg == pytest.approx(0.6934264036172708, abs=1e-12)
    assert second.map == pytest.approx(0.5833333333333333, abs=1e-12)
