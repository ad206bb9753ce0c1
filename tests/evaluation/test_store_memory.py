"""Test that the memory for embedding and evaluating a store hardly grows with the number of items."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.data import EmbeddingStore
from unialign.evaluation import _store_evaluation

WIDTH = 256


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_peak_bytes_of_a_sample_and_of_an_embedded_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store_evaluation, "_BLOCK_ROWS", 256)
    space = ua.Space({"a": WIDTH, "b": WIDTH}, dim=4, hidden=8, input_norm="none")
    part = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(0)).half()
    grown = {}
    for items in (2000, 8000):
        parts = ({"a": part, "b": part.roll(1, 0)} for _ in range(items // 1000))
        store = EmbeddingStore.write(tmp_path / str(items), parts, ids=np.arange(items), split=["test"] * items)
        store.ids, store.split, store.labels, store.groups  # noqa: B018 (read now, so that they are not measured)
        evaluated = peak_bytes(lambda store=store: ua.evaluate(store, space, sample=50))  # type: ignore[misc]
        target = tmp_path / f"{items}-embedded"
        embedded = peak_bytes(lambda s=store, t=target: space.encode_store(s, t, batch_size=256))  # type: ignore[misc]
        grown[items] = evaluated, embedded
    # The features of 6,000 more items take 6.1 MB and their embeddings 0.2 MB; ids and ranks take 8 bytes each.
    assert grown[8000][0] - grown[2000][0] < 1e6
    assert grown[8000][1] - grown[2000][1] < 2e6
    assert max(grown[8000]) < 10e6
