"""Test that `fit` learns, is reproducible, respects presence and ids, and rejects invalid input."""

import itertools
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from train_cases import (
    DIMS,
    TEST,
    TRAIN,
    bits,
    digest_of,
    finished,
    run,
    stop_at,
    tiny_config,
    tiny_store,
    without_time,
)
from unialign._stop_request import StopRequest
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.space import Space
from unialign.train import TrainConfig, fit


@pytest.mark.parametrize(
    ("objective", "options"),
    [
        ("unialign", {}),
        ("unialign", {"anchor": "text"}),
        ("infonce", {}),
        ("infonce", {"anchor": "image", "temperature_mode": "learnable"}),
        ("gram", {"anchor": "text"}),
    ],
)
def test_training_learns(objective: str, options: dict[str, Any]) -> None:
    config = tiny_config(
        objective=objective, objective_options=options, epochs=40, dropout=0.0, infonce_warmup_ratio=0.2
    )
    result = run(tiny_store(missing="none"), config)
    own = [record["loss"] for record in result.history if record["objective"] == objective]
    assert np.mean(own[-5:]) < np.mean(own[:5])
    assert not result.space.training
    columns = {name: tiny_store(missing="none").array(name) for name in DIMS}
    z = result.space.encode(columns)
    cosine = z["image"] @ z["text"].T
    found = (cosine[TEST:, TEST:].argmax(1) == torch.arange(TRAIN)).float().mean()
    # Chance is 1 / 23. GRAM ignores the signs of rows, so it finds fewer matches.
    assert float(found) > (0.25 if objective == "gram" else 0.6)


def test_runs_are_reproducible_and_leave_the_random_state_of_the_caller_unchanged() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    again = run(tiny_store(), tiny_config())
    assert torch.equal(before, torch.get_rng_state())
    assert digest_of(again) == finished().digest
    assert without_time(again.history) == finished().history
    assert digest_of(again) != finished(seed=1).digest


def test_settings_have_defaults() -> None:
    found = fit(tiny_store(), progress="none")
    assert digest_of(found) == digest_of(fit(tiny_store(), TrainConfig(), progress="none"))
    assert digest_of(found) != digest_of(fit(tiny_store(), TrainConfig(seed=1), progress="none"))


def test_logging_and_health_checks_change_nothing() -> None:
    recipe: dict[str, Any] = {"objective": "unialign", "objective_options": {"anchor": "text"}}
    often = finished(**recipe, monitor_steps=1, logging_steps=1)
    never = finished(**recipe, monitor_steps=1000, logging_steps=1000)
    assert often.digest == never.digest


@pytest.mark.parametrize("missing", list(itertools.product([True, False], repeat=3)))
def test_all_presence_masks_train_on_finite_numbers(missing: tuple[bool, ...]) -> None:
    """Each item has one of the 8 presence patterns, and absent rows contain NaN."""
    rng = np.random.default_rng(0)
    patterns = np.array(list(itertools.product([True, False], repeat=3)))
    rows = np.concatenate([np.arange(8), np.full(8, patterns.tolist().index(list(missing)))])
    columns = {name: rng.normal(size=(16, dim)) for name, dim in DIMS.items()}
    present = {name: patterns[rows, m] for m, name in enumerate(DIMS)}
    for name, mask in present.items():
        columns[name][~mask] = np.nan
    store = EmbeddingStore.from_arrays(columns, present=present)
    for objective, options in (("unialign", {"anchor": "text"}), ("infonce", {}), ("gram", {"anchor": "text"})):
        config = tiny_config(
            objective=objective, objective_options=options, batch_size=4, gradient_accumulation_steps=1, epochs=2
        )
        result = run(store, config)
        assert all(bool(torch.isfinite(p).all()) for p in result.space.parameters())


def test_values_of_absent_rows_are_irrelevant() -> None:
    def result(placeholder: float) -> str:
        store = tiny_store()
        columns = {name: np.array(store.array(name)) for name in store.modalities}
        for name in columns:
            columns[name][~store.present(name)] = placeholder
        present = {name: store.present(name) for name in columns}
        return digest_of(run(EmbeddingStore.from_arrays(columns, present=present, split=store.split), tiny_config()))

    assert result(np.nan) == result(1e30)


def test_presence_and_ids_reach_the_objective_only_when_they_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    from unialign.losses import InfoNCE

    calls = []
    compute = InfoNCE.compute

    def spy(self: InfoNCE, embeddings: Any, *, present: Any = None, ids: Any = None, **options: Any) -> Any:
        calls.append((present, ids))
        return compute(self, embeddings, present=present, ids=ids, **options)

    monkeypatch.setattr(InfoNCE, "compute", spy)
    run(tiny_store(), tiny_config(epochs=1))
    assert all(set(present) == {"text", "audio"} for present, _ in calls[1:])
    complete = tiny_store(missing="none")
    columns = {name: complete.array(name) for name in DIMS}
    calls.clear()
    run(EmbeddingStore.from_arrays(columns, split=complete.split), tiny_config(epochs=1))
    assert calls[1:]
    assert all(call == (None, None) for call in calls[1:])


def test_same_ids_reach_the_objective() -> None:
    store = tiny_store(missing="none")
    columns = {name: store.array(name) for name in DIMS}
    pairs = np.arange(store.items) // 2
    a, b = (EmbeddingStore.from_arrays(columns, split=store.split, ids=ids) for ids in (pairs, None))
    assert digest_of(run(a, tiny_config())) != digest_of(run(b, tiny_config()))


def test_fewer_rows_than_a_batch() -> None:
    result = run(tiny_store(), tiny_config(batch_size=1000, gradient_accumulation_steps=1, epochs=3))
    assert result.history[-1]["step"] == 3


def test_accumulated_batches_weigh_their_items() -> None:
    """If an objective is a mean over items, accumulating two unequal batches gives the weights of the whole batch."""
    store = tiny_store(missing="none")
    options = {"anchor": "text", "uniformity_weight": 0.0}
    common = {"objective": "unialign", "objective_options": options, "dropout": 0.0, "epochs": 3, "max_grad_norm": None}
    whole = run(store, tiny_config(**common, batch_size=23, gradient_accumulation_steps=1)).space.state_dict()
    halves = run(store, tiny_config(**common, batch_size=13, gradient_accumulation_steps=2)).space.state_dict()
    for name, tensor in whole.items():
        torch.testing.assert_close(halves[name], tensor, rtol=1e-3, atol=1e-4)


def test_no_weight_decay_on_biases_and_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.AdamW] = []

    class Recorded(torch.optim.AdamW):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Recorded)
    result = run(tiny_store(), tiny_config(objective="gram", objective_options={"anchor": "text"}, weight_decay=0.5))
    ((matrices, others),) = (optimizer.param_groups for optimizer in made)
    assert matrices["weight_decay"] == 0.5
    assert all(p.ndim == 2 for p in matrices["params"])
    assert others["weight_decay"] == 0
    trained = [*result.space.parameters(), *result.objective.parameters()]
    assert {id(p) for p in trained} == {id(p) for group in (matrices, others) for p in group["params"]}


def test_infonce_trains_first_for_the_warmup_ratio() -> None:
    options = {"anchor": "text", "temperature": 0.1}
    history = finished(objective="gram", objective_options=options, infonce_warmup_ratio=0.3).history
    assert [record["objective"] for record in history] == ["infonce"] * 6 + ["gram"] * 14
    assert set(history[0]["terms"]) == {"contrast/text-image", "contrast/text-audio"}
    assert set(history[6]["terms"]) == {"volume_contrast"}
    assert history[0]["temperature"] == pytest.approx(0.1, abs=0.01)


def test_infonce_warmup_with_all_pairs() -> None:
    history = finished(objective="unialign", infonce_warmup_ratio=1.0).history
    assert {record["objective"] for record in history} == {"infonce"}
    assert len(history[0]["terms"]) == 3


# --- results --------------------------------------------------------------------------------------------------------


def test_the_folder_of_a_run(tmp_path: Path) -> None:
    store, config = tiny_store(), tiny_config(save_steps=7)
    result = run(store, config, out=tmp_path / "run")
    names = sorted(p.name for p in (tmp_path / "run").iterdir() if p.name != ".lock")
    assert names == ["checkpoints", "config.yaml", "log.jsonl", "space"]
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000014", "step-00000020"]

    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert TrainConfig.from_dict(settings["train"]).modalities == ("image", "text", "audio")
    assert settings["data"]["fingerprint"] == store.fingerprint

    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert records[0]["kind"] == "start"
    assert records[0]["ln_batch"] == pytest.approx(np.log(8))
    steps = [record for record in records if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, 21))
    assert [{k: v for k, v in record.items() if k != "kind"} for record in steps] == result.history

    space = Space.from_pretrained(tmp_path / "run" / "space")
    assert bits(space.state_dict()) == bits(result.space.state_dict())
    assert space.metadata["training"]["lr"] == 0.01
    assert space.metadata["data"] == {"name": "tiny", "fingerprint": store.fingerprint, "training_items": TRAIN}


def test_a_notebook_shows_the_last_step() -> None:
    result = finished().result
    text = result._repr_html_()
    assert "<caption>infonce after 20 steps</caption>" in text
    assert f"loss</th><td>{result.history[-1]['loss']:.4g}</td>" in text
    assert "contrast/image-text</th>" in text


def test_history_without_a_folder() -> None:
    history = run(tiny_store(), tiny_config(logging_steps=7)).history
    assert [record["step"] for record in history] == [1, 4, 7, 8, 12, 14, 16, 20]
    assert set(history[-1]) == {
        "step",
        "epoch",
        "objective",
        "loss",
        "terms",
        "lr",
        "grad_norm",
        "temperature",
        "seconds",
        "health",
    }
    assert history[-1]["epoch"] == 10


def test_on_step_is_called_after_every_step() -> None:
    calls: list[dict[str, Any]] = []
    run(tiny_store(), tiny_config(), on_step=lambda info: calls.append(dict(info)))
    assert [info["step"] for info in calls] == list(range(1, 21))
    assert calls[0]["steps"] == 20
    assert set(calls[0]) == {"step", "steps", "epoch", "objective", "loss", "lr", "grad_norm"}


# --- progress -------------------------------------------------------------------------------------------------------


def test_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run(tiny_store(), tiny_config(), progress="auto")
    assert capsys.readouterr().err == ""
    run(tiny_store(), tiny_config(), progress="bar")
    assert "infonce" in capsys.readouterr().err
    monkeypatch.setattr("unialign.train._progress._SECONDS_BETWEEN_LINES", 0.0)
    run(tiny_store(), tiny_config(), progress="lines")
    assert "infonce: step 20 of 20, loss " in capsys.readouterr().err


# --- errors -----------------------------------------------------------------------------------------------------------


def test_settings_that_do_not_fit_raise_before_anything_is_written(tmp_path: Path) -> None:
    out = {"out": tmp_path / "run"}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"objective_options": {"anchor": "smell"}}, out, "smell"),
        ({"objective": "gram"}, out, "gram needs anchor="),
        ({"objective_options": {"color": 1}}, out, "infonce has no option 'color'"),
        ({"modalities": ("image", "smell")}, out, "'smell'"),
        ({"precision": "bf16"}, out, "needs a CUDA device"),
        ({"log_to": ("tensorboard",)}, {}, "needs out="),
        ({}, {**out, "device": "abacus"}, "unknown device 'abacus'"),
        ({}, {**out, "device": "cuda:99"}, "is not available"),
        ({}, {**out, "progress": "dots"}, "unknown progress 'dots'"),
        ({}, {**out, "resume": "yes"}, "unknown resume 'yes'"),
        ({}, {"resume": "required"}, "needs out="),
    ]
    for changes, options, message in cases:
        with pytest.raises(ConfigError, match=message):
            run(tiny_store(), tiny_config(**changes), **options)
        assert not (tmp_path / "run" / "log.jsonl").exists()


def test_out_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match=r"out must be a folder, but .* is a file"):
        run(tiny_store(), tiny_config(), out=tmp_path / "run")


def test_no_training_rows() -> None:
    columns = {name: np.ones((4, dim)) for name, dim in DIMS.items()}
    with pytest.raises(DataError, match="has 1 training row;"):
        run(EmbeddingStore.from_arrays(columns, split=["train", "val", "test", "test"]), tiny_config())


def test_a_modality_that_no_training_row_has() -> None:
    columns = {name: np.random.default_rng(0).normal(size=(6, dim)) for name, dim in DIMS.items()}
    present = {"audio": np.array([False, False, False, True, True, True])}
    store = EmbeddingStore.from_arrays(columns, present=present, split=["train"] * 3 + ["test"] * 3)
    with pytest.raises(DataError, match="'audio' is absent from all 3 training rows"):
        run(store, tiny_config())


class Poisoned(EmbeddingStore):
    def __init__(self, store: EmbeddingStore, name: str, row: int, value: float) -> None:
        self.__dict__.update(store.__dict__)
        self._name, self._row, self._value = name, row, value

    def array(self, name: str) -> np.ndarray:
        values = np.array(super().array(name))
        if name == self._name:
            values[self._row] = self._value
        return values


def test_non_finite_features_raise_at_the_start() -> None:
    for value, input_norm in itertools.product([np.nan, np.inf], ["standardize", "unit", "none"]):
        store = Poisoned(tiny_store(), "text", 9, value)
        message = rf"'text', row 9 of the store \('item 9'\), holds {value} at column 0"
        with pytest.raises(NonFiniteError, match=message):
            run(store, tiny_config(input_norm=input_norm))


def test_rows_of_zeros_raise_where_only_the_direction_counts() -> None:
    store = Poisoned(tiny_store(), "text", 9, 0.0)
    run(store, tiny_config(epochs=1))
    with pytest.raises(NonFiniteError, match=r"'text', row 9 of the store .* holds only zeros"):
        run(store, tiny_config(input_norm="unit"))


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    tmp_path: Path, number: int, error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    config = tiny_config(save_steps=None)

    def send(info: Any) -> None:
        if info["step"] == 7:
            os.kill(os.getpid(), number)

    with pytest.raises(error) as caught:
        run(tiny_store(), config, out=tmp_path / "run", on_step=send)
    message = str(caught.value) if number == signal.SIGINT else capsys.readouterr().err
    assert "interrupted after step 7 of 20" in message
    assert "resume='auto'" in message
    if number == signal.SIGTERM:
        assert caught.value.code == 143  # type: ignore[attr-defined]
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000007"]
    assert signal.getsignal(number) is before
    assert digest_of(run(tiny_store(), config, out=tmp_path / "run", resume="auto")) == finished().digest


def test_interrupted_without_a_folder() -> None:
    with pytest.raises(KeyboardInterrupt, match="nothing was saved"):
        run(tiny_store(), tiny_config(), on_step=stop_at(3))


def test_trainings_in_threads_and_callbacks_give_the_weights_of_a_single_training() -> None:
    """Runs in threads share the random generators of the process, and cannot install signal handlers."""
    digests = []
    start = threading.Barrier(2)

    def train() -> None:
        start.wait()
        digests.append(digest_of(run(tiny_store(), tiny_config())))

    def train_inside(info: Any) -> None:
        if info["step"] == 3:
            digests.append(digest_of(run(tiny_store(), tiny_config())))

    threads = [threading.Thread(target=train, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    digests.append(digest_of(run(tiny_store(), tiny_config(), on_step=train_inside)))
    assert digests == 4 * [finished().digest]


def test_the_call_of_the_readme(tmp_path: Path) -> None:
    result = fit(tiny_store(), TrainConfig(epochs=2, dim=4, hidden=4), out=tmp_path / "run")
    assert result.history


def test_two_runs_at_once_do_not_share_a_folder(tmp_path: Path) -> None:
    """Without a lock, both runs would finish, and the last would overwrite the other."""
    errors = []

    def another(info: Any) -> None:
        if info["step"] == 2:
            with pytest.raises(ConfigError, match="another run is training in"):
                run(tiny_store(), tiny_config(epochs=2), out=tmp_path / "run", resume="auto")
            errors.append(info["step"])

    run(tiny_store(), tiny_config(epochs=2), out=tmp_path / "run", on_step=another)
    assert errors == [2]
    run(tiny_store(), tiny_config(epochs=2), out=tmp_path / "run", resume="auto")


def test_a_signal_after_the_last_step_is_raised() -> None:
    """A signal after the last step is raised again, so that the caller can handle it."""
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGINT)


def test_a_worker_that_received_sigterm_stops_after_its_first_step(tmp_path: Path) -> None:
    """A SIGTERM that the handler of the worker recorded before training stops the run after its first step."""

    class Worker:
        ending = False

        def on_sigterm(self, number: int, frame: object) -> None:
            self.ending = True

    worker = Worker()
    before = signal.signal(signal.SIGTERM, worker.on_sigterm)
    try:
        signal.raise_signal(signal.SIGTERM)
        assert worker.ending
        with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
            run(tiny_store(), tiny_config(), out=tmp_path / "run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000001"]
    resumed = run(tiny_store(), tiny_config(), out=tmp_path / "run", resume="required")
    assert digest_of(resumed) == finished().digest
