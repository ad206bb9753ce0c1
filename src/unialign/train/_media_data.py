"""Batches of media and features: encoders that are trained compute the features of their modalities in each step.

Shapes: `N` rows of the store, `B` rows of a batch, `b` rows of a micro-batch, `W` dimension of a modality.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign.config import EmbedConfig, TrainConfig
from unialign.data import EmbeddingStore
from unialign.embedding import ColumnWork, chosen_workers, limits_of
from unialign.encoders import BATCH_SIZE, Encoder, encode_prepared
from unialign.items import Items
from unialign.space import Space, Standardize, normalization_of
from unialign.train._batches import derived_seed
from unialign.train._media_stream import MediaColumn, MediaStream, PreparedCache, PreparedRows, prepared_cells_of
from unialign.train._process_group import ProcessGroup
from unialign.train._run_dir import ENCODERS
from unialign.train._training_data import Inputs, TrainingData
from unialign.train._tuned_encoders import TunedEncoders

# Prepared arrays that the processes of a machine keep in memory, in bytes.
_CACHE_BYTES = 1 << 30
# Smallest standard deviation of a column, as a fraction of the largest one of its modality.
_SMALLEST_STD = 1e-2
# Entries of a reference that do not affect the features.
_NOT_FEATURES = ("witness", "packages", "license", "batch_size", "stored")


@dataclass(frozen=True)
class MediaSource:
    """Items whose features are in a store, and the encoders of all modalities.

    Attributes:
        store: features of the initial encoders; it determines which items have a modality.
        encoders: initial encoders of all modalities.
        embedding: settings of decoding.
    """

    items: Items
    store: EmbeddingStore
    encoders: Mapping[str, Encoder]
    embedding: EmbedConfig

    def tuned(self, config: TrainConfig) -> dict[str, Encoder]:
        """Return the encoders of this run that are trained."""
        names = config.modalities or ()
        return {name: self.encoders[name] for name in names if config.tuning(name).mode != "frozen"}


class Media:
    """Media of the modalities whose encoders are trained."""

    def __init__(
        self, source: MediaSource, encoders: TunedEncoders, processes: ProcessGroup, device: torch.device
    ) -> None:
        self.encoders = encoders
        self._store, self._device = source.store, device
        self.columns = {name: _column(source, name, encoders[name]) for name in encoders.names}
        local = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", processes.world_size)))
        work = {name: column.work for name, column in self.columns.items()}
        workers = chosen_workers(source.embedding.workers, device.type, work)
        # The processes of a machine share its cores, unless the number of workers of each one is given.
        self._workers = workers if source.embedding.workers != "auto" else min(workers, max(1, workers // local))
        self._cached = PreparedCache(_CACHE_BYTES // local)
        self._stream: MediaStream | None = None

    def start(self, config: TrainConfig, *, rows_of: Callable[[int], NDArray[np.int64]], steps: int) -> None:
        def seed_of(step: int, row: int, name: str) -> int:
            return derived_seed("augment", config.seed, step, row, name)

        self._stream = MediaStream(
            self.columns,
            rows_of=rows_of,
            steps=steps,
            seed_of=seed_of if config.augment != "none" else None,
            workers=self._workers,
            cache=self._cached,
        )

    def prepared(self, step: int, name: str, rows_B: NDArray[np.int64]) -> PreparedRows:
        assert self._stream is not None
        return self._stream.prepared(step, name, rows_B)

    def current_features(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Return the features (len(rows), W) of media by the current encoders; absent rows are 0."""
        found = {name: np.zeros((len(rows), self.encoders[name].dim), np.float32) for name in self.encoders.names}
        for name, cells, prepared in prepared_cells_of(self.columns, rows, self._cached, workers=self._workers):
            features = encode_prepared(self.encoders[name], prepared, batch_size=BATCH_SIZE).numpy()
            index = self.columns[name].index_N[rows]
            place = np.searchsorted(cells, index).clip(max=len(cells) - 1)
            taken = cells[place] == index
            found[name][taken] = features[place[taken]]
        return found

    def current_store(self, split: str) -> EmbeddingStore:
        """Return the rows of a split in memory, with the features of the current encoders."""
        store, rows = self._store, self._store.rows(split)
        features = self.current_features(rows)
        names = store.modalities
        labels = store.labels[rows]
        return EmbeddingStore.from_arrays(
            {name: features[name] if name in features else store.array(name)[rows] for name in names},
            name=store.name,
            present={name: store.present(name)[rows] for name in names},
            ids=store.ids[rows] if store.has_ids else None,
            groups=store.groups[rows],
            labels=labels if (labels >= 0).any() else None,
            split=[split] * len(rows),
        )

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()


class MediaTrainingData(TrainingData):
    """Batches with prepared media of the modalities whose encoders are trained."""

    def __init__(
        self, data: TrainingData, modalities: Sequence[str], *, space: Space, media: Media, device: torch.device
    ) -> None:
        super().__init__(data.store, modalities, data.rows, data.features, device)
        self._space, self._modalities, self._media = space, tuple(modalities), media

    def batch(
        self, positions_B: Tensor, *, step: int, number: int
    ) -> tuple[Inputs, dict[str, Tensor] | None, Tensor | None]:
        features, present, ids = super().batch(positions_B, step=step, number=number)
        rows_B = self.rows[positions_B.numpy()]
        inputs = {
            name: features[name] if name in features else self._media.prepared(step, name, rows_B)
            for name in self._modalities
        }
        return inputs, present, ids

    def prepared(self, inputs: Inputs, present: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        return {
            name: self._encoded(name, x, (present or {}).get(name)) if isinstance(x, PreparedRows) else x
            for name, x in inputs.items()
        }

    def _encoded(self, name: str, prepared: PreparedRows, present: Tensor | None) -> Tensor:
        features_bW = self._media.encoders.encode(name, prepared, self._device)
        return self._space.prepare(name, features_bW, present=present)


def encoder_facts(initial: Mapping[str, Encoder]) -> dict[str, Any]:
    """Return the facts of a run about the initial weights of the encoders that it trains."""
    if not initial:
        return {}
    return {
        ENCODERS: {
            name: {key: value for key, value in encoder.reference.items() if key not in _NOT_FEATURES}
            for name, encoder in initial.items()
        }
    }


@torch.no_grad()
def clamp_std(space: Space, modalities: Sequence[str]) -> None:
    """Raise small standard deviations of columns of encoders that are trained.

    The features change, and a column that hardly varies at first would multiply them, and the gradient of the encoder,
    by a large factor.
    """
    for name in modalities:
        norm = normalization_of(space.features[space.modalities.index(name)])
        if isinstance(norm, Standardize):
            norm.std.clamp_(min=_SMALLEST_STD * float(norm.std.max()))


def _column(source: MediaSource, name: str, encoder: Encoder) -> MediaColumn:
    cells, index_N = source.items.column(name)
    work = ColumnWork(
        media=source.items.kinds[name],
        prepare=encoder.prepare,
        decoding=encoder.decoding,
        limits=limits_of(source.embedding),
        roots=source.items.roots,
    )
    # Broken and blank cells are absent in the store.
    return MediaColumn(cells, np.where(source.store.present(name), index_N, -1), work)
