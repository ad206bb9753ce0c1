"""Queries: parts, weights and their vectors."""

from typing import Any

import numpy as np
import pytest
import torch

import unialign as ua
from tests.index_cases import NAMES, build, correction_of, draw_items, unit_rows
from tests.reference import index_search as reference
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.index import Index
from unialign.index._calibration import uncorrected
from unialign.index._query_vectors import query_vectors
from unialign.index._storage import Storage
from unialign.space import Space


def vector_of(query: Any, correction: Any, dim: int, fuse: str = "mean") -> Any:
    def never(*_: object) -> Any:
        raise AssertionError

    return query_vectors([query], correction, dim, encode=never, lookup=never, fuse=fuse)  # type: ignore[arg-type]


def test_algebra_of_queries() -> None:
    a, b = ua.query(item="a"), ua.query(item="b", modalities="text")
    mixed = 2 * (a - 0.5 * b) + -a
    assert [(part.value, part.weight) for part in mixed.parts] == [("a", 2.0), ("b", -1.0), ("a", -1.0)]
    assert b.parts[0].modalities == ("text",)
    assert len(ua.query(text="red", image="car.png", weight=0.5).parts) == 2
    for wrong in (lambda: a + 1, lambda: a * b, lambda: a * True):
        with pytest.raises(TypeError):
            wrong()
    for wrong, message in (
        (lambda: a * 0, "from 1e-06 to"),
        (lambda: a * float("nan"), "from 1e-06 to"),
        (lambda: ua.query(), "needs an input"),
        (lambda: ua.query(vector=[1.0]), "belong together"),
        (lambda: ua.query(text="x", modalities=["text"]), "can only be given with `item`"),
        (lambda: ua.query(text="x", weight="1"), "must be a number"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong()


def test_vectors_of_fused_queries() -> None:
    rng = np.random.default_rng(0)
    for method in ("none", "center", "coral", "center_csls"):
        correction = correction_of(method, rng, 8)
        x, y = (reference.unit(rng.standard_normal(8)) for _ in range(2))
        mixed = ua.query(vector=3 * x, modality="text", weight=2) - ua.query(vector=y, modality="image", weight=0.5)
        found = vector_of(mixed, correction, 8)
        q, share = reference.fused(correction, NAMES, [(2.0, {"text": x}), (-0.5, {"image": y})])
        np.testing.assert_allclose(found.q_QD[0], q, rtol=0, atol=1e-13)
        np.testing.assert_allclose(found.share_QM[0], share, rtol=0, atol=1e-13)
        apart = vector_of(mixed, correction, 8, "max")
        assert apart.owner_Q.tolist() == [0, 0]
        np.testing.assert_allclose(apart.weight_Q, [0.8, -0.2], atol=1e-15)


def test_parts_that_cancel_and_invalid_vectors_raise() -> None:
    rng = np.random.default_rng(1)
    x = reference.unit(rng.standard_normal(4))
    text = ua.query(vector=x, modality="text")
    none = uncorrected(NAMES, "")
    with pytest.raises(ConfigError, match="cancel"):
        vector_of(text - text, none, 4)
    with pytest.raises(ConfigError, match="cancel"):
        vector_of(text + ua.query(vector=-x, modality="image"), none, 4)
    for value, error, message in (
        (np.full(4, np.nan), NonFiniteError, "not finite"),
        (np.zeros(4), NonFiniteError, "not finite or is 0"),
        (np.ones(3), ShapeError, r"expected \(4,\)"),
        (np.ones(4, int), ShapeError, "floating-point"),
    ):
        with pytest.raises(error, match=message):
            vector_of(ua.query(vector=value, modality="text"), none, 4)
    with pytest.raises(ConfigError, match=r"unknown modality 'txt'.*did you mean"):
        vector_of(ua.query(vector=x, modality="txt"), none, 4)
    centered = correction_of("center", rng, 4)
    mean = -centered.bias["text"].numpy()
    centered.bias["text"].mul_(1 / np.linalg.norm(mean))  # type: ignore[union-attr]
    with pytest.raises(NonFiniteError, match="equals the mean"):
        vector_of(ua.query(vector=mean, modality="text"), centered, 4)


def test_items_as_queries() -> None:
    rng = np.random.default_rng(2)
    items = draw_items(rng, 10, 6)
    items["k0000"] = {"text": unit_rows(rng, 1, 6)[0]}
    index = build(items, correction_of("none", rng, 6))
    with pytest.raises(ConfigError, match="has none of the modalities image"):
        index.search(ua.query(item="k0000", modalities=["image"]))
    with pytest.raises(ConfigError, match=r"no item 'k00000'.*did you mean"):
        index.search(ua.query(item="k00000"))
    with pytest.raises(ConfigError, match="unknown modality"):
        index.search(ua.query(item="k0001", modalities=["video"]))


def test_features_are_encoded_together() -> None:
    torch.manual_seed(0)
    space = Space({"text": 5, "image": 7}, dim=6).eval()
    index = Index(Storage.in_memory(("text", "image"), 6), space)
    rng = np.random.default_rng(3)
    index.add({"text": unit_rows(rng, 20, 6), "image": unit_rows(rng, 20, 6)})
    features = rng.standard_normal((3, 5)).astype(np.float32)
    found = index.search([ua.query(text=row) for row in features] + [ua.query(image=np.ones(7, np.float32))], k=5)
    with torch.no_grad():
        z = space.encode({"text": torch.from_numpy(features)})["text"].double().numpy()
    for one, row in zip(found[:3], z, strict=True):
        assert one.keys == index.search(ua.query(vector=row, modality="text"), k=5).keys
    with pytest.raises(ConfigError, match="cannot encode raw values of 'text'"):
        index.search(ua.query(text="a red car"))
