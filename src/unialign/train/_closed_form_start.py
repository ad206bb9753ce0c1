"""Compute the closed form from which a run starts, and copy it into the space of the run."""

import time
from collections.abc import Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unialign.closed_form import gcca, ridge
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.space import Space
from unialign.train._init_from import copy_weights

# The latest closed forms of this process and their times. Runs with other seeds or objectives start from the same one.
_kept: dict[Hashable, tuple[Space, float]] = {}
_MOST_KEPT, _MOST_KEPT_BYTES = 4, 1 << 27


@dataclass(frozen=True)
class Start:
    """A closed form in CPU memory. `seconds` may be the time of an earlier run of this process."""

    space: Space
    sets_heads: bool
    seconds: float

    @property
    def facts(self) -> dict[str, Any]:
        # Other runs start from the same space, so changes of the copy must not reach it.
        found: dict[str, Any] = deepcopy(self.space.metadata["closed_form"])
        return found


def closed_form_start(store: EmbeddingStore, config: TrainConfig) -> Start | None:
    """The closed form does not depend on the seed of the run. A kernel head with random initial weights has the kernel
    features of GCCA, unless there are frozen modalities.
    """
    if config.init == "random" and (config.head != "kernel" or config.frozen):
        return None
    options: dict[str, Any] = {
        "dim": config.dim,
        "regularization": config.init_regularization,
        "modalities": config.modalities,
    }
    if config.init != "ridge":
        # Random heads need only the kernel features, which do not depend on the power; with `auto`, the regularization
        # is chosen together with the power.
        is_unused = config.init == "random" and config.init_regularization != "auto"
        power = 0.0 if is_unused else config.init_spectrum_power
        options |= {
            "kernel": "rbf" if config.head == "kernel" else "linear",
            "spectrum_power": power,
            "landmarks": config.landmarks,
            "input_norm": config.input_norm,
        }
    space, seconds = _computed(store, config.init, options)
    return Start(space, sets_heads=config.init != "random", seconds=seconds)


def restored_start(
    dims: Mapping[str, int], config: TrainConfig, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> Start | None:
    """Use the tensors of the checkpoint instead of computing the closed form again."""
    form = facts.get("closed_form")
    if form is None:
        return None
    sizes = {
        name: list(tensors[f"features.{m}.1.weight"].shape) if config.head == "kernel" else [1, 1]
        for m, name in enumerate(dims)
    }
    with torch.random.fork_rng(devices=[]):
        space = Space(
            dims,
            dim=config.dim,
            head=config.head,
            input_norm=config.input_norm,
            regularization=form["regularization"],
            landmarks=config.landmarks,
            kernel_sizes=sizes,
            metadata={"closed_form": form},
        )
    space.load_state_dict(dict(tensors))
    return Start(space, sets_heads=True, seconds=0.0)


def kernel_options(config: TrainConfig, source: Space | None) -> dict[str, Any]:
    """A source determines the sizes of the kernel features."""
    if config.head != "kernel":
        return {}
    if source is None:
        regularization = config.init_regularization
        chosen = {} if regularization == "auto" else {"regularization": regularization}
        return {"landmarks": config.landmarks, **chosen}
    return {name: getattr(source, name) for name in ("regularization", "landmarks", "kernel_sizes")}


def copy_start(space: Space, start: Start) -> None:
    if start.sets_heads:
        copy_weights(space, start.space)
        return
    for m, name in enumerate(space.modalities):
        source = start.space.features[start.space.modalities.index(name)]
        space.features[m].load_state_dict(source.state_dict())


def _computed(store: EmbeddingStore, init: str, options: dict[str, Any]) -> tuple[Space, float]:
    # Sums may be rounded differently with another number of threads.
    key = (store.fingerprint, init, torch.get_num_threads(), *options.items())
    if key in _kept:
        return _kept[key]
    began = time.perf_counter()
    space = ridge(store, **options) if init == "ridge" else gcca(store, **options)
    computed = space, round(time.perf_counter() - began, 3)
    size = _bytes(space)
    if size <= _MOST_KEPT_BYTES:
        while len(_kept) == _MOST_KEPT or size + sum(_bytes(kept) for kept, _ in _kept.values()) > _MOST_KEPT_BYTES:
            del _kept[next(iter(_kept))]
        _kept[key] = computed
    return computed


def _bytes(space: Space) -> int:
    return sum(tensor.nbytes for tensor in space.state_dict().values())
