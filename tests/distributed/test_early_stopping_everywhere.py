"""Test early stopping on several processes, also after an interruption in the middle of an epoch."""

from pathlib import Path
from typing import Any

from early_stopping_cases import STOPPING, store_with_validation
from processes import Pool
from train_cases import digest_of, run as run_alone, stop_at, tiny_config, without_time


def run(rank: int, group: Any, stop: int | None, options: dict[str, Any]) -> dict[str, Any]:
    on_step = None if stop is None else stop_at(stop)
    try:
        config = tiny_config(**STOPPING | {"early_stopping_patience": 1})
        result = run_alone(store_with_validation(), config, group=group, on_step=on_step, **options)
    except KeyboardInterrupt as error:
        return {"error": str(error)}
    history = without_time(result.history)
    return {"history": history, "best_step": result.best_step, "digest": digest_of(result)}


def test_all_processes_stop_at_the_same_step_and_resume_bit_by_bit(pool: Pool, tmp_path: Path) -> None:
    whole = pool.run(run, None, {}, processes=2)
    assert whole[0] == whole[1]
    assert whole[0]["history"][-1]["step"] < 20
    assert whole[0]["best_step"] < whole[0]["history"][-1]["step"]
    stopped = pool.run(run, 3, {"out": tmp_path / "run"}, processes=2)
    assert all("after step 3 of 20" in seen["error"] for seen in stopped)
    resumed = pool.run(run, None, {"out": tmp_path / "run", "resume": "required"}, processes=2)
    assert resumed == whole
