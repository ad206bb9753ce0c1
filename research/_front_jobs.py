"""Trainings of the study `front`, which run in worker processes and write one record each."""

import dataclasses
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from research._front_data import DATA, development_store, open_data, transfer_store
from research._front_loop import interpolated, mean_weights, train_heads
from research._front_measures import METRICS, measure_mechanism
from research._front_transforms import changed
from research._plan import DataTransform
from research._records import Record, read_record, write_record
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.errors import NonFiniteError
from unialign.evaluation import Statistic, resample, selection_score
from unialign.experiments import embed_split, evaluate_split
from unialign.space import Space
from unialign.train import HealthWarning, fit

__all__ = ["SHARES", "VARIANTS", "FrontJob", "work"]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
VARIANTS = ("start", "last", "early", "interpolated", "soup", "soup_interpolated", "ensemble")


@dataclass(frozen=True, kw_only=True)
class FrontJob:
    """A training.

    Attributes:
        data: key of a data set.
        k: development split, on which trials are compared; None: the split of the data set, whose test rows are used.
        train: settings, with the seed.
        fault: change of the training rows.
        parent: settings of a training whose space is continued; None: none.
        queue: rows of earlier batches that are additional negatives.
        keep: whether the trainings with seeds `seed`, `seed + 1` and `seed + 2` are compared with their closed form.
        decay_to_start: decay towards the closed form, for `keep`.
    """

    file: Path
    data: str
    stores: Mapping[str, str]
    fingerprint: str
    k: int | None
    train: TrainConfig
    resamples: int
    fault: DataTransform | None = None
    parent: TrainConfig | None = None
    queue: int = 0
    keep: bool = False
    decay_to_start: float = 0.0
    about: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        return {
            "data": self.data,
            "fingerprint": self.fingerprint,
            "split": "test" if self.k is None else f"development {self.k}",
            "train": _changes(self.train),
            "resamples": self.resamples,
            "fault": self.fault and dataclasses.asdict(self.fault),
            "parent": self.parent and _changes(self.parent),
            "queue": self.queue,
            "keep": self.keep,
            "decay_to_start": self.decay_to_start,
        }

    def read_back(self) -> Record | None:
        return read_record(self.file, self.settings())

    def opened(self) -> tuple[EmbeddingStore, EmbeddingStore, str]:
        """Return the store to train on, and the store and split to evaluate.

        Both are the same store without any test row of the data set, unless `k` is None.
        """
        store = open_data(self.data, self.stores, self.fingerprint).select(self.train.modalities or ())
        if self.k is not None:
            own = development_store(store, self.k, validation=self.keep)
            return own, own, "test" if self.keep else "val"
        return store, transfer_store(self.data, self.stores) or store, "test"


def _changes(config: TrainConfig) -> dict[str, Any]:
    """Settings other than the defaults, so that records stay valid if the library gets further settings."""
    defaults = TrainConfig().to_dict()
    return {name: value for name, value in config.to_dict().items() if value != defaults[name]}


def work(job: FrontJob) -> Record:
    """NonFiniteError is recorded as a failure."""
    began = time.process_time()
    train_on, evaluate_on, split = job.opened()
    train_on = changed(train_on, job.fault, job.train.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        try:
            embeddings, facts = (_kept if job.keep else _trained)(job, train_on, evaluate_on, split)
            record = _record(job, embeddings, evaluate_on, split)
        except NonFiniteError as error:
            record, facts = Record(metrics={}, failed=str(error)), {}
    record.facts.update(facts | {"cpu_seconds": round(time.process_time() - began, 2)})
    write_record(job.file, job.settings(), record)
    return record


Embedded = dict[str, dict[str, Tensor]]


def _trained(
    job: FrontJob, store: EmbeddingStore, evaluate_on: EmbeddingStore, split: str
) -> tuple[Embedded, dict[str, Any]]:
    parent = None if job.parent is None else fit(store, job.parent, progress="none").space
    if job.queue:
        space = train_heads(_start(store, job.train), store, job.train, queue_size=job.queue)
    else:
        config = job.train if parent is None else job.train.replace(init="random")
        result = fit(store, config, progress="none", init_from=parent)
        space = result.space
    closed: Any = space.metadata.get("closed_form", {})
    chosen = {f"init_{name}": closed[name] for name in ("regularization", "spectrum_power") if name in closed}
    return {"": embed_split(space, evaluate_on, split)}, {"start": chosen}


def _start(store: EmbeddingStore, config: TrainConfig) -> Space:
    return fit(store, config.replace(epochs=0), progress="none").space


def _kept(
    job: FrontJob, store: EmbeddingStore, evaluate_on: EmbeddingStore, split: str
) -> tuple[Embedded, dict[str, Any]]:
    """Embed with the closed form, the trained spaces, and their means.

    Weights are chosen on the validation split, by the mean logarithm of R@1, joint R@1 and label mAP.
    """
    start = _start(store, job.train)
    best = start, _validation_score(start, store), 0

    def on_epoch(epoch: int, space: Space) -> None:
        nonlocal best
        if (score := _validation_score(space, store)) > best[1]:
            best = mean_weights([space]), score, epoch

    first = train_heads(start, store, job.train, decay_to_start=job.decay_to_start, on_epoch=on_epoch)
    spaces = [first] + [
        train_heads(start, store, job.train.replace(seed=job.train.seed + i), decay_to_start=job.decay_to_start)
        for i in (1, 2)
    ]
    soup = mean_weights(spaces)
    share, soup_share = _chosen_share(start, first, store), _chosen_share(start, soup, store)
    chosen = {
        "start": start,
        "last": first,
        "early": best[0],
        "interpolated": interpolated(start, first, share),
        "soup": soup,
        "soup_interpolated": interpolated(start, soup, soup_share),
    }
    found = {name: embed_split(space, evaluate_on, split) for name, space in chosen.items()}
    each = [embed_split(space, evaluate_on, split) for space in spaces]
    # The cosine of concatenated unit rows is the mean of the cosines.
    found["ensemble"] = {name: torch.cat([one[name] for one in each], 1) for name in each[0]}
    return found, {"share": share, "soup_share": soup_share, "epoch": best[2]}


def _chosen_share(start: Space, end: Space, store: EmbeddingStore) -> float:
    return max(SHARES, key=lambda share: _validation_score(interpolated(start, end, share), store))


def _validation_score(space: Space, store: EmbeddingStore) -> float:
    return selection_score(store, space, "auto")


def _record(job: FrontJob, embedded: Embedded, store: EmbeddingStore, split: str) -> Record:
    metrics: dict[str, float] = {}
    statistics: dict[str, tuple[Statistic, float]] = {}
    rows = store.rows(split)
    for variant, embeddings in embedded.items():
        evaluation = evaluate_split(embeddings, store, split)
        prefix = f"{variant}/" if variant else ""
        metrics |= {f"{prefix}{name}": value for name, value in evaluation.metrics.items() if name in _KEPT}
        for name in METRICS:
            if name in evaluation.statistics:
                statistics[f"{prefix}{name}"] = (evaluation.statistics[name], evaluation.metrics[name])
        if not variant:
            present = {name: torch.from_numpy(store.present(name)[rows].copy()) for name in embeddings}
            anchor = DATA[job.data].anchor
            metrics |= measure_mechanism(
                embeddings, present, anchor=anchor if anchor in embeddings else next(iter(embeddings))
            )
    resampled = resample(statistics, store.groups[rows], resamples=job.resamples)
    return Record(metrics=metrics, facts={}, resampled={name: value.float() for name, value in resampled.items()})


_KEPT = (*METRICS, "v_measure", "modality_gap_debiased")
