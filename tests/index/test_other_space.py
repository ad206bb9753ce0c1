"""Test that an index accepts embeddings of its own space only, also if another one has the same dims."""

from pathlib import Path

import numpy as np
import pytest
import torch

import unialign as ua
from unialign.errors import DataError


def space(seed: int) -> ua.Space:
    torch.manual_seed(seed)
    return ua.Space({"image": 12, "text": 10}, dim=8, hidden=16).eval()


def features() -> ua.data.EmbeddingStore:
    rng = np.random.default_rng(0)
    return ua.data.EmbeddingStore.from_arrays({"image": rng.normal(size=(30, 12)), "text": rng.normal(size=(30, 10))})


def test_embeddings_of_another_space_raise_and_those_of_its_own_are_added(tmp_path: Path) -> None:
    own = space(1).encode_store(features(), tmp_path / "own")
    other = space(2).encode_store(features(), tmp_path / "other")
    with ua.Index.create(tmp_path / "index", space=space(1)) as index:
        with pytest.raises(DataError, match="another space"):
            index.add(other)
        assert len(index) == 0
        assert index.add(own).added == 30
        expected = ua.Index.from_store(features(), space(1), calibrate=False)
        found, wanted = (one.search(ua.query(item="3"), k=5, correction="none") for one in (index, expected))
        assert found.keys == wanted.keys
        np.testing.assert_allclose([h.score for h in found], [h.score for h in wanted], atol=1e-6)


def test_a_changed_space_is_noticed_when_the_index_is_opened(tmp_path: Path) -> None:
    ua.Index.create(tmp_path / "index", space=space(1)).close()
    space(2).save_pretrained(tmp_path / "index" / "space")
    with pytest.raises(DataError, match="space"):
        ua.Index.open(tmp_path / "index")
