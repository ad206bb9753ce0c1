"""The loop over steps, with its log, health monitor, checkpoints and orderly stop."""

import signal
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from unialign._version import __version__
from unialign.batch import Batch
from unialign.config import ProgressMode
from unialign.distributed import local_scope
from unialign.losses import LossTerm, Objective
from unialign.train._checkpoint import Snapshot, save_checkpoint
from unialign.train._eval_callback import EvalCallback
from unialign.train._log import RunLog
from unialign.train._monitor import HealthMonitor
from unialign.train._progress import Progress
from unialign.train._run_dir import RunFolder
from unialign.train._signals import StopRequest
from unialign.train._step import Outcome, Stepper

__all__ = ["Loop", "OnStep", "environment"]

_NO_SIGNAL = 0  # signals are numbered from 1

OnStep = Callable[[Mapping[str, Any]], None]


class Loop:
    """The loop over steps, with its log, monitor and checkpoints."""

    def __init__(
        self,
        engine: Stepper,
        folder: RunFolder | None,
        log: RunLog,
        monitor: HealthMonitor,
        facts: dict[str, Any],
        probe: EvalCallback | None = None,
    ) -> None:
        self.engine, self.folder, self.log, self.monitor, self.facts = engine, folder, log, monitor, facts
        self.probe = probe
        self.config, self.steps = engine.config, engine.batches.steps
        self.health: dict[str, float] = {}
        self.started, self.seconds_of_probes = time.perf_counter(), 0.0
        earlier = log.history
        self.seconds_before = float(earlier[-1]["seconds"]) if earlier else 0.0

    def train(self, done: int, on_step: OnStep | None, progress: ProgressMode) -> None:
        """Take the steps after `done`; leave a checkpoint at the end or when asked to stop."""
        peers = self.engine.peers
        bar = Progress(progress if peers.is_rank0 else "none", steps=self.steps, done=done, label=self.config.objective)
        self.started = time.perf_counter()
        self.engine.space.train()
        try:
            with StopRequest() as stop:
                if done == 0:
                    peers.run_all_or_raise(lambda: self._look(0))
                for step in range(done, self.steps):
                    outcome = self._step(step)
                    asked = peers.run_all_or_raise(partial(self._tell, step, outcome, on_step, bar))
                    asked = stop.received if asked is None else asked
                    # Whoever of the processes was asked to stop, all stop after the same step.
                    number = peers.all_reduce_max(_NO_SIGNAL if asked is None else asked)
                    received = None if number == _NO_SIGNAL else number
                    if self._is_due(step + 1) or received is not None:
                        self._checkpoint(step + 1)
                    if received is not None:
                        stop.leave(self._farewell(step + 1), received)
        finally:
            bar.close()

    def _step(self, step: int) -> Outcome:
        completed = step + 1

        def look(objective: Objective, batch: Batch, terms: dict[str, LossTerm]) -> None:
            self.health = self.monitor.look(objective, batch, terms, step=completed)

        return self.engine.step(step, look if self._is_watched(completed) else None)

    def _tell(self, step: int, outcome: Outcome, on_step: OnStep | None, bar: Progress) -> int | None:
        """Tell everybody who wants to know of a step; the signal to stop for, if somebody wants that."""
        self._record(step, outcome)
        info = {
            "step": step + 1,
            "steps": self.steps,
            "epoch": self.engine.batches.epoch(step) + 1,
            "objective": outcome.objective.name,
            "loss": outcome.loss,
            "lr": outcome.lr,
            "grad_norm": outcome.grad_norm,
        }
        bar.step(info)
        self._look(step + 1)
        return _call(on_step, info) if self.engine.peers.is_rank0 else None

    def _record(self, step: int, outcome: Outcome) -> None:
        completed = step + 1
        for warning in self.monitor.say():
            self.log.write("warning", warning.step, {"code": warning.code, "message": warning.message})
        watched = self._is_watched(completed)
        if completed % self.config.logging_steps == 0 or completed in (1, self.steps) or watched:
            self.log.write(
                "step",
                completed,
                {
                    "epoch": self.engine.batches.epoch(step) + 1,
                    "objective": outcome.objective.name,
                    "loss": outcome.loss,
                    "terms": {name: float(value) for name, value in outcome.terms.items()},
                    "lr": outcome.lr,
                    "grad_norm": outcome.grad_norm,
                    "temperature": self.engine.temperature(outcome.objective),
                    "seconds": round(self._seconds(), 3),
                    **({"health": self.health} if watched else {}),
                },
            )

    def _look(self, completed: int) -> None:
        if self.probe is not None and self.engine.peers.is_rank0:
            began = time.perf_counter()
            with local_scope():
                self.probe.visit(completed, self.engine.space, self.engine.device)
            self.seconds_of_probes += time.perf_counter() - began

    def _seconds(self) -> float:
        """Of training so far, in the parts before a resumption too; looks of a probe are not training."""
        return self.seconds_before + time.perf_counter() - self.started - self.seconds_of_probes

    def _is_watched(self, completed: int) -> bool:
        return completed % self.config.monitor_steps == 0 or completed == self.steps

    def _is_due(self, completed: int) -> bool:
        every = self.config.save_steps
        return completed == self.steps or (every is not None and completed % every == 0)

    def _checkpoint(self, completed: int) -> None:
        if self.folder is None:
            return
        folder = self.folder.checkpoints

        def save() -> None:
            snapshot = Snapshot(
                step=completed,
                space=self.engine.space.state_dict(),
                objective=self.engine.objective_state(),
                optimizer=self.engine.optimizer_state(),
                facts=self.facts | {"environment": environment(self.engine.device, self.engine.peers.world_size)},
            )
            save_checkpoint(folder, snapshot, keep=self.config.save_total_limit)

        self.engine.peers.broadcast_from_rank0(save)

    def _farewell(self, completed: int) -> str:
        if self.folder is None:
            return f"training was interrupted after step {completed} of {self.steps}; without out= nothing was kept"
        return (
            f"training was interrupted after step {completed} of {self.steps}; a checkpoint is in "
            f"{self.folder.checkpoints}: continue with resume='auto'"
        )


def _call(on_step: OnStep | None, info: Mapping[str, Any]) -> int | None:
    """Tell the caller of a step; a KeyboardInterrupt is the polite way to stop a run from inside, as Ctrl-C does."""
    if on_step is not None:
        try:
            with local_scope():
                on_step(info)
        except KeyboardInterrupt:
            return signal.SIGINT
    return None


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """What bit-exactness depends on besides settings and data."""
    return {
        "unialign": __version__,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device),
        "processes": processes,
    }
