"""Test that `fit` on several processes gives the loss curve, the weights and the folder of `fit` on one process."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from processes import Pool
from train_cases import Pull, digest_of, finished, run as run_alone, stop_at, tiny_config, tiny_store, without_time
from unialign.errors import DataError
from unialign.losses import create
from unialign.train import EvalCallback, HealthWarning

CASES: dict[str, dict[str, Any]] = {
    "infonce": {},
    "infonce, micro-batches of 2 rows": {"micro_batch_size": 2},
    "unialign, linear heads": {"objective": "unialign", "head": "linear", "objective_options": {"anchor": "image"}},
    "sigmoid, learned scale and bias": {"objective": "sigmoid", "modalities": ("image", "text")},
    "gram after InfoNCE": {"objective": "gram", "infonce_warmup_ratio": 0.5, "objective_options": {"anchor": "image"}},
    "features weight the negatives": {"objective": "unialign", "objective_options": {"preset": "retrieval"}},
    "fewer rows than processes": {"batch_size": 2, "gradient_accumulation_steps": 1, "epochs": 2},
}
# These cases have no missing rows, since the gradient of a row without negatives is only rounding error, but AdamW
# would scale it to a full step.
COMPLETE = {"fewer rows than processes"}
# The numbers of processes in each case (default 3, which get unequal parts of a batch of 8).
PROCESSES = {"infonce": (2, 3, 4), "fewer rows than processes": (4,)}


def run(
    rank: int, group: Any, changes: dict[Any, Any], options: dict[str, Any], missing: str, stop: int | None
) -> dict[str, Any]:
    changes = changes.get(rank, changes)
    store = tiny_store(missing=missing)
    seen: dict[str, Any] = {"error": None, "steps": []}

    def on_step(info: Any) -> None:
        seen["steps"].append(info["step"])
        if stop is not None:
            stop_at(stop)(info)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = run_alone(store, tiny_config(**changes), group=group, on_step=on_step, **options)
        except (Exception, KeyboardInterrupt) as error:
            return seen | {"error": (type(error).__name__, str(error))}
        finally:
            seen["warned"] = [str(w.message) for w in caught if isinstance(w.message, HealthWarning)]
    return seen | {
        "history": result.history,
        "codes": [warning.code for warning in result.warnings],
        "digest": digest_of(result),
        "weights": {name: tensor.numpy() for name, tensor in result.space.state_dict().items()},
    }


def together(
    pool: Pool,
    processes: int,
    changes: dict[Any, Any],
    *,
    missing: str = "some",
    stop: int | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    if processes == 1:
        return [run(0, None, changes, options, missing, stop)]
    return pool.run(run, changes, options, missing, stop, processes=processes)


def assert_same_curve(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert [record["step"] for record in one] == [record["step"] for record in other]
    for a, b in zip(one, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
        assert b["terms"] == pytest.approx(a["terms"], abs=1e-4)
        assert b["temperature"] == (a["temperature"] and pytest.approx(a["temperature"], rel=1e-5))
        assert b.get("health") == (a.get("health") and pytest.approx(a["health"], rel=1e-3, abs=1e-5))


@pytest.mark.parametrize("case", CASES)
def test_curve_and_weights_of_one_process(pool: Pool, case: str) -> None:
    """Processes have unequal numbers of rows in the last batch of 7, and some have no rows in batches of 2."""
    changes, missing = {"dropout": 0.0} | CASES[case], "none" if case in COMPLETE else "some"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        alone = run_alone(tiny_store(missing=missing), tiny_config(**changes))
    for processes in PROCESSES.get(case, (3,)):
        everywhere = together(pool, processes, changes, missing=missing)
        assert [seen["error"] for seen in everywhere] == [None] * processes
        for seen in everywhere:
            assert_same_curve(alone.history, seen["history"])
            assert seen["digest"] == everywhere[0]["digest"]
            assert without_time(seen["history"]) == without_time(everywhere[0]["history"])
        for name, tensor in alone.space.state_dict().items():
            np.testing.assert_allclose(everywhere[0]["weights"][name], tensor.numpy(), rtol=1e-3, atol=2e-4)


def test_an_objective_instance(pool: Pool) -> None:
    changes = {"objective": Pull(0.5), "dropout": 0.0, "epochs": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        alone = run_alone(tiny_store(), tiny_config(**changes))
    for seen in together(pool, 2, changes):
        assert_same_curve(alone.history, seen["history"])


def test_dropout_differs_between_processes_and_is_reproducible(pool: Pool) -> None:
    first, again = (together(pool, 2, {"epochs": 3}) for _ in range(2))
    assert first[0]["digest"] == first[1]["digest"] == again[0]["digest"] == again[1]["digest"]
    assert finished(epochs=3).digest != first[0]["digest"]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (1, 2), (2, 1)])
def test_resumption_in_mid_epoch_on_another_number_of_processes(
    pool: Pool, tmp_path: Path, before: int, after: int
) -> None:
    changes, out = {"dropout": 0.0, "gradient_accumulation_steps": 1}, tmp_path / "run"
    whole = finished(**changes).result
    stopped = together(pool, before, changes, stop=7, out=out)
    assert {seen["error"][0] for seen in stopped} == {"KeyboardInterrupt"}
    assert "after step 7 of 30" in stopped[0]["error"][1]
    continued = together(pool, after, changes, out=out, resume="required")
    for seen in continued:
        assert_same_curve(whole.history, seen["history"])
        assert "environment" in seen["codes"]
    assert f"processes from {before} to {after}" in continued[0]["warned"][0]
    assert not any(seen["warned"] for seen in continued[1:])
    assert [seen["steps"] for seen in continued] == [list(range(8, 31)), *[[]] * (after - 1)]


def test_resumption_on_the_same_processes_is_bit_by_bit(pool: Pool, tmp_path: Path) -> None:
    whole = together(pool, 2, {}, out=tmp_path / "whole")
    together(pool, 2, {}, stop=7, out=tmp_path / "run")
    continued = together(pool, 2, {}, out=tmp_path / "run", resume="auto")
    assert continued[1]["digest"] == whole[0]["digest"]
    assert without_time(continued[1]["history"]) == without_time(whole[0]["history"])
    read = together(pool, 2, {}, out=tmp_path / "run", resume="auto")
    assert [seen["digest"] for seen in read] == [whole[0]["digest"]] * 2
    names = sorted(entry.name for entry in (tmp_path / "run").iterdir() if entry.name != ".lock")
    assert names == ["checkpoints", "config.yaml", "log.jsonl", "space"]


def test_a_space_on_each_process(pool: Pool) -> None:
    """With `group=None`, every process of a job trains a separate space, here with different seeds."""
    expected = [finished(seed=seed, epochs=2).digest for seed in range(3)]
    assert pool.run(train_alone, processes=3) == expected


def train_alone(rank: int, group: Any) -> str:
    return digest_of(run_alone(tiny_store(), tiny_config(seed=rank, epochs=2), group=None))


def test_different_arguments_on_a_process(pool: Pool, tmp_path: Path) -> None:
    changes = {0: {}, 1: {}, 2: {"lr": 0.5}}
    for seen in together(pool, 3, changes, out=tmp_path / "run"):
        kind, message = seen["error"]
        assert kind == "ConfigError"
        assert "process 2 of 3 calls fit with lr=0.5, but process 0 with 0.01" in message
    assert not (tmp_path / "run").exists()


def test_an_error_of_process_0_is_raised_on_all(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for rank, seen in enumerate(together(pool, 2, {}, out=tmp_path / "file" / "run")):
        assert seen["error"][0] in ("ConfigError", "CheckpointError")
        assert ("process 0 of 2: " in seen["error"][1]) == (rank == 1)
    together(pool, 2, {"epochs": 1}, out=tmp_path / "run")
    for seen in together(pool, 2, {"epochs": 1}, out=tmp_path / "run"):
        assert seen["error"][0] == "ConfigError"
        assert "holds a finished run" in seen["error"][1]


def diverge(rank: int, group: Any, changes: dict[str, Any]) -> tuple[str, str]:
    try:
        run_alone(tiny_store(), tiny_config(**changes), group=group)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


@pytest.mark.parametrize(("processes", "lr"), [(2, 1e30), (3, 1e30), (2, 1e18), (3, 1e18)])
def test_a_non_finite_number_is_explained_equally_on_all(pool: Pool, processes: int, lr: float) -> None:
    """Only one process has the row that is not finite, but all processes must raise the same error."""
    changes = {"lr": lr, "warmup_ratio": 0.0, "dropout": 0.0, "max_grad_norm": None, "head": "linear"}
    kind, message = diverge(0, None, changes)
    everywhere = pool.run(diverge, changes, processes=processes)
    assert kind == "NonFiniteError"
    assert everywhere == [everywhere[0]] * processes
    assert everywhere[0][0] == kind
    assert "of the store" in everywhere[0][1]
    assert message.split(":")[0] == everywhere[0][1].split(":")[0]


def test_a_run_does_not_change_the_state_of_a_process(pool: Pool) -> None:
    before, after = pool.run(state_around_a_run, processes=2)
    assert before == after == (True, True)


def state_around_a_run(rank: int, group: Any) -> tuple[bool, bool]:
    numbers, enabled = torch.get_rng_state(), torch.is_grad_enabled()
    run_alone(tiny_store(), tiny_config(epochs=1), group=group)
    return bool(torch.equal(numbers, torch.get_rng_state())), enabled == torch.is_grad_enabled()


def end_badly(rank: int, group: Any, what: str, folder: str) -> tuple[list[str], str]:
    """Run a training that process 0 ends with an error, then a second training."""

    def on_step(info: Any) -> None:
        if info["step"] == 3:
            if what == "error":
                raise DataError("stop")
            if what == "exit":
                raise SystemExit(0)
            if what == "other error":
                raise ZeroDivisionError("1/0")

    def evaluate(step: int, space: Any) -> None:
        if what == "eval_callback":
            raise DataError("stop")

    ended: BaseException | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("error" if what == "warning" and rank == 0 else "ignore", HealthWarning)
        config = tiny_config(epochs=3, objective="unialign", objective_options={"alignment_weight": 1e-4})
        try:
            run_alone(
                tiny_store(),
                config,
                group=group,
                on_step=on_step,
                eval_callback=EvalCallback([2], evaluate),
                out=Path(folder) / "run",
            )
        except BaseException as error:
            ended = error
    words = [type(ended).__name__, str(ended)]
    return words, digest_of(run_alone(tiny_store(), tiny_config(epochs=1), group=group))


@pytest.mark.parametrize(
    ("what", "kinds"),
    [
        ("error", ["DataError", "DataError"]),
        ("eval_callback", ["DataError", "DataError"]),
        ("other error", ["ZeroDivisionError", "DistributedError"]),
        ("exit", ["SystemExit", "SystemExit"]),
        ("warning", ["HealthWarning", "DistributedError"]),
    ],
)
def test_an_error_of_one_process_ends_all_and_the_next_run_works(
    pool: Pool, tmp_path: Path, what: str, kinds: list[str]
) -> None:
    """Only process 0 calls callbacks, but an error in a callback must end all processes."""
    seen = pool.run(end_badly, what, str(tmp_path), processes=2)
    assert [words[0] for words, _ in seen] == kinds
    assert seen[0][1] == seen[1][1]
    if what not in ("exit", "warning"):
        assert seen[1][0][1].startswith("process 0 of 2: ")


def measure_in_callbacks(rank: int, group: Any) -> list[float]:
    """Return the losses computed in `eval_callback` and `on_step`, which only process 0 calls."""
    values: list[float] = []
    batch = {name: torch.eye(3, 4) for name in ("image", "text")}

    def note(*_: Any) -> None:
        values.append(float(create("infonce")(batch).total))

    run_alone(tiny_store(), tiny_config(epochs=1), group=group, on_step=note, eval_callback=EvalCallback([0, 1], note))
    return values


def test_losses_in_callbacks_are_those_of_their_process(pool: Pool) -> None:
    expected = float(create("infonce")({name: torch.eye(3, 4) for name in ("image", "text")}).total)
    assert pool.run(measure_in_callbacks, processes=2) == [[expected] * 4, []]
