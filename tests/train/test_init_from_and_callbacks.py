"""Test training from the weights of another space, and evaluation callbacks."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train_cases import (
    bits,
    checkpoint_bits,
    digest_of,
    finished,
    run,
    stop_at,
    tiny_config,
    tiny_store,
    without_time,
)
from unialign.cli import main
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError
from unialign.space import Space
from unialign.train import EvalCallback, training_steps


def intrusive(seen: list[int]) -> EvalCallback:
    """Return a callback that draws random numbers and embeds rows, which must not require gradients."""
    store = tiny_store()

    def evaluate(step: int, space: Space) -> None:
        seen.append(step)
        assert not space.training
        torch.rand(step + 3)
        z = space(
            {name: store.array(name) for name in space.modalities},
            present={name: store.present(name) for name in space.modalities},
        )
        assert not z["image"].requires_grad

    return EvalCallback((0, 1, 7, 20), evaluate)


@pytest.mark.parametrize("objective", ["infonce", "unialign"])
def test_a_callback_does_not_affect_a_run(tmp_path: Path, objective: str) -> None:
    recipe: dict[str, Any] = {"objective": objective, "infonce_warmup_ratio": 0.2}
    seen: list[int] = []
    plain = finished(**recipe)
    torch.manual_seed(3)
    evaluated = run(tiny_store(), tiny_config(**recipe), out=tmp_path / "run", eval_callback=intrusive(seen))
    assert seen == [0, 1, 7, 20]
    assert digest_of(evaluated) == plain.digest
    assert checkpoint_bits(tmp_path / "run") == plain.checkpoint
    assert without_time(evaluated.history) == plain.history


def test_a_callback_gets_the_space_of_its_step() -> None:
    """The callback gets the space of each step, up to the result of `fit`, and training mode is restored afterwards."""
    states: dict[int, dict[str, bytes]] = {}
    after: list[bool] = []
    held: list[Space] = []

    def evaluate(step: int, space: Space) -> None:
        states[step] = bits(space.state_dict())
        held.append(space)

    config = tiny_config()
    result = run(
        tiny_store(),
        config,
        eval_callback=EvalCallback({0, 5, 20}, evaluate),
        on_step=lambda info: after.append(held[0].training),
    )
    assert states[20] == bits(result.space.state_dict())
    assert len({s["heads.0.1.weight"] for s in states.values()}) == 3
    assert all(after)


def test_callbacks_do_not_count_as_training_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake clock advances only in callbacks, by one second each."""
    from unialign.train import _trainer

    clock = [0.0]

    class Clock:
        @staticmethod
        def perf_counter() -> float:
            return clock[0]

    monkeypatch.setattr(_trainer, "time", Clock)

    def evaluate(step: int, space: Space) -> None:
        clock[0] += 1.0

    result = run(tiny_store(), tiny_config(), eval_callback=EvalCallback((0, 3, 20), evaluate))
    assert clock[0] == 3.0
    assert {record["seconds"] for record in result.history} == {0.0}


def test_a_resumed_run_is_evaluated_at_its_remaining_steps(tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", on_step=stop_at(7), eval_callback=intrusive(seen))
    result = run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="required", eval_callback=intrusive(seen))
    assert seen == [0, 1, 7, 20]
    assert digest_of(result) == finished().digest
    run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="required", eval_callback=intrusive(seen))
    assert seen == [0, 1, 7, 20]


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda step, space: None, "must be an EvalCallback"),
        (EvalCallback((0, 21), lambda step, space: None), "contains 21, but training has 20 steps"),
        (
            EvalCallback((0, -1), lambda step, space: None),
            r"eval_callback\.steps must be an integer of at least 0, got -1",
        ),
        (EvalCallback("12", lambda step, space: None), "collection of numbers"),  # type: ignore[arg-type]
        (EvalCallback((1,), None), "function that takes step and space"),  # type: ignore[arg-type]
    ],
)
def test_unusable_callbacks_raise_before_anything_is_written(tmp_path: Path, callback: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(tiny_store(), tiny_config(), out=tmp_path / "run", eval_callback=callback)
    assert not (tmp_path / "run").exists()


def test_training_steps() -> None:
    assert training_steps(tiny_store(), tiny_config()) == 20
    assert training_steps(tiny_store(), tiny_config(epochs=3, gradient_accumulation_steps=1)) == 9


# --- init_from ------------------------------------------------------------------------------------------------------


def shifted(store: EmbeddingStore) -> EmbeddingStore:
    columns = {name: np.asarray(store.array(name)) * 3 + 5 for name in store.columns}
    present = {name: store.present(name) for name in store.columns}
    return EmbeddingStore.from_arrays(columns, present=present, ids=store.ids, split=store.split, name="shifted")


def test_weights_and_input_statistics_are_copied() -> None:
    """Input statistics are also copied, since weights with other input statistics define another function."""
    first = finished().result.space
    before = bits(first.state_dict())
    seen: dict[int, dict[str, bytes]] = {}
    callback = EvalCallback((0,), lambda step, space: seen.update({step: bits(space.state_dict())}))
    config = tiny_config(seed=1, objective="unialign")
    result = run(shifted(tiny_store()), config, init_from=first, eval_callback=callback)
    assert seen[0] == before
    assert bits(first.state_dict()) == before
    assert torch.equal(result.space.features[0].mean, first.features[0].mean)
    assert bits(result.space.state_dict()) != before
    anew = run(shifted(tiny_store()), config)
    assert not torch.equal(anew.space.features[0].mean, first.features[0].mean)


def test_modalities_are_matched_by_name() -> None:
    first = finished(modalities=("audio", "image", "text"), epochs=1).result.space
    held: list[dict[str, torch.Tensor]] = []
    rows = {"text": torch.randn(4, 5, generator=torch.Generator().manual_seed(0))}
    callback = EvalCallback((0,), lambda step, space: held.append(space.encode(rows)))
    run(tiny_store(), tiny_config(epochs=1), init_from=first, eval_callback=callback)
    assert torch.equal(held[0]["text"], first.encode(rows)["text"])


def test_another_shape_raises(tmp_path: Path) -> None:
    first = finished(epochs=1).result.space
    cases: list[tuple[dict[str, Any], str]] = [
        ({"modalities": ("image", "text")}, "has the modalities image, text, audio, but this run trains image, text"),
        ({"dim": 4}, "made with dim=8, but this run has dim=4"),
        ({"head": "linear"}, "made with head='mlp'"),
        ({"hidden": 4}, "made with hidden=16"),
        ({"input_norm": "none"}, "made with input_norm='standardize'"),
    ]
    for changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            run(tiny_store(), tiny_config(**changes), init_from=first, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()
    other = Space({"image": 6, "text": 9, "audio": 4}, dim=8, hidden=16)
    with pytest.raises(ConfigError, match="init_from expects 'text' to have dim 9, but it has dim 5 in the store"):
        run(tiny_store(), tiny_config(), init_from=other)


def test_a_run_resumes_with_the_same_init_from_only(tmp_path: Path) -> None:
    first, second = (finished(epochs=1, seed=seed).result.space for seed in (0, 1))
    whole = run(tiny_store(), tiny_config(), init_from=first)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), init_from=first, out=tmp_path / "run", on_step=stop_at(9))
    for other in (second, None):
        with pytest.raises(CheckpointError, match="was made from the space with weights of sha256"):
            run(tiny_store(), tiny_config(), init_from=other, out=tmp_path / "run", resume="required")
    result = run(tiny_store(), tiny_config(), init_from=first, out=tmp_path / "run", resume="required")
    assert digest_of(result) == digest_of(whole)
    assert len(result.space.metadata["init_from"]["weights"]) == 64
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), tiny_config(), out=tmp_path / "plain", on_step=stop_at(9))
    with pytest.raises(CheckpointError, match="from random weights, but this run begins from the space"):
        run(tiny_store(), tiny_config(), init_from=first, out=tmp_path / "plain", resume="required")


def test_the_command_line_does_not_repeat_a_run_from_a_space_in_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    EmbeddingStore.write(
        tmp_path / "data", {"a": np.random.default_rng(0).normal(size=(9, 3)), "b": np.ones((9, 2))}, split=[0] * 9
    )
    store = EmbeddingStore.open(tmp_path / "data")
    config = tiny_config(epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = run(store, config).space
        run(store, config, init_from=first, out=tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "run" / "config.yaml"), "--out", str(tmp_path / "again")]) == 2
    assert "continued from a space in memory" in capsys.readouterr().err
