"""Trains in child processes, kills them with SIGKILL at random moments, resumes, and prints what came of it as JSON.

Run by `test_crash.py`. Children are forked, so that torch is imported once and not twenty times; each is a process of
its own and dies as any other would.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what the first optimiser of a process imports, in a second: here once, not in every child
from train_cases import digest_of, run, tiny_config, tiny_store

from unialign.train._log import read_log

torch.set_num_threads(1)
# A checkpoint after every step: much of the time goes into writing, and many of the kills fall there.
CONFIG = tiny_config(
    objective="gram", objective_options={"anchor": "text"}, warm_start=0.3, checkpoint_every=1, epochs=8
)


def in_child(work: Callable[[], Any], kill_after: float | None = None) -> str | None:
    """The result of `work` done in a child process, or None if it was killed first."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(work()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("a child failed")
    return text


def train(out: Path, resume: str) -> str:
    return digest_of(run(tiny_store(), CONFIG, out=out, resume=resume))


def newest(out: Path) -> str:
    names = [path.name for path in (out / "checkpoints").glob("step-*")]
    return max(names, default="none")


def one_trial(out: Path, moment: float) -> dict[str, Any] | None:
    """Kill a run after `moment` seconds and resume it; None if it was done by then."""
    if in_child(lambda: train(out, "never"), kill_after=moment) is not None:
        return None
    left = newest(out)
    result = in_child(lambda: train(out, "auto"))
    steps = [record["step"] for record in read_log(out / "log.jsonl") if record["kind"] == "step"]
    return {"newest": left, "digest": result, "log_steps": steps}


def main(folder: Path, trials: int) -> None:
    started = time.perf_counter()
    digest = in_child(lambda: train(folder / "whole", "never"))
    duration = time.perf_counter() - started
    moments = random.Random(0)
    report = []
    while len(report) < trials:
        moment = moments.uniform(0, duration)
        trial = one_trial(folder / f"trial-{time.monotonic_ns()}", moment)
        if trial is not None:
            report.append(trial | {"moment": moment})
    print(json.dumps({"digest": digest, "steps": 16, "duration": duration, "trials": report}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
