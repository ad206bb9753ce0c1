"""Test `HealthMonitor` for custom training loops, and its rules, which `fit` also uses."""

import numpy as np
import pytest
import torch
from torch import Tensor

from train_cases import run
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, ShapeError
from unialign.losses import create
from unialign.train import HealthMonitor, HealthWarning, TrainConfig


def rows(seed: int = 0, items: int = 64, dim: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(items, dim, generator=generator) for name in ("image", "text")}


def codes(found: list[HealthWarning]) -> list[str]:
    return [warning.code for warning in found]


def test_a_healthy_loop_has_no_warnings() -> None:
    for name in ("infonce", "unialign", "sigmoid"):
        loss = create(name)
        monitor = HealthMonitor(loss)
        for step in range(30):
            assert monitor.check(rows(step), loss(rows(step))) == []
        assert {"cosine/image", "rank/text"} <= set(monitor.numbers)


def test_a_collapsed_modality_is_reported_once() -> None:
    """The rows of `image` have a uniformity of -0.13, which corresponds to a mean cosine of 0.99."""
    loss, z = create("unialign", anchor="text", preset="balanced"), rows()
    z["image"] = 7 + 0.6 * z["image"]
    out = loss(z)
    assert float(out.terms["uniformity/image"]) > -0.2
    monitor = HealthMonitor(loss)
    with pytest.warns(HealthWarning, match="'image' is collapsing"):
        found = monitor.check(z, out)
    assert "collapse/image" in codes(found)
    assert "collapse/image" not in codes(monitor.check(z, out))
    assert "collapse/image" in codes(monitor.warnings)


def test_a_loss_at_chance_is_reported_after_some_steps() -> None:
    loss, z = create("infonce", temperature=20.0), rows()
    monitor = HealthMonitor(loss)
    with pytest.warns(HealthWarning, match=r"chance level is ln\(64\) = 4.159"):
        found = [monitor.check(z, loss(z)) for _ in range(25)]
    assert [codes(new) for new in found if new] == [["chance/image-text"]]
    assert codes(found[19]) == ["chance/image-text"]


def test_batches_without_pairs_are_reported() -> None:
    z = rows() | {"audio": torch.randn(64, 16)}
    present = {"audio": torch.arange(64) < 1}
    loss = create("triangle", anchor="text")
    with pytest.warns(HealthWarning, match="64 have at least two modalities and 1 have all 3"):
        found = HealthMonitor(loss).check(z, loss(z, present=present), present=present)
    assert codes(found) == ["no_pairs"]


def test_repeated_captions_are_reported_without_ids() -> None:
    z, loss = rows(), create("infonce")
    captions = torch.arange(64) % 20
    z["text"] = z["text"][captions]
    with pytest.warns(HealthWarning, match="'text' has 20 different rows among 64"):
        assert codes(HealthMonitor(loss).check(z, loss(z))) == ["distinct/text"]
    assert HealthMonitor(loss).check(z, loss(z, ids=captions), ids=captions) == []
    few = torch.arange(64) % 4
    with pytest.warns(HealthWarning, match="have 4 different ids"):
        assert codes(HealthMonitor(loss).check(z, loss(z, ids=few), ids=few)) == ["few_ids"]


def test_gradient_ratio_needs_no_graph_of_the_loop() -> None:
    loss = create("unialign", alignment_weight=1e-4)
    with torch.no_grad():
        out = loss(rows())
        with pytest.warns(HealthWarning, match="raise alignment_weight"):
            assert codes(HealthMonitor(loss).check(rows(), out)) == ["gradient_ratio"]


def test_every_and_invalid_arguments() -> None:
    loss, z = create("infonce"), rows()
    z["text"] = torch.ones(64, 16)
    monitor = HealthMonitor(loss, every=3)
    with pytest.warns(HealthWarning):
        assert [bool(monitor.check(z, loss(z))) for _ in range(4)] == [False, False, True, False]
    with pytest.raises(ConfigError, match="every"):
        HealthMonitor(loss, every=0)
    monitor = HealthMonitor(loss)
    with pytest.raises(ShapeError):
        monitor.check({"image": torch.ones(3)}, loss(rows()))


def test_fit_reports_a_loss_at_chance_and_batches_without_pairs() -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.normal(size=(600, 12)) for name in ("image", "text", "audio")}
    store = EmbeddingStore.from_arrays(columns, name="random", split=["train"] * 600)
    config = TrainConfig(
        objective="infonce",
        objective_options={"temperature": 1.0},
        lr=1e-12,
        epochs=3,
        batch_size=64,
        dim=64,
        monitor_steps=10,
    )
    with pytest.warns(HealthWarning, match="chance"):
        assert any(code.startswith("chance/") for code in codes(list(run(store, config).warnings)))
    rare = EmbeddingStore.from_arrays(
        columns, name="rare", present={"audio": np.arange(600) % 100 == 0}, split=["train"] * 600
    )
    config = TrainConfig(objective="triangle", objective_options={"anchor": "text"}, epochs=1, batch_size=64)
    with pytest.warns(HealthWarning, match="found no two items to compare"):
        assert "no_pairs" in codes(list(run(rare, config).warnings))


def test_the_arguments_of_a_call_are_those_of_the_loss() -> None:
    loss, z = create("unialign", temperature=0.5), rows()
    plain, given = HealthMonitor(loss), HealthMonitor(create("unialign", temperature=0.1))
    plain.check(z, loss(z))
    given.check(z, given.loss(z, temperature=0.5), temperature=0.5)
    assert given.numbers["gradient_ratio"] == pytest.approx(plain.numbers["gradient_ratio"], rel=1e-5)
    z["image"][3] = 0
    assert HealthMonitor(loss).check(z, loss(z, zero_rows="ignore"), zero_rows="ignore") == []


def test_chance_is_unknown_with_further_negatives() -> None:
    loss, z = create("infonce", temperature=20.0), rows()
    more = {name: torch.randn(2, 16) for name in z}
    monitor = HealthMonitor(loss)
    for _ in range(25):
        assert monitor.check(z, loss(z, negatives=more), negatives=more) == []
