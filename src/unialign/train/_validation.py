"""What `fit` is given, checked once and before anything is written."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unialign.config import TrainConfig
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.errors import ConfigError, DataError
from unialign.io import checked_path
from unialign.losses import Objective
from unialign.space import Space, check_frozen
from unialign.train._batches import Batches
from unialign.train._data import training_rows
from unialign.train._device import chosen_device
from unialign.train._eval_callback import EvalCallback, check_probe, check_probe_steps
from unialign.train._init_from import check_frozen_start, check_start, weights_digest
from unialign.train._progress import check_progress
from unialign.train._run_dir import check_resume

__all__ = ["Plan", "check_types", "make_plan", "resolved", "term_names"]


@dataclass(frozen=True)
class Plan:
    """A run before its first step.

    Attributes:
        config: with its modalities filled in.
        widths: modality -> width of its features.
        device: where it trains.
        rows: (N,) training rows of the store.
        batches: which of them each step sees.
        facts: JSON about settings, data and start, which a run must have in common with one that it continues.
        out: the folder, or None.
    """

    config: TrainConfig
    widths: dict[str, int]
    device: torch.device
    rows: NDArray[np.int64]
    batches: Batches
    facts: dict[str, Any]
    out: str | os.PathLike[str] | None

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.widths)

    def common(self, resume: str) -> dict[str, Any]:
        """What all processes of a run must have in common, by the name of the argument."""
        return self.config.to_dict() | {
            "data": self.facts["data"],
            "start": self.facts.get("start"),
            "resume": resume,
            "out": "None" if self.out is None else "a folder",
            "torch's default dtype": str(torch.get_default_dtype()),
        }


def make_plan(
    store: EmbeddingStore,
    config: TrainConfig,
    *,
    out: str | os.PathLike[str] | None,
    resume: str,
    device: str | torch.device,
    on_step: Callable[..., object] | None,
    progress: str,
    start: Space | None,
    probe: EvalCallback | None,
) -> Plan:
    """Check the arguments of `fit`, whose errors these are."""
    check_types(store, config)
    if out is not None:
        out = checked_path(out, "out", error=ConfigError)
    if on_step is not None and not callable(on_step):
        raise ConfigError(f"on_step must be a function that takes a mapping, got {on_step!r}")
    check_resume(resume, out)
    check_progress(progress)
    check_probe(probe)
    target = _device(device, config)
    config = resolved(store, config, out)
    modalities = config.modalities or ()
    widths = {name: store.width(name) for name in modalities}
    check_start(start, widths, config)
    rows = training_rows(store, modalities)
    batches = Batches(len(rows), config.batch_size, config.gradient_accumulation_steps, config.epochs, config.seed)
    if probe is not None:
        check_probe_steps(probe, batches.steps)
    data: dict[str, Any] = {"name": store.name, "fingerprint": store.fingerprint, "training_items": len(rows)}
    if config.frozen:
        # What a decoder of these embeddings compares with.
        data["columns"] = {name: encoder_fingerprint(store, name) for name in config.frozen}
    facts: dict[str, Any] = {"training": config.to_dict(), "data": data}
    if start is not None:
        check_frozen_start(start, data.get("columns", {}))
        facts["start"] = {"weights": weights_digest(start)}
    return Plan(config, widths, target, rows, batches, facts, out)


def check_types(store: object, config: object) -> None:
    """`DataError` or `ConfigError` unless these are a store and a configuration."""
    if not isinstance(store, EmbeddingStore):
        raise DataError(f"store must be an EmbeddingStore, got {store!r}; open one with `unialign.data.load`")
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"config must be a TrainConfig, got {config!r}; make one with `TrainConfig.from_dict`")


def resolved(store: EmbeddingStore, config: TrainConfig, out: object) -> TrainConfig:
    """The configuration with the modalities of the store where it names none."""
    if config.modalities is None:
        config = dataclasses.replace(config, modalities=store.modalities)
    modalities = config.modalities or ()
    check_frozen(config.frozen, {name: store.width(name) for name in modalities}, config.dim)
    if len(config.frozen) == len(modalities):
        raise ConfigError(f"frozen holds all of {', '.join(modalities)}, so that nothing is trained; leave one out")
    if "tensorboard" in config.log_to and out is None:
        raise ConfigError("log_to='tensorboard' needs out=, the folder to write to")
    return config


def term_names(objective: Objective, modalities: tuple[str, ...]) -> list[str]:
    """Run the objective once, so that a missing anchor or too few modalities is an error before anything is written."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        rows = {name: torch.randn(4, 8, generator=generator) for name in modalities}
        _, terms = objective.compute(rows, group=None)
    return list(terms)


def _device(device: str | torch.device, config: TrainConfig) -> torch.device:
    target = chosen_device(device)
    if target.type == "cpu" and config.precision == "bf16":
        raise ConfigError("precision='bf16' needs a CUDA device (a CPU emulates it, many times slower); use 'auto'")
    return target
