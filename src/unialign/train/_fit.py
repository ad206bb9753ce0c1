"""`fit`: train a space on a store."""

import os
from dataclasses import dataclass
from typing import Any

import torch

from unialign._html import html_table
from unialign.config import ProgressMode, Resume, TrainConfig
from unialign.data import EmbeddingStore
from unialign.distributed import not_joined
from unialign.errors import ConfigError
from unialign.losses import Objective, create
from unialign.space import Space
from unialign.train._eval_callback import EvalCallback, check_eval_callback
from unialign.train._monitor import HealthWarning
from unialign.train._process_group import ProcessGroup, process_group_of
from unialign.train._run_dir import check_run_arguments
from unialign.train._run_settings import batches_of, resolve_config, run_dir, run_facts, term_names
from unialign.train._space_task import SpaceTask
from unialign.train._trainer import OnStep, Trainer
from unialign.train._training_data import training_rows


@dataclass(frozen=True)
class FitResult:
    """Result of `fit`.

    Attributes:
        space: the trained space, in eval mode, on the training device.
        objective: the objective with its final parameters, such as a learned temperature.
        history: one dict per `logging_steps` steps: `step` (completed steps), `epoch` (from 1), `objective`, `loss`,
            `terms`, `lr`, `grad_norm`, `temperature`, `seconds`; every `monitor_steps` steps also `health`.
        warnings: issued by the health checks, once per code.
    """

    space: Space
    objective: Objective
    history: list[dict[str, Any]]
    warnings: tuple[HealthWarning, ...]

    def _repr_html_(self) -> str:
        last = self.history[-1] if self.history else {}
        numbers = {"loss": last.get("loss"), **last.get("terms", {}), "temperature": last.get("temperature")}
        rows = [(name, f"{value:.4g}") for name, value in numbers.items() if value is not None]
        rows += [(f"warning {warning.code}", warning.message) for warning in self.warnings]
        return html_table(rows, caption=f"{self.objective.name} after {last.get('step', 0)} steps")


def fit(
    store: EmbeddingStore,
    config: TrainConfig,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: Resume = "never",
    device: str | torch.device = "auto",
    on_step: OnStep | None = None,
    progress: ProgressMode = "auto",
    init_from: Space | None = None,
    eval_callback: EvalCallback | None = None,
    group: Any = "auto",
) -> FitResult:
    """Train a space on the training rows of a store.

    Features of more than 128 MiB as float32 are read from the store while training runs, so that memory does not grow
    with the data. On a CUDA device, features of up to a quarter of its free memory are kept there.

    On a CPU, the same store, configuration, torch version and number of threads give bitwise equal weights, even if the
    run was interrupted and resumed. The global random state is not changed. Trainings in several threads of one process
    run one after another; use several processes to train in parallel. A callback may call `fit`, but must not wait for
    a training in another thread, which cannot start before this one ends.

    Inside `unialign.distributed.init()`, the processes of a job train one space: all of them call `fit` with the same
    arguments, each embeds its part of every batch (`batch_size` is the total over processes), and all get the same
    result. Only process 0 writes files, shows progress, warns, and calls `on_step` and `eval_callback`. The loss curve
    equals that of one process up to rounding and dropout draws. A run may be resumed with another number of processes.

    Args:
        out: folder for `config.yaml`, `log.jsonl`, `checkpoints/` and, at the end, `space/`. None: nothing is written
            to disk.
        resume: `never` raises if `out` holds a run, `auto` continues it (a finished one is returned unchanged) or
            starts a new one, `required` raises without a checkpoint.
        device: `auto` (CUDA if available), `cpu`, `cuda`, `cuda:1`.
        on_step: called after every step with `step`, `steps`, `epoch`, `objective`, `loss`, `lr` and `grad_norm`; may
            raise KeyboardInterrupt to stop as Ctrl-C does.
        progress: `bar`, `lines`, `none`; `auto` is `bar` on a terminal, else `lines`.
        init_from: a space whose weights and input statistics are copied. Optimizer and schedule start from scratch.
        eval_callback: evaluation after selected steps; does not affect the run.
        group: processes that train this space together: `"auto"` for all, None for this process only (each process may
            then train its own space), or a `torch.distributed` process group.

    Raises:
        ConfigError: settings that do not fit the store or the device; `out` holds a run and `resume` is "never";
            `init_from` of other modalities, dims or heads; `eval_callback` at steps beyond the last; processes that
            differ in their arguments, or that torchrun or SLURM started and `unialign.distributed.init` did not join.
        DataError: no training rows, or a checkpoint made with other data.
        NonFiniteError: a feature, the loss or a gradient is not finite; the message names the modality, store row and
            step.
        CheckpointError: a checkpoint cannot be written, or the one to resume from was altered or made with other
            settings.
        DistributedError: another process failed or ended.
        KeyboardInterrupt, SystemExit(143): Ctrl-C, SIGTERM; the running step and a checkpoint are completed first.
    """
    processes = _processes(group)

    def validate() -> SpaceTask:
        check_run_arguments(out, resume, progress, on_step)
        task = SpaceTask(store, config, device=device, init_from=init_from, processes=processes)
        if out is None and (loggers := [name for name in config.log_to if name != "jsonl"]):
            raise ConfigError(f"log_to={loggers[0]!r} needs out=, the folder to write to")
        check_eval_callback(eval_callback, task.steps)
        return task

    task = processes.run_all_or_raise(validate)
    processes.check_same(
        task.config.to_dict()
        | {
            "data": task.facts["data"],
            "init_from": task.facts.get("init_from"),
            "resume": resume,
            "out": "None" if out is None else "a folder",
            "torch's default dtype": str(torch.get_default_dtype()),
        }
    )
    trainer = Trainer(
        task,
        config,
        folder=None if out is None else run_dir(out, store, task.config, task.facts),
        resume=resume,
        processes=processes,
        on_step=on_step,
        eval_callback=eval_callback,
        progress=progress,
    )
    trainer.run()
    return FitResult(task.space, task.objective, trainer.log.history, tuple(trainer.warnings))


def check_fit(
    store: EmbeddingStore,
    config: TrainConfig,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: Resume = "auto",
) -> None:
    """Raise the errors of `fit` about settings that do not suit the store, and about a run in `out`; write nothing."""
    config = resolve_config(store, config)
    term_names(create(config.objective, **config.objective_options), config.modalities or ())
    if out is not None:
        items = len(training_rows(store, config.modalities or ()))
        run_dir(out, store, config, run_facts(store, config, items, None)).find_checkpoint(resume)


def training_steps(store: EmbeddingStore, config: TrainConfig) -> int:
    """Return the number of optimizer steps that `fit` takes with these settings."""
    config = resolve_config(store, config)
    return batches_of(len(training_rows(store, config.modalities or ())), config).steps


def _processes(group: Any) -> ProcessGroup:
    # Without this error, each process would train the whole space, and all would write to one folder.
    if isinstance(group, str) and group == "auto" and (process := not_joined()) is not None:
        raise ConfigError(
            f"this process is number {process.rank} of {process.world_size} that torchrun or SLURM started; call fit "
            f"inside `with unialign.distributed.init():` to train one space together, or with group=None for one space "
            f"each"
        )
    return process_group_of(group)
