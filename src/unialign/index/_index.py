"""The index: items with any subset of the modalities of a space."""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_integer, suggestion
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, ShapeError
from unialign.index._calibration import Calibration, fit_calibration, uncorrected
from unialign.index._catalog import Catalog
from unialign.index._derived import derive, row_places
from unialign.index._found import Found
from unialign.index._query import Query, QueryPart
from unialign.index._query_vectors import is_features, query_vectors
from unialign.index._search import search
from unialign.index._snapshot import Derived, Part, Snapshot
from unialign.space import Space


class Index:
    """Items of a space, their keys, labels and metadata, and exact search among them."""

    def __init__(self, snapshot: Snapshot, catalog: Catalog, calibration: Calibration, space: Space | None) -> None:
        self._snapshot, self._catalog, self._calibration, self._space = snapshot, catalog, calibration, space
        self._derived: dict[int, Derived] = {part.id: derive(part, calibration) for part in snapshot.parts}

    @classmethod
    def from_store(cls, store: EmbeddingStore, space: Space | None = None, *, calibrate: bool = True) -> "Index":
        """Index a store in memory.

        Args:
            store: features, which the space embeds, or embeddings of a shared space.
            space: the space of the features. None: the rows of the store are embeddings.
            calibrate: whether to fit the correction of the modality gap (see `ua.repair`).
        """
        names = tuple(n for n in store.columns if n in space.modalities) if space is not None else store.modalities
        present = {name: np.asarray(store.present(name)) for name in names}
        z = {name: _embeddings(store, space, name, present[name]) for name in names}
        dims = {name: rows.shape[1] for name, rows in z.items()}
        if len(set(dims.values())) != 1:
            raise ShapeError(f"the modalities have different dims ({dims}); pass the space that embeds them")
        part = Part(
            1,
            store.items,
            {name: z[name][present[name]] for name in names},
            {name: None if present[name].all() else np.flatnonzero(present[name]).astype(np.int32) for name in names},
        )
        calibration = uncorrected(names, "not calibrated")
        if calibrate:
            rows = _calibration_rows(store)
            calibration = fit_calibration(
                {name: rows_ND[rows] for name, rows_ND in z.items()},
                names,
                present={name: mask[rows] for name, mask in present.items()},
            )
        catalog = Catalog()
        bits = sum(present[name].astype(np.int64) << bit for bit, name in enumerate(names))
        catalog.add_items(1, 1, _keys(store), np.asarray(bits), labels=_labels(store))
        return cls(Snapshot(1, names, z[names[0]].shape[1], (part,)), catalog, calibration, space)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return self._snapshot.modalities

    @property
    def dim(self) -> int:
        """Dimension D of the embeddings."""
        return self._snapshot.dim

    @property
    def space(self) -> Space | None:
        """The space that embeds queries, or None."""
        return self._space

    @property
    def generation(self) -> int:
        """Number of the commit that this index shows."""
        return self._snapshot.generation

    def __len__(self) -> int:
        dead = sum(int((~alive).sum()) for alive in self._snapshot.alive.values())
        return sum(part.items for part in self._snapshot.parts) - dead

    @overload
    def search(self, query: Query, *, k: int = ..., target: str | Sequence[str] = ...) -> Found: ...
    @overload
    def search(self, query: Sequence[Query], *, k: int = ..., target: str | Sequence[str] = ...) -> list[Found]: ...
    def search(
        self, query: Query | Sequence[Query], *, k: int = 10, target: str | Sequence[str] = "any"
    ) -> Found | list[Found]:
        """Find the items nearest to a query."""
        check_integer("k", k, low=1)
        queries = [query] if isinstance(query, Query) else list(query)
        vectors = query_vectors(queries, self._calibration, self.dim, encode=self._encode, lookup=self._rows_of)
        exclude = [{part.value for part in one.parts if part.kind == "item"} for one in queries]
        found = search(
            self._snapshot,
            self._derived,
            self._catalog,
            self._calibration,
            vectors,
            k=k,
            target=target,
            exclude=exclude,
        )
        return found[0] if isinstance(query, Query) else found

    def _encode(self, modality: str, value: Any) -> Tensor:
        if self._space is None:
            raise ConfigError(f"the index has no space to encode a {modality!r} query; use `vector=` or `item=`")
        inputs = torch.as_tensor(value)[None] if is_features(value) else [value]
        return self._space.encode({modality: inputs})[modality][0].cpu().double()

    def _rows_of(self, query: QueryPart) -> dict[str, Tensor]:
        record = self._catalog.find(query.value, self.generation)
        if record is None:
            raise ConfigError(f"the index has no item {query.value!r}{suggestion(query.value, ())}")
        part = next(part for part in self._snapshot.parts if part.id == record.part)
        found = {}
        for name in self.modalities if query.modalities is None else query.modalities:
            if name in part.rows:
                row = np.flatnonzero(row_places(part, name) == record.place)
                if len(row):
                    found[name] = torch.from_numpy(part.rows[name][row[0]]).double()
        if not found:
            raise ConfigError(
                f"the item {query.value!r} has none of the modalities {', '.join(query.modalities or ())}"
            )
        return found


def _embeddings(store: EmbeddingStore, space: Space | None, name: str, present: np.ndarray) -> np.ndarray:
    if space is not None:
        return space.encode({name: store.array(name)}, present={name: present})[name].float().cpu().numpy()
    rows = np.asarray(store.array(name), np.float32)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(present[:, None], rows / np.where(norm > 0, norm, 1), 0).astype(np.float32)


def _calibration_rows(store: EmbeddingStore) -> np.ndarray:
    rows = np.flatnonzero(np.asarray(store.split) != 2) if len(store.split) else np.arange(store.items)
    return rows if len(rows) else np.arange(store.items)


def _keys(store: EmbeddingStore) -> list[str]:
    names = list(store.item_names) if store.has_names else []
    return names if len(set(names)) == store.items else [str(row) for row in range(store.items)]


def _labels(store: EmbeddingStore) -> list[str | None]:
    names = store.label_names
    return [names[code] if 0 <= code < len(names) else None for code in np.asarray(store.labels)]
