"""Test that early stopping returns the best weights, and that its state is restored after interruptions."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from early_stopping_cases import STOPPING, store_with_validation
from train_cases import bits, run, stop_at, tiny_config, tiny_store, without_time
from unialign.errors import ConfigError, DataError
from unialign.evaluation import evaluate, selection_score
from unialign.report import _curves, _folder
from unialign.space import Space
from unialign.train import FitResult, check_fit
from unialign.train._early_stopping import EarlyStopping
from unialign.train._run_settings import batches_of

STORE = store_with_validation()


def validation(result: FitResult) -> dict[int, float]:
    return {record["step"]: record["validation"]["mrr"] for record in result.history if "validation" in record}


def weights(result: FitResult) -> dict[str, bytes]:
    return bits(result.space.state_dict()) | bits(result.objective.state_dict())


def test_training_stops_and_returns_the_best_weights(tmp_path: Path) -> None:
    """The best weights are those of a run without early stopping after the same number of steps."""
    seen: dict[int, dict[str, bytes]] = {}
    result = run(STORE, tiny_config(**STOPPING), out=tmp_path / "run")
    curve = validation(result)
    first = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["validation"]["mrr"]
    values = [first, *curve.values()]
    best = int(np.argmax(values))
    last = result.history[-1]["step"]
    assert last < 20, "the case must stop early"
    assert list(curve) == list(range(2, last + 1, 2))
    assert result.best_step == 2 * best
    assert len(values) - 1 - best == 3
    assert selection_score(STORE, result.space, "mrr") == values[best]

    from unialign.train import EvalCallback

    def keep(step: int, space: Space) -> None:
        seen[step] = bits(space.state_dict())

    run(STORE, tiny_config(lr=0.05), eval_callback=EvalCallback(range(0, 21, 2), keep))
    assert bits(result.space.state_dict()) == seen[2 * best]
    assert bits(Space.from_pretrained(tmp_path / "run" / "space").state_dict()) == seen[2 * best]


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    """The run is interrupted in the middle of epochs, at an evaluation, and between the last step and the result."""
    config = tiny_config(**STOPPING)
    whole = run(STORE, config)
    last = whole.history[-1]["step"]
    for stop in (1, 3, 4, last):
        out = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run(STORE, config, out=out, on_step=stop_at(stop))
        resumed = run(STORE, config, out=out, resume="required")
        assert weights(resumed) == weights(whole), stop
        assert without_time(resumed.history) == without_time(whole.history), stop
        assert resumed.best_step == whole.best_step, stop
        again = run(STORE, config, out=out, resume="auto")
        assert weights(again) == weights(whole), "a finished run is returned unchanged"


def test_without_improvement_to_the_end_the_best_weights_are_kept(tmp_path: Path) -> None:
    patient = run(STORE, tiny_config(**STOPPING | {"early_stopping_patience": 99, "eval_epochs": 3}))
    curve = validation(patient)
    assert list(curve) == [6, 12, 18, 20], "the last step is always evaluated"
    assert patient.best_step in (0, *curve)


def test_nan_is_worse_than_every_value() -> None:
    for metric, values, best in (("mrr", (0.1, 0.3), 4), ("median_rank", (7.0, 3.0), 4)):
        config = tiny_config(**STOPPING | {"early_stopping_metric": metric, "early_stopping_patience": 3})
        stopping = EarlyStopping(STORE, config, batches_of(STORE, STORE.rows("train"), config), 0)
        for step, value in enumerate((math.nan, math.nan, values[0], math.nan, values[1], math.nan)):
            stopping.update(step, value, {})
        assert stopping.best_step == best


def test_evaluations_begin_after_the_infonce_warmup() -> None:
    recipe = {"objective": "gram", "objective_options": {"anchor": "text"}, "infonce_warmup_ratio": 0.3}
    result = run(STORE, tiny_config(**STOPPING | recipe | {"early_stopping_patience": 99}))
    assert min(validation(result)) == 8
    assert result.best_step is not None
    assert result.best_step > 6


def test_lower_is_better_for_a_rank() -> None:
    result = run(STORE, tiny_config(**STOPPING | {"early_stopping_metric": "median_rank"}))
    values = {r["step"]: r["validation"]["median_rank"] for r in result.history if "validation" in r}
    assert selection_score(STORE, result.space, "median_rank") <= min(values.values())


def test_auto_is_the_mean_logarithm_of_the_defined_metrics() -> None:
    store = store_with_validation(labels=True)
    space = run(store, tiny_config(epochs=1)).space
    metrics = evaluate(store, space, split="val").metrics
    floor = 0.5 / len(store.rows("val"))
    logs = [math.log(max(metrics[name], floor)) for name in ("recall@1", "joint_recall@1", "label_map")]
    assert selection_score(store, space, "auto") == pytest.approx(sum(logs) / 3, abs=1e-12)
    assert selection_score(STORE, space, "auto") == pytest.approx(sum(logs[:2]) / 2, abs=1e-12)
    for name in ("recall@1", "joint_recall@1", "label_map", "v_measure"):
        assert selection_score(store, space, name) == metrics[name]


def test_wrong_settings_raise_errors_that_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"early_stopping_patience needs a validation split.*random_split"):
        run(tiny_store(), tiny_config(early_stopping_patience=2))
    with pytest.raises(ConfigError, match="needs a validation split"):
        check_fit(tiny_store(), tiny_config(early_stopping_patience=2))
    with pytest.raises(ConfigError, match="did you mean 'recall@1'"):
        run(STORE, tiny_config(early_stopping_patience=2, early_stopping_metric="recall1"))
    with pytest.raises(ConfigError, match="better direction, got 'effective_rank'"):
        run(STORE, tiny_config(early_stopping_patience=2, early_stopping_metric="effective_rank"))
    with pytest.raises(DataError, match=r"'label_map' is undefined .* labels of at least two classes"):
        run(STORE, tiny_config(early_stopping_patience=2, early_stopping_metric="label_map"))


def test_the_report_shows_the_curve(tmp_path: Path) -> None:
    result = run(STORE, tiny_config(**STOPPING), out=tmp_path / "run")
    lines = _folder._read_log(tmp_path / "run" / "log.jsonl", "infonce")
    (panel,) = [panel for panel in _curves.panels({0: lines}, STORE.modalities) if panel.title == "validation"]
    (curve,) = panel.curves
    assert curve.name == "mrr"
    assert dict(curve.points) == validation(result)


def test_the_evaluation_does_not_change_the_steps() -> None:
    """Dropout draws and losses equal those of a run without early stopping."""
    plain = run(STORE, tiny_config(lr=0.05)).history
    torch.manual_seed(5)
    stopped = run(STORE, tiny_config(**STOPPING)).history
    assert [r["loss"] for r in stopped] == [r["loss"] for r in plain[: len(stopped)]]
