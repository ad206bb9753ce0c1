"""`fit`: train a space on a store."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unialign._html import html_table
from unialign.config import EmbedConfig, ProgressMode, Resume, TrainConfig
from unialign.data import EmbeddingStore, Mixture
from unialign.distributed import not_joined
from unialign.encoders import Encoder, references_of
from unialign.errors import ConfigError
from unialign.items import Items
from unialign.losses import Objective
from unialign.space import Space
from unialign.train._early_stopping import check_early_stopping
from unialign.train._eval_callback import EvalCallback, check_eval_callback
from unialign.train._extension import check_extension
from unialign.train._fit_items import ItemOptions, opened_data
from unialign.train._init_from import check_init_from
from unialign.train._media_data import MediaSource
from unialign.train._monitor import HealthWarning
from unialign.train._process_group import ProcessGroup, process_group_of
from unialign.train._run_dir import ENCODERS, check_run_arguments
from unialign.train._run_settings import (
    batches_of,
    check_alignment,
    make_objective,
    resolve_config,
    run_dir,
    run_facts,
    term_names,
)
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
            `terms`, `lr`, `grad_norm`, `temperature`, `seconds`; every `monitor_steps` steps also `health`; with early
            stopping, `validation` at evaluated steps.
        warnings: warnings of the health checks, one per code.
        best_step: with early stopping, the number of steps after which the weights were best; else None.
    """

    space: Space
    objective: Objective
    history: list[dict[str, Any]]
    warnings: tuple[HealthWarning, ...]
    best_step: int | None = None

    def _repr_html_(self) -> str:
        last = self.history[-1] if self.history else {}
        numbers = {"loss": last.get("loss"), **last.get("terms", {}), "temperature": last.get("temperature")}
        rows = [(name, f"{value:.4g}") for name, value in numbers.items() if value is not None]
        rows += [(f"warning {warning.code}", warning.message) for warning in self.warnings]
        return html_table(rows, caption=f"{self.objective.name} after {last.get('step', 0)} steps")


def fit(
    data: EmbeddingStore | Items | Mixture,
    config: TrainConfig | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: Resume = "never",
    device: str | torch.device = "auto",
    on_step: OnStep | None = None,
    progress: ProgressMode = "auto",
    init_from: Space | None = None,
    train: Sequence[str] | None = None,
    encoders: Mapping[str, str | Mapping[str, Any] | Encoder] | None = None,
    embedding: EmbedConfig | None = None,
    accept_licenses: Collection[str] = (),
    eval_callback: EvalCallback | None = None,
    group: Any = "auto",
) -> FitResult:
    """Train a space on the training rows of a store, or on items of media with their encoders, or on a mixture.

    Features larger than 128 MiB in float32, or kernel features larger than 1 GiB, are read from the store during
    training, so that memory use does not grow with the data. On a CUDA device, features of up to a quarter of its free
    memory are kept on the device.

    On a CPU, the same store, configuration, torch version and number of threads give bitwise equal weights, even if the
    run was interrupted and resumed. The global random state is not changed. Several calls in threads of the same
    process run one after another; use several processes to train in parallel. A callback may call `fit`, but must not
    wait for a call in another thread, which cannot start before this call ends.

    Inside `unialign.distributed.init()`, the processes of a job train one space. All processes must call `fit` with the
    same arguments. Each process embeds its part of every batch (`batch_size` is the total over processes), and all
    processes get the same result. Only process 0 writes files, shows progress, warns, and calls `on_step` and
    `eval_callback`. The loss curve equals that of a single process up to rounding and dropout draws. A run may be
    resumed with another number of processes.

    With `init="gcca"` or `"ridge"`, the heads start from the closed form of the training rows (see
    `unialign.closed_form`), which is the same for every seed. With `epochs=0`, the result is this closed form.

    Items are first embedded with the initial encoders, as `embed` does, into the store `out/store`. It determines which
    items have which modality: broken cells are absent. Encoders for which `config.tune` has another mode than `frozen`
    are trained with the heads: in each step, worker processes decode the media of the batch, and the encoders compute
    their features, with `micro_batch_size` items at a time in memory. The result encodes raw media with the trained
    encoders.

    With `train`, a modality is added to a trained space: only the heads of the given modalities are trained, at least
    one other modality of `init_from` must be in the data, and the embeddings of all others stay bitwise equal.
    `dim`, and the settings of the heads, must be those of `init_from`, but new heads may also be linear on standardized
    features (`head="linear"`). `init="ridge"` starts new linear heads from ridge regression onto the embeddings of the
    other modalities; with `epochs=0`, this is the result.

    With `early_stopping_patience`, the space is evaluated on the validation split before the first step, every
    `eval_epochs` epochs and after the last step, and the result has the best weights. Training ends once the given
    number of evaluations in a row brings no improvement. The learning rate schedule spans all `epochs`, even if
    training stops early.

    Args:
        data: a store of features, an item table, or a `unialign.data.Mixture` of several stores or tables.
        config: settings; None: `TrainConfig()`, the defaults.
        out: folder for `config.yaml`, `log.jsonl`, `checkpoints/` and, at the end, `space/`; for items also for
            `store/`, their features, and `items/`, their table. If None, nothing is written to disk, but for a
            temporary folder with the features of items.
        resume: `never` raises an error if `out` contains a run; `auto` continues the run in `out` (a finished run is
            returned unchanged) or starts a new run; `required` raises an error if there is no checkpoint.
        device: `auto` (CUDA if available), `cpu`, `cuda`, `cuda:1`.
        on_step: called after every step with `step`, `steps`, `epoch`, `objective`, `loss`, `lr` and `grad_norm`; may
            raise KeyboardInterrupt to stop as Ctrl-C does.
        progress: `bar`, `lines`, `none`; `auto` is `bar` on a terminal, else `lines`.
        init_from: a space whose weights and input statistics are copied. Optimizer and schedule start from scratch.
        train: modalities of `data` to train, for a given `init_from`; None: all. All others keep the weights of
            `init_from`, and the result has all modalities of `init_from`, also those that are not in `data`. A
            modality that `init_from` lacks, or whose features in `data` have another dim or encoder, gets a new head;
            any other continues from its head in `init_from`, unless `init="ridge"`.
        encoders: for items: encoders by modality or pattern, which take precedence over `config.encoders`: names,
            references or encoders. Without them, modalities of `init_from` have its encoders. A module that was wrapped
            by `unialign.encoders.wrap` is trained itself; other encoders are copied. At the end, `requires_grad` of its
            parameters is as before; after an error, an adapter that was added is removed, but weights trained before
            the error stay.
        embedding: for items: settings of `embed`; None: the defaults.
        accept_licenses: for items: see `embed`.
        eval_callback: evaluation after selected steps; does not affect the run.
        group: processes that train this space together: `"auto"` for all, None for this process only (each process may
            then train its own space), or a `torch.distributed` process group.

    Raises:
        ConfigError: settings do not fit the data or the device; early stopping has no validation split; `out` contains
            a run and `resume` is "never"; `init_from` has other modalities, dims or heads; `eval_callback` has steps
            beyond the last step; processes differ in their arguments; or torchrun or SLURM started several processes,
            but the call is not inside `unialign.distributed.init()`.
        DataError: there are too few training rows, or the checkpoint to resume from was made with other data.
        NonFiniteError: a feature, the loss or a gradient is not finite; the message names the modality, store row and
            step.
        CheckpointError: a checkpoint cannot be written, or the checkpoint to resume from was altered or made with
            other settings or initial encoders.
        MediaError, MissingDependencyError: for items: see `embed`.
        DistributedError: another process failed or ended.
        KeyboardInterrupt, SystemExit(143): on Ctrl-C or SIGTERM, after the current step is completed and a checkpoint
            is saved.
    """
    processes = _processes(group)
    settings = TrainConfig() if config is None else config
    options = ItemOptions(encoders, embedding, accept_licenses, init_from)
    with opened_data(
        data,
        settings,
        options,
        out=out,
        resume=resume,
        device=device,
        progress=progress,
        on_step=on_step,
        processes=processes,
    ) as (store, media):
        return _fit_store(
            store,
            settings,
            media,
            out=out,
            resume=resume,
            device=device,
            on_step=on_step,
            progress=progress,
            init_from=init_from,
            train=train,
            eval_callback=eval_callback,
            processes=processes,
        )


def _fit_store(
    store: EmbeddingStore,
    settings: TrainConfig,
    media: MediaSource | None,
    *,
    out: str | os.PathLike[str] | None,
    resume: Resume,
    device: str | torch.device,
    on_step: OnStep | None,
    progress: ProgressMode,
    init_from: Space | None,
    train: Sequence[str] | None,
    eval_callback: EvalCallback | None,
    processes: ProcessGroup,
) -> FitResult:
    def validate() -> SpaceTask:
        check_run_arguments(out, resume, progress, on_step)
        task = SpaceTask(
            store, settings, device=device, init_from=init_from, train=train, media=media, processes=processes
        )
        if out is None and (loggers := [name for name in settings.log_to if name != "jsonl"]):
            raise ConfigError(f"log_to={loggers[0]!r} needs out=, the folder to write to")
        check_eval_callback(eval_callback, task.steps)
        return task

    task = processes.run_all_or_raise(validate)
    processes.check_same(
        task.config.to_dict()
        | {
            "data": task.facts["data"],
            "init_from": task.facts.get("init_from"),
            "encoders": task.facts.get(ENCODERS),
            "resume": resume,
            "out": "None" if out is None else "a folder",
            "torch's default dtype": str(torch.get_default_dtype()),
        }
    )
    early_stopping = task.early_stopping
    trainer = Trainer(
        task,
        settings,
        folder=None if out is None else run_dir(out, store, task.config, task.facts, init_from),
        resume=resume,
        processes=processes,
        on_step=on_step,
        eval_callback=eval_callback,
        early_stopping=early_stopping,
        progress=progress,
    )
    trainer.run()
    task.finish()
    best_step = None if early_stopping is None else early_stopping.best_step
    return FitResult(task.space, task.objective, trainer.log.history, tuple(trainer.warnings), best_step)


def check_fit(
    store: EmbeddingStore,
    config: TrainConfig,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: Resume = "auto",
    init_from: Space | None = None,
    train: Sequence[str] | None = None,
) -> None:
    """Raise the errors of `fit` about settings that do not fit the store, and about a run in `out`; write nothing."""
    config = resolve_config(store, config)
    if init_from is not None or train is not None:
        dims = {name: store.dim(name) for name in config.modalities or ()}
        encoders = references_of(store, tuple(dims))
        if check_extension(init_from, train, dims, config, encoders) is None:
            check_init_from(init_from, dims, config, encoders)
    check_early_stopping(store, config)
    term_names(make_objective(config), config.modalities or (), config.dim)
    rows = training_rows(store, config.modalities or ())
    check_alignment(store, rows, config)
    batches_of(store, rows, config)
    if out is not None:
        facts = run_facts(store, config, len(rows), init_from, train)
        run_dir(out, store, config, facts, init_from).find_checkpoint(resume)


def training_steps(store: EmbeddingStore, config: TrainConfig) -> int:
    """Return the number of optimizer steps that `fit` takes with these settings."""
    config = resolve_config(store, config)
    return batches_of(store, training_rows(store, config.modalities or ()), config).steps


def _processes(group: Any) -> ProcessGroup:
    # Without this error, each process would train the whole space, and all processes would write to the same folder.
    if isinstance(group, str) and group == "auto" and (process := not_joined()) is not None:
        raise ConfigError(
            f"this is process {process.rank} of {process.world_size} started by torchrun or SLURM, but it has not "
            f"joined their group; call fit inside `with unialign.distributed.init():` to train one space on all "
            f"processes, or with group=None to train a separate space on each process"
        )
    return process_group_of(group)
