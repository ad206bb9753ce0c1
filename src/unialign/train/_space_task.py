"""Training task of a space.

Shapes: `B` items of a batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign.batch import Batch
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.encoders import chosen_device, references_of
from unialign.errors import ConfigError, NonFiniteError
from unialign.losses import LossTerm, ModalityTemperature, Objective, Temperature
from unialign.space import Space, fit_stages, set_encoders
from unialign.train._batches import derived_seed
from unialign.train._closed_form_start import Start, closed_form_start, copy_start, kernel_options, restored_start
from unialign.train._early_stopping import EarlyStopping
from unialign.train._extension import Extension, check_extension, extended_metadata
from unialign.train._grad_cache import BeforeBackward, grad_cache_backward
from unialign.train._infonce_warmup import infonce_for_warmup
from unialign.train._init_from import check_init_from, copy_weights
from unialign.train._media_data import Media, MediaSource, MediaTrainingData, clamp_std, encoder_facts
from unialign.train._monitor import HealthWarning, check_health
from unialign.train._nan_diagnosis import explain_non_finite
from unialign.train._optimizer import learning_rate, load_optimizer_tensors, optimizer_tensors
from unialign.train._parameters import make_optimizer, set_learning_rate, trained_parameters
from unialign.train._process_group import ProcessGroup
from unialign.train._run_settings import (
    batches_of,
    check_alignment,
    make_objective,
    resolve_config,
    run_facts,
    space_metadata,
    term_names,
)
from unialign.train._similarity_features import SimilarityFeatures
from unialign.train._training_data import Inputs, load_training_data, training_rows
from unialign.train._training_task import StepReport, TrainingTask
from unialign.train._tuned_encoders import TunedEncoders

# Inputs and presence of the rows that are encoded at once.
MicroBatch = tuple[Inputs, dict[str, Tensor] | None]


class SpaceTask(TrainingTask):
    model_type = Space

    def __init__(
        self,
        store: EmbeddingStore,
        config: TrainConfig,
        *,
        device: str | torch.device,
        init_from: Space | None,
        train: Sequence[str] | None = None,
        media: MediaSource | None = None,
        processes: ProcessGroup,
    ) -> None:
        self.config = config = resolve_config(store, config)
        self.store, self.init_from, self.processes = store, init_from, processes
        self.source = media
        # Encoders that are trained; the store has the features of their initial weights.
        self.initial = {} if media is None else media.tuned(config)
        self.device = chosen_device(device)
        if self.device.type == "cpu" and config.precision == "bf16":
            raise ConfigError("precision='bf16' needs a CUDA device (emulation on a CPU is far slower); use 'auto'")
        self.dims = {name: store.dim(name) for name in config.modalities or ()}
        self.encoders = references_of(store, tuple(self.dims))
        self.extension = check_extension(init_from, train, self.dims, config, self.encoders)
        if self.extension is None:
            check_init_from(init_from, self.dims, config, self.encoders)
        self.rows = training_rows(store, tuple(self.dims))
        if self.extension is not None:
            self.extension.check_rows(store, self.rows)
        if self.extension is None or config.epochs > 0:
            check_alignment(store, self.rows, config)
        self.start: Start | None = None
        self.extension_start: dict[str, Any] | None = None
        self.facts = run_facts(store, config, len(self.rows), init_from, train) | encoder_facts(self.initial)
        self.tuned: TunedEncoders | None = None
        self.media: Media | None = None
        self.batches = batches_of(store, self.rows, config)
        self.label, self.steps = config.objective, self.batches.steps
        self.warmup_steps = round(config.warmup_ratio * self.steps)
        self.infonce_steps = round(config.infonce_warmup_ratio * self.steps)
        self.early_stopping = None
        if config.early_stopping_patience is not None:
            self.early_stopping = EarlyStopping(store, config, self.batches, self.infonce_steps)
        self.autocast = config.precision == "bf16" or (
            config.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )

    def restore(self, tensors: Mapping[str, dict[str, Tensor]], facts: Mapping[str, Any]) -> None:
        if self.extension is None:
            self.start = restored_start(self.dims, self.config, tensors["space"], facts)
        else:
            self.extension_start = facts.get("closed_form", {})

    def checkpoint_facts(self) -> dict[str, Any]:
        facts = self.extension_start if self.start is None else self.start.facts
        return {"closed_form": facts} if facts else {}

    def setup(self) -> None:
        config = self.config
        self.processes.check_device(self.device)
        if self.init_from is None and self.start is None:
            self.start = self.processes.broadcast_from_rank0(lambda: closed_form_start(self.store, config))
        torch.default_generator.manual_seed(derived_seed("init", config.seed))
        self.model = self.space = self._new_space() if self.extension is None else self._extended_space(self.extension)
        self.objective = make_objective(config)
        self.terms = term_names(self.objective, tuple(self.dims), config.dim)
        self.space.to(self.device).train()
        if self.extension is not None:
            self.extension.freeze(self.space)
        is_fitted = self.init_from is None and self.start is None
        self.data = load_training_data(
            self.store,
            self.space,
            self.rows,
            self.device,
            modalities=tuple(self.dims),
            is_fitted=is_fitted,
            computed=tuple(self.initial),
        )
        if self.source is not None and self.initial:
            self._prepare_encoders(self.source)
        self.objective.to(self.device)
        self.similarity = None
        if self.objective.needs_similarity():
            weighted = self.objective.similarity_modalities(tuple(self.dims))
            self.similarity = SimilarityFeatures(self.store, self.rows, weighted, self.device)
        self.infonce = None
        if self.infonce_steps:
            self.infonce = infonce_for_warmup(self.objective, tuple(self.dims)).to(self.device)
        self.parameters = trained_parameters(self._modules())
        self.optimizer = make_optimizer(self.parameters, config, () if self.tuned is None else self.tuned)
        if self.tuned is not None:
            self.parameters |= self.tuned.parameters()

    def _new_space(self) -> Space:
        config = self.config
        source = self.init_from if self.start is None else self.start.space
        space = Space(
            self.dims,
            dim=config.dim,
            head=config.head,
            hidden=config.hidden,
            dropout=config.dropout,
            input_norm=config.input_norm,
            frozen=config.frozen,
            linear=() if self.init_from is None else self.init_from.linear,
            encoders={name: reference for name, reference in self.encoders.items() if name not in self.initial},
            metadata=self._metadata(),
            **kernel_options(config, source),
        )
        if self.start is not None:
            copy_start(space, self.start)
        elif self.init_from is not None:
            copy_weights(space, self.init_from)
        else:
            space.fit_normalizer(self.store, self.rows)
            clamp_std(space, tuple(self.initial))
        return space

    def _prepare_encoders(self, source: MediaSource) -> None:
        self.tuned = TunedEncoders(self.initial, self.config)
        self.tuned.set_training_mode()
        self.media = Media(source, self.tuned, self.processes, self.device)
        self.media.start(self.config, rows_of=self._store_rows, steps=self.steps)
        self.data = MediaTrainingData(
            self.data, tuple(self.dims), space=self.space, media=self.media, device=self.device
        )
        if self.early_stopping is not None:
            self.early_stopping.current_store = partial(self.media.current_store, "val")

    def _store_rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of this process in a step."""
        local = [self.processes.local_rows(rows_B) for rows_B in self.batches.rows(step)]
        rows: NDArray[np.int64] = self.rows[torch.cat(local).numpy()]
        return rows

    def _extended_space(self, extension: Extension) -> Space:
        space = extension.make_space(self.encoders, without=tuple(self.initial))
        fit_stages(space, self.store, self.rows, tuple(extension.new))
        clamp_std(space, [name for name in extension.new if name in self.initial])
        if self.extension_start is None:
            self.extension_start = extension.fit_heads(space, self.store, self.config)
        space.metadata = extended_metadata(self._metadata(), extension.base)
        return space

    def _metadata(self) -> dict[str, Any]:
        return space_metadata(self.store, self.facts | self.checkpoint_facts(), self.encoders)

    def objective_at(self, step: int) -> Objective:
        return self.infonce if self.infonce is not None and step < self.infonce_steps else self.objective

    def similarity_at(self, step: int, local_n: Tensor) -> dict[str, Tensor] | None:
        """Return the features that weight the negatives of rows of this process; None if the objective needs none."""
        needed = self.similarity is not None and self.objective_at(step).needs_similarity()
        return self.similarity.take(local_n) if needed and self.similarity is not None else None

    def step(self, step: int) -> StepReport:
        """A NonFiniteError leaves the parameters unchanged."""
        completed, config, objective = step + 1, self.config, self.objective_at(step)
        health: dict[str, float] = {}
        found: list[HealthWarning] = []

        def check(objective: Objective, batch: Batch, terms: dict[str, LossTerm]) -> None:
            numbers, problems = check_health(objective, batch, terms, step=completed, frozen=self._fixed())
            health.update(numbers)
            found.extend(problems)

        is_checked = completed % config.monitor_steps == 0 or completed == self.steps
        batches = self.batches.rows(step)
        local = [self.processes.local_rows(rows_B) for rows_B in batches]
        self.data.read_ahead(step, lambda size: self._rows_ahead(step, size))
        self.optimizer.zero_grad(set_to_none=True)
        try:
            loss, terms = self._backward(step, batches, local, check if is_checked else None)
        except NonFiniteError as error:
            raise explain_non_finite(self, objective, step, local, error) from None
        trained = list(self.parameters.values())
        self.processes.mean_gradients(trained)
        limit = math.inf if config.max_grad_norm is None else config.max_grad_norm
        norm = nn.utils.clip_grad_norm_(trained, limit, foreach=True)
        # On one process, this is the only device synchronization of a step, except for losses that compare values on
        # the CPU, such as `unialign` with partition_mix="auto".
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        if not (math.isfinite(loss_value) and math.isfinite(norm_value)):
            raise explain_non_finite(self, objective, step, local, None)
        lr = learning_rate(step, steps=self.steps, warmup=self.warmup_steps, highest=config.lr, lowest=config.min_lr)
        set_learning_rate(self.optimizer, lr)
        self.optimizer.step()
        progress = {
            "epoch": self.batches.epoch(step) + 1,
            "objective": objective.name,
            "loss": loss_value,
            "lr": lr,
            "grad_norm": norm_value,
        }

        def record() -> dict[str, Any]:
            values = {name: float(value) for name, value in terms.items()}
            return {**progress, "terms": values, "temperature": _temperature(objective)}

        return StepReport(progress, record, health=health if is_checked else None, warnings=found)

    def _backward(
        self, step: int, batches: list[Tensor], local: list[Tensor], check: BeforeBackward | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss and the terms of the first batch."""
        items = sum(map(len, batches))
        losses, terms = [], dict[str, Tensor]()
        for number, (rows_B, local_n) in enumerate(zip(batches, local, strict=True)):
            inputs, present, ids = self.data.batch(local_n, step=step, number=number)
            weight = len(rows_B) / items
            self._seed_dropout(step, number)
            output = grad_cache_backward(
                self.objective_at(step),
                self.project,
                self.micro_batches(inputs, present),
                present=present,
                ids=ids,
                group=self.processes.group,
                weight=weight,
                before_backward=check if number == 0 else None,
                zero_rows=self.config.zero_rows,
                similarity=self.similarity_at(step, local_n),
            )
            losses.append(output.total * weight)
            terms = terms or output.terms
        return torch.stack(losses).sum(), terms

    def _rows_ahead(self, step: int, size: int) -> tuple[Tensor, int]:
        """Add steps while the number of rows is at most `size`; return the step after them."""
        ahead: list[Tensor] = []
        total, end = 0, step
        while self.batches.epoch(end) == self.batches.epoch(step):
            rows = torch.cat([self.processes.local_rows(rows_B) for rows_B in self.batches.rows(end)])
            total += len(rows)
            if ahead and total > size:
                break
            ahead.append(rows)
            end += 1
        return torch.cat(ahead), end

    def embed(self, step: int, number: int, inputs: Inputs, present: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Use the dropout masks of the step."""
        return self._joined(self.project, step, number, inputs, present)

    def features(self, step: int, number: int, inputs: Inputs, present: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """Return the inputs of the heads."""
        return self._joined(lambda part: self.data.prepared(*part), step, number, inputs, present)

    @torch.no_grad()
    def _joined(
        self,
        compute: Callable[[MicroBatch], dict[str, Tensor]],
        step: int,
        number: int,
        inputs: Inputs,
        present: dict[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        self._seed_dropout(step, number)
        parts = [compute(part) for part in self.micro_batches(inputs, present)]
        return {name: torch.cat([part[name] for part in parts]) for name in inputs}

    def micro_batches(self, inputs: Inputs, present: dict[str, Tensor] | None) -> list[MicroBatch]:
        items = len(next(iter(inputs.values())))
        size = self.config.micro_batch_size
        if size is None or size >= items:
            return [(inputs, present)]
        return [
            (_rows(inputs, first, size), None if present is None else _rows(present, first, size))
            for first in range(0, items, size)
        ]

    def project(self, part: MicroBatch) -> dict[str, Tensor]:
        """Encode a micro-batch: encoders that are trained, then heads."""
        inputs, present = part
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            return self.space.project(self.data.prepared(inputs, present), present=present)

    def _seed_dropout(self, step: int, number: int) -> None:
        """Seeds differ between processes, since their rows differ."""
        rank = () if self.processes.is_rank0 else ("process", self.processes.rank)
        seed = derived_seed("step", self.config.seed, step, number, *rank)
        # `torch.manual_seed` is slow because it seeds every device type.
        if self.device.type == "cuda":
            index = torch.cuda.current_device() if self.device.index is None else self.device.index
            torch.cuda.default_generators[index].manual_seed(seed)
        torch.default_generator.manual_seed(seed)

    @property
    def setup_seconds(self) -> float:
        return 0.0 if self.start is None else self.start.seconds

    def start_record(self) -> dict[str, Any]:
        contrastive = self.infonce is not None or any("contrast" in name for name in self.terms)
        # `ln_batch` is the contrastive loss of uninformative embeddings.
        baseline = {"ln_batch": math.log(min(self.batches.batch_size, self.batches.items))} if contrastive else {}
        start = {name: {**facts, "seconds": self.setup_seconds} for name, facts in self.checkpoint_facts().items()}
        return {"steps": self.steps, **baseline, **start}

    def untrained_record(self) -> dict[str, Any]:
        return {"epoch": 0, "objective": self.config.init, "lr": 0.0, "terms": {}, "temperature": None}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        groups = {name: dict(module.state_dict()) for name, module in self._modules().items()}
        if self.tuned is not None:
            groups["encoders"] = self.tuned.tensors()
        return groups | {"optimizer": optimizer_tensors(self.optimizer, self.parameters)}

    def load_tensors(self, tensors: Mapping[str, dict[str, Tensor]]) -> None:
        for name, module in self._modules().items():
            module.load_state_dict(tensors[name])
        if self.tuned is not None:
            self.tuned.load(tensors["encoders"])
        load_optimizer_tensors(self.optimizer, self.parameters, tensors["optimizer"])

    def before_result(self) -> None:
        """Let the space encode raw media, with the trained encoders."""
        if self.source is None:
            return
        trained = {}
        if self.tuned is not None:
            self.tuned.set_evaluation_mode()
            trained = self.tuned.trained()
        given = {name: self.source.encoders[name] for name in self.dims if name in self.source.encoders}
        set_encoders(self.space, given | trained)

    def close(self) -> None:
        if self.media is not None:
            self.media.close()

    def finish(self) -> None:
        """Allow gradients of all heads again, for later training of the result."""
        self.space.requires_grad_(True)

    def _fixed(self) -> tuple[str, ...]:
        """Return the modalities whose embeddings stay as they are."""
        return (*self.config.frozen, *(() if self.extension is None else self.extension.others))

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"space": self.space, "objective": self.objective}
        return modules if self.infonce is None else modules | {"infonce": self.infonce}


def _temperature(objective: Objective) -> float | None:
    value = getattr(objective, "temperature", None)
    if isinstance(value, Temperature | ModalityTemperature):
        return value.value()
    return float(value) if isinstance(value, int | float) else None


def _rows(columns: Mapping[str, Any], first: int, size: int) -> dict[str, Any]:
    return {name: column[first : first + size] for name, column in columns.items()}
