"""Test that encoders are trained on several processes as on one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from media_train_cases import media_config, media_items, train, trained_bits
from processes import Pool
from train_cases import stop_at

# The last batch has 2 of 26 training items, so that one of three processes has no item.
CHANGES: dict[str, Any] = {"tune": {"image": "all", "text": "all", "sound": {"mode": "all", "lr": 1e-3}}}


def run(rank: int, group: Any, table: str, out: str, changes: dict[str, Any], stop: int | None) -> dict[str, Any]:
    from unialign.items import Items

    torch.set_num_threads(1)
    options = {} if stop is None else {"on_step": stop_at(stop)}
    try:
        result = train(Items.load(table), media_config(**changes), out=out, group=group, resume="auto", **options)
    except (Exception, KeyboardInterrupt) as error:
        return {"error": (type(error).__name__, str(error))}
    bits = trained_bits(result)
    return {"error": None, "history": result.history, "bits": bits}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("media")
    media_items(folder, 39).save(folder / "table")
    return str(folder / "table")


# Adam amplifies rounding differences of small gradients by the learning rate.
LORA = {"mode": "lora", "targets": ["layers.3", "layers.6"], "lr": 1e-3}


@pytest.mark.parametrize(
    ("processes", "changes"),
    [
        (2, {}),
        (2, {"tune": {"image": LORA, "sound": {"mode": "last", "blocks": 1, "lr": 1e-3}}, "micro_batch_size": 3}),
        # A higher learning rate amplifies rounding to more than the tolerances.
        (3, {"micro_batch_size": 2, "augment": "basic", "lr": 1e-3}),
    ],
    ids=["all", "lora", "augmented"],
)
def test_the_curve_of_one_process(
    pool: Pool, table: str, tmp_path: Path, processes: int, changes: dict[str, Any]
) -> None:
    if "tune" in changes:
        pytest.importorskip("peft")
    settings = CHANGES | changes
    alone = run(0, None, table, str(tmp_path / "alone"), settings, None)
    assert alone["error"] is None
    together = pool.run(run, table, str(tmp_path / "together"), settings, None, processes=processes)
    assert [seen["error"] for seen in together] == [None] * processes
    for one, other in zip(alone["history"], together[0]["history"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    for seen in together:
        assert seen["bits"] == together[0]["bits"]
    for name, expected in alone["bits"].items():
        found, wanted = (np.frombuffer(bits, np.float32) for bits in (together[0]["bits"][name], expected))
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3 * max(1e-3, float(np.abs(wanted).max())))


def test_resuming_on_another_number_of_processes(pool: Pool, table: str, tmp_path: Path) -> None:
    alone = run(0, None, table, str(tmp_path / "alone"), CHANGES, None)
    out = str(tmp_path / "run")
    stopped = pool.run(run, table, out, CHANGES, 3, processes=2)
    assert {seen["error"][0] for seen in stopped} == {"KeyboardInterrupt"}
    continued = run(0, None, table, out, CHANGES, None)
    assert continued["error"] is None
    assert continued["history"][-1]["loss"] == pytest.approx(alone["history"][-1]["loss"], abs=1e-4)


def test_errors_reach_every_process(pool: Pool, table: str, tmp_path: Path) -> None:
    errors = pool.run(run, table, str(tmp_path / "x"), {"encoders": {"image": "builtin:color"}}, None, processes=2)
    assert all("'image' cannot be trained" in seen["error"][1] for seen in errors)
    missing = pool.run(without_out, table, processes=2)
    assert all("several processes need out=" in message for message in missing)


def without_out(rank: int, group: Any, table: str) -> str:
    from unialign.items import Items

    try:
        train(Items.load(table), media_config(), group=group)
    except Exception as error:
        return str(error)
    return ""
