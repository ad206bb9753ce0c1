"""`fit`: from a store and a configuration to a trained space."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from unialign.config import ProgressMode, Resume, TrainConfig
from unialign.data import EmbeddingStore
from unialign.distributed import not_joined
from unialign.errors import CheckpointError, ConfigError
from unialign.losses import Objective, create
from unialign.space import Space
from unialign.train._batches import Batches, derived_seed
from unialign.train._checkpoint import Snapshot
from unialign.train._data import load_training_data, training_rows
from unialign.train._eval_callback import EvalCallback
from unialign.train._init_from import copy_weights
from unialign.train._log import RunLog, read_log
from unialign.train._loop import Loop, OnStep, environment
from unialign.train._monitor import HealthMonitor, HealthWarning
from unialign.train._process_group import ProcessGroup, process_group_of
from unialign.train._run_dir import RunFolder
from unialign.train._step import Stepper
from unialign.train._validation import Plan, check_types, make_plan, resolved, term_names

__all__ = ["FitResult", "check_fit", "fit", "training_steps"]


@dataclass(frozen=True)
class FitResult:
    """What training leaves.

    Attributes:
        space: the trained space, in eval mode, on the training device.
        objective: the objective with its parameters (a learnt temperature) at the end.
        history: one dict every `logging_steps` steps: `step` (completed steps), `epoch` (from 1), `objective`, `loss`,
            `terms`, `lr`, `grad_norm`, `temperature`, `seconds`; every `monitor_steps` steps also `health`.
        warnings: what the health monitor saw, each code once.
    """

    space: Space
    objective: Objective
    history: list[dict[str, Any]]
    warnings: tuple[HealthWarning, ...]


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
    """Train a space on the training rows of a store. The columns it uses are held in memory as float32.

    The same store, configuration, torch version and number of threads give the same weights bit by bit on a CPU,
    whether or not the run was interrupted and resumed. The caller's random numbers are not touched.

    Inside `unialign.distributed.init()` the processes of a job train one space: all call `fit` with the same
    arguments, each embeds its share of every batch (`batch_size` counts the rows of all), and all get the same result.
    Process 0 alone writes, speaks, and calls `on_step` and `probe`. The loss curve is that of one process up to
    rounding, but for dropout, which draws other numbers; a run may be resumed on another number of processes.

    Args:
        out: folder for `config.yaml`, `log.jsonl`, `checkpoints/` and, at the end, `space/`. None: nothing on disk.
        resume: what to do when `out` holds a run: `never` refuses, `auto` continues it (a finished one is returned as
            it is) or starts a new one, `must` refuses when there is no checkpoint.
        device: `auto` (CUDA if there is one), `cpu`, `cuda`, `cuda:1`.
        on_step: called after every step with `step`, `steps`, `epoch`, `objective`, `loss`, `lr` and `grad_norm`; may
            raise KeyboardInterrupt to stop as Ctrl-C does.
        progress: `bar`, `lines`, `none`; `auto` is `bar` on a terminal, else `lines`.
        start: a space to continue from, which is left as it is: its weights and its input statistics are taken over.
            The optimiser and the schedule begin anew.
        probe: what to measure while training, and when; it changes nothing about the run.
        group: the processes that train this space together: `"auto"` for all, None for this one alone (so that each
            may train a space of its own), or a `torch.distributed` process group.

    Raises:
        ConfigError: settings that do not fit the store or the device; `out` holds a run and `resume` is "never"; a
            start of other modalities, widths or heads; a probe of steps that training does not have; processes that
            differ in their arguments, or that torchrun or SLURM started and `unialign.distributed.init` did not join.
        DataError: no training rows, or a checkpoint of other data.
        NonFiniteError: a feature, the loss or a gradient is not finite; names modality, row of the store and step.
        CheckpointError: a checkpoint cannot be written, or the one to continue from is altered or of other settings.
        DistributedError: another process failed or ended.
        KeyboardInterrupt, SystemExit(143): Ctrl-C, SIGTERM; the running step and a checkpoint are completed first.
    """
    peers = _peers(group)
    plan = peers.run_all_or_raise(
        lambda: make_plan(
            store,
            config,
            out=out,
            resume=resume,
            device=device,
            on_step=on_step,
            progress=progress,
            start=init_from,
            probe=eval_callback,
        )
    )
    peers.check_same(plan.common(resume))
    folder = None if plan.out is None else RunFolder(plan.out)
    with (
        torch.random.fork_rng(devices=[plan.device] if plan.device.type == "cuda" else []),
        _speaking(peers),
        nullcontext() if folder is None else closing(folder),
    ):
        snapshot, has_space = None, False
        space, objective, terms = peers.run_all_or_raise(lambda: _made(plan))
        if folder is not None:
            snapshot, has_space = peers.broadcast_from_rank0(
                lambda: (folder.begin(resume, plan.facts), folder.has_result)
            )
        engine = peers.run_all_or_raise(lambda: _engine(plan, store, space, objective, init_from, snapshot, peers))
        peers.broadcast(engine.weights())
        done = 0 if snapshot is None else snapshot.step
        finished = done == plan.batches.steps and has_space
        if folder is not None and not finished:
            peers.broadcast_from_rank0(lambda: folder.prepare(_settings(plan, store)))
        log = _open_log(peers, folder, plan.config, keep_steps=done, finished=finished)
        monitor = HealthMonitor(log.warnings, frozen=plan.config.frozen)
        try:
            if snapshot is None:
                peers.run_all_or_raise(lambda: log.write("start", 0, plan.facts | _baselines(engine, terms)))
            elif not finished:
                peers.run_all_or_raise(lambda: _announce(snapshot, engine, monitor, log))
            Loop(engine, folder, log, monitor, plan.facts, eval_callback).train(done, on_step, progress)
        finally:
            log.close()
        space.eval()
        if folder is not None and not finished:
            peers.broadcast_from_rank0(lambda: space.save_pretrained(folder.result))
    return FitResult(space, objective, log.history, tuple(monitor.warnings))


def check_fit(store: EmbeddingStore, config: TrainConfig) -> None:
    """Raise what `fit` would raise about settings that do not fit the store, without training or writing anything."""
    check_types(store, config)
    config = resolved(store, config, "a folder")
    term_names(create(config.objective, **config.objective_options), config.modalities or ())


def training_steps(store: EmbeddingStore, config: TrainConfig) -> int:
    """How many optimiser steps `fit` takes with these settings."""
    check_types(store, config)
    config = resolved(store, config, "a folder")
    items = len(training_rows(store, config.modalities or ()))
    return Batches(items, config.batch_size, config.gradient_accumulation_steps, config.epochs, config.seed).steps


def _peers(group: Any) -> ProcessGroup:
    if isinstance(group, str) and group == "auto" and (place := not_joined()) is not None:
        # Each would train the whole space by itself, and all would write to one folder.
        raise ConfigError(
            f"this process is number {place.rank} of {place.world_size} that torchrun or SLURM started; call fit inside "
            f"`with unialign.distributed.init():` to train one space together, or with group=None for a space each"
        )
    return process_group_of(group)


@contextmanager
def _speaking(peers: ProcessGroup) -> Iterator[None]:
    """Process 0 warns of what all of them see."""
    with warnings.catch_warnings():
        if not peers.is_rank0:
            warnings.simplefilter("ignore", HealthWarning)
        yield


def _made(plan: Plan) -> tuple[Space, Objective, list[str]]:
    """The space with random weights, the objective, and the names of its terms."""
    config = plan.config
    torch.default_generator.manual_seed(derived_seed("init", config.seed))
    space = Space(
        plan.widths,
        dim=config.dim,
        head=config.head,
        hidden=config.hidden,
        dropout=config.dropout,
        input_norm=config.input_norm,
        frozen=config.frozen,
        metadata=plan.facts,
    )
    objective = create(config.objective, **config.objective_options)
    return space, objective, term_names(objective, plan.modalities)


def _engine(
    plan: Plan,
    store: EmbeddingStore,
    space: Space,
    objective: Objective,
    start: Space | None,
    snapshot: Snapshot | None,
    peers: ProcessGroup,
) -> Stepper:
    """The engine with its data, in the state of the snapshot if there is one."""
    peers.check_device(plan.device)
    (space.fit_normalizer(store, plan.rows) if start is None else copy_weights(space, start)).to(plan.device)
    data = load_training_data(store, space, plan.rows, plan.device)
    engine = Stepper(space, objective.to(plan.device), data, plan.batches, plan.config, plan.device, peers)
    if snapshot is not None:
        _restore(engine, snapshot)
    return engine


def _settings(plan: Plan, store: EmbeddingStore) -> dict[str, Any]:
    """What `config.yaml` says."""
    path = {} if store.path is None else {"path": str(store.path)}
    begun = {"start": plan.facts["start"]} if "start" in plan.facts else {}
    return {"data": plan.facts["data"] | path, "train": plan.facts["training"], **begun}


def _baselines(engine: Stepper, terms: list[str]) -> dict[str, Any]:
    batches = engine.batches
    contrastive = engine.warm is not None or any("contrast" in name for name in terms)
    # What a contrastive loss is worth while embeddings say nothing.
    baseline = {"ln_batch": math.log(min(batches.batch_size, batches.items))} if contrastive else {}
    return {"steps": batches.steps, **baseline}


def _open_log(
    peers: ProcessGroup, folder: RunFolder | None, config: TrainConfig, *, keep_steps: int, finished: bool
) -> RunLog:
    """The log that process 0 writes, and what stands in it for the others."""
    opened: list[RunLog] = []

    def work() -> list[dict[str, Any]]:
        # A finished run is only read: its folder may be read-only by now.
        path = None if folder is None or finished else folder.log
        log = RunLog(path, keep_steps=keep_steps, log_to=config.log_to)
        if folder is not None and finished:
            log.records = read_log(folder.log)
        opened.append(log)
        return log.records

    records = peers.broadcast_from_rank0(work)
    if opened:
        return opened[0]
    log = RunLog(None, keep_steps=keep_steps, log_to=config.log_to)
    log.records = list(records)
    return log


def _restore(engine: Stepper, snapshot: Snapshot) -> None:
    try:
        engine.restore(snapshot.space, snapshot.objective, snapshot.optimizer)
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"the checkpoint of step {snapshot.step} does not fit this configuration: {error}"
        ) from None


def _announce(snapshot: Snapshot, engine: Stepper, monitor: HealthMonitor, log: RunLog) -> None:
    here = environment(engine.device, engine.peers.world_size)
    there = {"processes": 1} | snapshot.facts.get("environment", {})
    log.write("resume", snapshot.step, {"environment": here})
    differing = [f"{key} {there.get(key)} then, {here[key]} now" for key in here if there.get(key) != here[key]]
    if differing:
        message = (
            f"the environment has changed ({', '.join(differing)}); the run will not end bit by bit as it would have"
        )
        monitor.warn(message, code="environment", step=snapshot.step)
        monitor.say()
        log.write("warning", snapshot.step, {"code": "environment", "message": message})
