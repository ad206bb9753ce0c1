"""Training loop of spaces and decoders."""

import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

from unialign._stop_request import StopRequest
from unialign.config import DecoderConfig, ProgressMode, Resume, TrainConfig
from unialign.distributed import local_scope
from unialign.errors import CheckpointError
from unialign.io import training_environment
from unialign.train._checkpoint import Snapshot, save_checkpoint
from unialign.train._early_stopping import EarlyStopping
from unialign.train._eval_callback import EvalCallback
from unialign.train._log import RunLog, read_log
from unialign.train._monitor import HealthWarning
from unialign.train._process_group import ProcessGroup
from unialign.train._progress import Progress
from unialign.train._random_state import isolated_random_state
from unialign.train._run_dir import RunDir
from unialign.train._training_task import StepReport, TrainingTask

# Signals are numbered from 1.
_NO_SIGNAL = 0

OnStep = Callable[[Mapping[str, Any]], None]


class Trainer:
    """If `folder` is None, nothing is written. `on_step` is called on process 0. The last step is always logged and
    saved.
    """

    def __init__(
        self,
        task: TrainingTask,
        config: TrainConfig | DecoderConfig,
        *,
        folder: RunDir | None = None,
        resume: Resume = "never",
        processes: ProcessGroup | None = None,
        on_step: OnStep | None = None,
        eval_callback: EvalCallback | None = None,
        early_stopping: EarlyStopping | None = None,
        progress: ProgressMode = "auto",
    ) -> None:
        self.task, self.config, self.folder, self.resume = task, config, folder, resume
        self.processes = ProcessGroup() if processes is None else processes
        self.on_step, self.eval_callback, self.early_stopping = on_step, eval_callback, early_stopping
        self.progress: ProgressMode = progress if self.processes.is_rank0 else "none"
        self.log = RunLog()
        self.warnings: list[HealthWarning] = []
        self._started = self._seconds_before = self._seconds_of_callbacks = 0.0

    def run(self) -> None:
        """The global random state does not change."""
        with isolated_random_state(self.task.device), closing(self.task):
            self._run()

    def _run(self) -> None:
        snapshot, finished = self._find_checkpoint()
        done = 0 if snapshot is None else snapshot.step
        self.processes.run_all_or_raise(lambda: self._setup(snapshot))
        self._broadcast_weights()
        with ExitStack() as stack:
            # Do not write to the folder of a finished run, which may be read-only.
            folder = None if finished else self.folder
            if folder is not None:
                self.processes.broadcast_from_rank0(lambda: stack.enter_context(folder.opened()))
            stack.enter_context(closing(self.log))
            self._open_log(done, finished)
            if not finished:
                validation = self._validate(0) if snapshot is None else {}
                self.processes.run_all_or_raise(lambda: self._log_beginning(snapshot, validation))
            self._train(done, is_finished=finished)
            if self.early_stopping is not None:
                self.early_stopping.restore(self.task.parameters)
            self.task.model.eval()
            self.processes.run_all_or_raise(self.task.before_result)
            if folder is not None:
                self.processes.broadcast_from_rank0(lambda: self.task.model.save_pretrained(folder.result))

    def _find_checkpoint(self) -> tuple[Snapshot | None, bool]:
        """Return the state to resume from, and whether the run is finished."""
        folder = self.folder
        if folder is None:
            return None, False

        def find() -> tuple[Snapshot | None, bool]:
            snapshot = folder.find_checkpoint(self.resume)
            return snapshot, snapshot is not None and self._is_last(snapshot) and self._has_result(folder)

        return self.processes.broadcast_from_rank0(find)

    def _is_last(self, snapshot: Snapshot) -> bool:
        return snapshot.step == self.task.steps or (
            self.early_stopping is not None and self.early_stopping.is_stopped_in(snapshot.facts)
        )

    def _has_result(self, folder: RunDir) -> bool:
        """Otherwise, the run saves the model again."""
        try:
            return folder.has_result and self.task.model_type.from_pretrained(folder.result) is not None
        except CheckpointError:
            return False

    def _setup(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            self.task.setup()
            self._seconds_before = self.task.setup_seconds
            return
        self._seconds_before = float(snapshot.facts.get("seconds", 0.0))
        with self._reading(snapshot):
            self.task.restore(snapshot.tensors, snapshot.facts)
        self.task.setup()
        with self._reading(snapshot):
            self.task.load_tensors(snapshot.tensors)
            if self.early_stopping is not None:
                self.early_stopping.load(snapshot.tensors, snapshot.facts, self.task.device)

    @contextmanager
    def _reading(self, snapshot: Snapshot) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint of step {snapshot.step} does not fit this configuration: {error}"
            ) from None

    def _broadcast_weights(self) -> None:
        """Different hardware may round differently."""
        for group, tensors in self.task.tensors().items():
            if group != "optimizer":
                self.processes.broadcast(tensor for tensor in tensors.values() if tensor.is_floating_point())

    def _open_log(self, done: int, finished: bool) -> None:
        """Open the file on process 0; load the earlier records on every process."""
        folder = self.folder
        if folder is None:
            return

        def read() -> list[dict[str, Any]]:
            if finished:
                return read_log(folder.log)
            log_to = self.config.log_to if isinstance(self.config, TrainConfig) else ()
            return self.log.open(folder.log, keep_steps=done, log_to=log_to, settings=self.config.to_dict())

        self.log.records = self.processes.broadcast_from_rank0(read)
        self.warnings = self.log.warnings

    def _log_beginning(self, snapshot: Snapshot | None, validation: Mapping[str, Any]) -> None:
        if snapshot is None:
            facts = {} if self.folder is None else self.folder.facts
            self.log.write("start", 0, {**facts, **self.task.start_record(), **validation})
            return
        here, there = self._environment(), snapshot.facts.get("environment", {})
        self.log.write("resume", snapshot.step, {"environment": here})
        changed = [f"{key} from {there.get(key)} to {here[key]}" for key in here if there.get(key) != here[key]]
        if changed:
            message = f"the environment has changed ({', '.join(changed)}); the final weights may differ by rounding"
            self._warn([HealthWarning.at(snapshot.step, message, code="environment")])

    def _train(self, done: int, *, is_finished: bool) -> None:
        steps, stopping = self.task.steps, self.early_stopping
        if stopping is not None and stopping.is_stopped:
            return
        self._started = time.perf_counter()
        if steps == 0:
            if not is_finished:
                self.processes.run_all_or_raise(self._publish_untrained)
                self._save_checkpoint(0)
            return
        bar = Progress(self.progress, steps=steps, done=done, label=self.task.label)
        with closing(bar), StopRequest() as stop:
            if done == 0:
                self.processes.run_all_or_raise(lambda: self._evaluate(0))
            for completed in range(done + 1, steps + 1):
                report = self.task.step(completed - 1)
                validation = self._validate(completed)
                interrupt = self.processes.run_all_or_raise(partial(self._publish, completed, report, validation, bar))
                # If a process has received a signal, all processes stop after the same step.
                received = self.processes.all_reduce_max(interrupt or stop.received or _NO_SIGNAL)
                every = self.config.save_steps
                is_last = completed == steps or (stopping is not None and stopping.is_stopped)
                if received or is_last or (every is not None and completed % every == 0):
                    self._save_checkpoint(completed)
                if received:
                    stop.leave(self._interruption_message(completed), received)
                if is_last:
                    return

    def _publish(self, completed: int, report: StepReport, validation: Mapping[str, Any], bar: Progress) -> int:
        """Return SIGINT if `on_step` requests a stop, else 0."""
        self._warn(report.warnings)
        extra = {**({} if report.health is None else {"health": report.health}), **validation}
        if completed % self.config.logging_steps == 0 or completed in (1, self.task.steps) or extra:
            self.log.write("step", completed, report.record() | {"seconds": round(self._seconds(), 3)} | extra)
        info = {"step": completed, "steps": self.task.steps, **report.progress}
        bar.step(info)
        self._evaluate(completed)
        if self.on_step is not None and self.processes.is_rank0:
            try:
                with local_scope():
                    self.on_step(info)
            except KeyboardInterrupt:
                return signal.SIGINT
        return _NO_SIGNAL

    def _publish_untrained(self) -> None:
        self.log.write("step", 0, self.task.untrained_record() | {"seconds": round(self._seconds(), 3)})
        self._evaluate(0)

    def _warn(self, found: Sequence[HealthWarning]) -> None:
        """Warn once per code and run."""
        for warning in found:
            if all(warning.code != known.code for known in self.warnings):
                self.warnings.append(warning)
                if self.processes.is_rank0:
                    warnings.warn(warning, stacklevel=2)
                self.log.write("warning", warning.step, {"code": warning.code, "message": warning.message})

    def _validate(self, completed: int) -> dict[str, Any]:
        stopping = self.early_stopping
        if stopping is None or not stopping.is_due(completed):
            return {}
        began = time.perf_counter()
        with local_scope():
            value = self.processes.broadcast_from_rank0(lambda: stopping.measure(self.task.model, self.task.device))
        stopping.update(completed, value, self.task.parameters)
        if completed > 0:
            self._seconds_of_callbacks += time.perf_counter() - began
        return {"validation": {stopping.metric: value}}

    def _evaluate(self, completed: int) -> None:
        if self.eval_callback is not None and self.processes.is_rank0:
            began = time.perf_counter()
            with local_scope():
                self.eval_callback.call(completed, self.task.model, self.task.device)
            self._seconds_of_callbacks += time.perf_counter() - began

    def _seconds(self) -> float:
        """Include the time before resuming, and exclude evaluation callbacks."""
        return self._seconds_before + time.perf_counter() - self._started - self._seconds_of_callbacks

    def _save_checkpoint(self, completed: int) -> None:
        folder = self.folder
        if folder is None:
            return

        def save() -> None:
            self.task.before_checkpoint(completed)
            facts = folder.facts | {"environment": self._environment(), "seconds": self._seconds()}
            facts |= self.task.checkpoint_facts()
            tensors = self.task.tensors()
            if self.early_stopping is not None:
                facts, tensors = facts | self.early_stopping.facts(), tensors | self.early_stopping.tensors()
            snapshot = Snapshot(completed, tensors, facts)
            save_checkpoint(folder.checkpoints, snapshot, keep=self.config.save_total_limit)
            self.task.after_checkpoint(completed, folder.path)

        self.processes.broadcast_from_rank0(save)

    def _environment(self) -> dict[str, Any]:
        return training_environment(self.task.device, self.processes.world_size)

    def _interruption_message(self, completed: int) -> str:
        state = "without out=, nothing was saved"
        if self.folder is not None:
            state = f"a checkpoint is in {self.folder.checkpoints}; continue with resume='auto'"
        return f"training was interrupted after step {completed} of {self.task.steps}; {state}"
