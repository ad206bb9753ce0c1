"""Re-ranking by functions, a cross-encoder and the volume of GRAM."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from tests.index_cases import build, correction_of, draw_items
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.index import Hit, Index, cross_encoder, gram_volume
from unialign.index._query import Query


@pytest.fixture(scope="module")
def index() -> Index:
    rng = np.random.default_rng(0)
    return build(draw_items(rng, 60, 12), correction_of("center", rng, 12))


def question(seed: int = 1) -> Query:
    return ua.query(vector=np.random.default_rng(seed).normal(size=12).astype(np.float32), modality="text")


def test_function_orders_the_best_hits(index: Index) -> None:
    query = question()
    seen: list[tuple[Query, Sequence[Hit]]] = []

    def by_key(given: Query, hits: Sequence[Hit]) -> list[float]:
        seen.append((given, hits))
        return [float(hit.key[1:]) for hit in hits]

    best = index.search(query, k=20)
    found = index.search(query, k=5, rerank=by_key, rerank_depth=20)
    assert seen[0][0] is query
    assert [hit.key for hit in seen[0][1]] == list(best.keys)
    assert list(found.keys) == sorted(best.keys, reverse=True)[:5]
    assert [hit.score for hit in found] == [float(key[1:]) for key in found.keys]
    # The depth is at least k, and equal scores keep the order of the search.
    same = index.search(query, k=8, rerank=lambda _, hits: [0.0] * len(hits), rerank_depth=3)
    assert same.keys == best.keys[:8]


def test_wrong_scores(index: Index) -> None:
    for scores, error, match in (
        (lambda hits: [1.0], ShapeError, "for 10 hits"),
        (lambda hits: [float("nan")] * len(hits), NonFiniteError, "rerank returned nan for the item"),
    ):
        with pytest.raises(error, match=match):
            index.search(question(), k=10, rerank=lambda _, hits, scores=scores: scores(hits), rerank_depth=10)
    with pytest.raises(ConfigError, match="rerank must be a function"):
        index.search(question(), k=10, rerank=3)  # type: ignore[call-overload]


class BagOfWords(torch.nn.Module):
    """A small scorer of pairs of texts with the interface of `sentence_transformers.CrossEncoder`."""

    def __init__(self, labels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.EmbeddingBag(97, 8)
        self.head = torch.nn.Bilinear(8, 8, labels)

    def predict(self, sentences: Sequence[tuple[str, str]]) -> np.ndarray:
        def embed(text: str) -> torch.Tensor:
            return self.words(torch.tensor([[sum(map(ord, word)) % 97 for word in text.split()]]))

        with torch.no_grad():
            scores = torch.cat([self.head(embed(a), embed(b)) for a, b in sentences])
        return (scores[:, 0] if scores.shape[1] == 1 else scores).numpy()


def test_cross_encoder(index: Index) -> None:
    model = BagOfWords()
    texts = {key: f"item number {key}" for key in index.embeddings().keys}
    best = index.search(question(), k=15)
    expected = model.predict([("the question", texts[key]) for key in best.keys])
    order = np.argsort(-expected, kind="stable")
    for given in (texts, lambda hit: texts[hit.key]):
        rerank = cross_encoder(model, given, query_text="the question")
        found = index.search(question(), k=4, rerank=rerank, rerank_depth=15)
        assert found.keys == tuple(best.keys[i] for i in order[:4])
        np.testing.assert_allclose([hit.score for hit in found], expected[order[:4]], rtol=1e-6)


def test_cross_encoder_takes_the_text_of_the_query(index: Index) -> None:
    hits = index.search(question(), k=3).hits
    texts = {hit.key: hit.key for hit in hits}
    model = BagOfWords()
    asked = ua.query(text="a red car") + question()
    expected = model.predict([("a red car", hit.key) for hit in hits])
    np.testing.assert_allclose(cross_encoder(model, texts)(asked, hits), expected, rtol=1e-6)
    with pytest.raises(ConfigError, match="one text in the query, got 0"):
        cross_encoder(model, texts)(question(), hits)
    with pytest.raises(ConfigError, match="has no text for the cross-encoder"):
        cross_encoder(model, {})(asked, hits)
    with pytest.raises(ShapeError, match=r"\(3, 2\) for 3 hits"):
        index.search(question(), k=3, rerank=cross_encoder(BagOfWords(2), texts, query_text="a"), rerank_depth=3)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("method", ["none", "center", "coral", "center_csls"])
def test_volumes_are_square_roots_of_gram_determinants(method: str, relative: bool) -> None:
    rng = np.random.default_rng(2)
    correction = correction_of(method, rng, 12)
    index = build(draw_items(rng, 40, 12), correction)
    query = question(3)
    q = correction.correct("text", torch.nn.functional.normalize(torch.from_numpy(query.parts[0].value)[None], dim=1))
    best = {hit.key for hit in index.search(query, k=30)}
    found = index.search(query, k=30, rerank=gram_volume(index, relative=relative), rerank_depth=30)
    assert {hit.key for hit in found} == best
    for hit in found:
        rows = index.get(hit.key).rows
        z = torch.cat([correction.correct(name, torch.from_numpy(row)[None]) for name, row in rows.items()])
        volume = float(torch.linalg.det(torch.cat([q, z]) @ torch.cat([q, z]).mT).clamp(min=0).sqrt())
        if relative:
            volume /= float(torch.linalg.det(z @ z.mT).clamp(min=0).sqrt())
        assert hit.score == pytest.approx(1 - volume, abs=1e-6)
    assert all(first.score >= second.score for first, second in pairwise(found))


def test_volume_of_a_fused_query(index: Index) -> None:
    query: Any = question(4) + 0.5 * ua.query(item="k0003") - 0.2 * question(5)
    found = index.search(query, k=5, rerank=gram_volume(index))
    assert len(found) == 5
    assert all(0 <= hit.score <= 1 for hit in found)
