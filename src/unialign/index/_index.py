"""The index: items with any subset of the modalities of a space."""

import contextlib
import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._checks import check_choice, check_integer, check_seed, has_surrogate, suggestion
from unialign.correction import METHODS, MIN_ROWS
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError, UniAlignError
from unialign.index._approximate import ApproximateInfo, Kind, build_approximate
from unialign.index._backends import ConnectedIndex, connect
from unialign.index._calibration import Calibration, fit_calibration
from unialign.index._catalog import ItemRecord
from unialign.index._changes import MOST_ITEMS, Block, Pending
from unialign.index._derived import row_places
from unialign.index._duplicates import DuplicateGroup, Within, find_duplicates
from unialign.index._encoders import (
    Encode,
    QueryEncoder,
    encode_values,
    no_encoder,
    query_encoders,
)
from unialign.index._export import export_index
from unialign.index._filter import names_of, parse_filter
from unialign.index._filter_sql import compile_filter
from unialign.index._found import Found
from unialign.index._incoming import (
    check_labels,
    check_metadata,
    check_modalities,
    item_rows,
    mapping_block,
    store_blocks,
)
from unialign.index._options import SearchOptions, Unit, search_options
from unialign.index._previews import Preview, StorePreviews, check_previews
from unialign.index._query import Query, QueryPart, check_queries, query as make_query
from unialign.index._query_vectors import Fuse, query_vectors
from unialign.index._rerank import Reranker, rerank_found
from unialign.index._salvage import Salvaged, salvage
from unialign.index._search_index import encode_inputs, not_encoded, others, search_index
from unialign.index._snapshot import Part
from unialign.index._storage import SPACE, Mode, Storage, place_mask
from unialign.index._verify import problems_of
from unialign.space import Space, space_fingerprint

OnConflict = Literal["error", "replace", "skip"]
# The first commit after which the index has this many items fits the correction.
CALIBRATED_FROM = 500
_CALIBRATION_ITEMS = 5000
# A commit merges small parts if there are more than this number.
_MOST_SMALL, _SMALL = 32, 4096
_MOST_DEAD = 0.2
# The correction is fitted again if the index has this many times the items of a smaller fit.
_GROWN = 4


class Commit(NamedTuple):
    """Result of a change.

    Attributes:
        generation: number of the commit; that of the last commit if nothing changed.
        added, replaced, deleted: numbers of items.
    """

    generation: int
    added: int
    replaced: int
    deleted: int


class Item(NamedTuple):
    """An item of an index.

    Attributes:
        key, name, label, metadata: the values that were added; the name defaults to the key.
        modalities: the modalities that the item has.
        rows: modality -> (D,) float32 unit embedding, without correction; empty if rows were not requested.
    """

    key: str
    name: str
    label: str | None
    metadata: Mapping[str, Any]
    modalities: tuple[str, ...]
    rows: Mapping[str, NDArray[np.float32]]


class IndexEmbeddings(NamedTuple):
    """Embeddings of items.

    Attributes:
        keys: n keys.
        z: modality -> (n, D) float32 unit rows without correction, 0 where absent.
        present: modality -> (n,) bool.
        labels: n labels, None for items without a label.
    """

    keys: list[str]
    z: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.bool_]]
    labels: list[str | None]


class Index:
    """Items with any subset of the modalities of a space, their labels and metadata, and search among them.

    An index is a folder (`Index.create`, `Index.open`) or in memory (`Index.from_store`). A reader shows one generation
    until `refresh`; changes are atomic and survive a crash once they return.
    """

    def __init__(
        self, storage: Storage, space: Space | None, encoders: Mapping[str, QueryEncoder | Encode] | None = None
    ) -> None:
        self._storage, self._space = storage, space
        self._encoders = query_encoders(space, encoders or {}, storage.modalities)
        self._pending: Pending | None = None
        # Store whose rows outside the split `test` calibrate the index.
        self._calibration_store: EmbeddingStore | None = None
        # Whether a commit fits the correction if there is none.
        self._calibrates = True
        self._previews: StorePreviews | None = None
        self._preview_rows = np.zeros(0, np.int64)

    # --- life cycle ---

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        space: Space | str | os.PathLike[str] | None = None,
        dim: int | None = None,
        modalities: Sequence[str] | None = None,
        encoders: Mapping[str, QueryEncoder | Encode] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> Self:
        """Create an empty index in a new folder, and open it for writing.

        Args:
            path: folder that does not exist or is empty.
            space: the space that embeds items and queries, or its folder; it is copied into the index.
            dim: without a space, the dimension D of the embeddings.
            modalities: names of the modalities. Default: those of the space.
            encoders: modality -> function from raw query values to features of the space.
            info: JSON object to keep with the index, such as the name of its data.

        Raises:
            ConfigError: the folder exists, or options are missing or contradict the space.
            DataError: the folder cannot be written.
        """
        if isinstance(space, str | os.PathLike):
            space = Space.from_pretrained(space)
        if space is not None and dim not in (None, space.dim):
            raise ConfigError(f"dim is {dim}, but the space has dim {space.dim}; omit dim")
        if space is None and (dim is None or modalities is None):
            raise ConfigError("an index needs a space, or `dim` and `modalities`")
        names = check_modalities(modalities if modalities is not None else space.modalities if space else ())
        for name in names if space is not None else ():
            if space is not None and name not in space.modalities:
                raise ConfigError(f"the space has no modality {name!r}; it has {', '.join(space.modalities)}")
        width = space.dim if space is not None else dim
        check_integer("dim", width, low=1, high=1 << 16)
        meta = {
            "modalities": names,
            "dim": width,
            "space": None if space is None else space_fingerprint(space),
            "info": dict(info or {}),
        }
        folder = Path(path)
        given = space
        Storage.create(folder, meta, None if given is None else lambda partial: given.save_pretrained(partial / SPACE))
        return cls(Storage.open(folder, "w"), space, encoders)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        mode: Mode = "r",
        encoders: Mapping[str, QueryEncoder | Encode] | None = None,
    ) -> Self:
        """Open an index.

        Args:
            path: folder of the index.
            mode: `r` to read, or `w` to read and write; only one process can open an index for writing.
            encoders: modality -> function from raw query values to features of the space.

        Raises:
            DataError: the folder is not an index, or a file is missing or damaged.
            ConfigError: another process writes the index.
        """
        check_choice("mode", mode, ("r", "w"))
        storage = Storage.open(Path(path), mode)
        try:
            return cls(storage, _stored_space(storage, Path(path) / SPACE), encoders)
        except BaseException:
            storage.close()
            raise

    @classmethod
    def from_store(
        cls,
        store: EmbeddingStore,
        space: Space | None = None,
        *,
        rows: str | Sequence[int] | NDArray[np.int64] = "all",
        calibrate: bool = True,
        encoders: Mapping[str, QueryEncoder | Encode] | None = None,
    ) -> Self:
        """Index the items of a store in memory.

        Args:
            store: features, which the space embeds, or embeddings of a shared space.
            space: the space of the features. None: the rows of the store are embeddings.
            rows: name of a split, or row numbers. Default: all rows.
            calibrate: whether to fit the correction of the modality gap (see `calibrate`) to the items of the splits
                `train` and `val`, or to all items of a store without a split. If False, only `calibrate` does.
            encoders: modality -> function from raw query values to features of the space, such as
                `unialign.encoders.text_encoder(store)`.

        Raises:
            ConfigError: the store has no modality of the space.
            ShapeError, NonFiniteError: rows have other dims, or are not finite.
        """
        names = tuple(n for n in store.columns if n in space.modalities) if space is not None else store.modalities
        if not names:
            raise ConfigError(f"no modality is in both the store ({', '.join(store.columns)}) and the space")
        dims = {space.dim} if space is not None else {store.dim(name) for name in names}
        if len(dims) != 1:
            listed = ", ".join(f"{name!r} {store.dim(name)}" for name in names)
            raise ShapeError(f"the modalities have different dims ({listed}); pass the space that embeds them")
        made = cls(Storage.in_memory(names, dims.pop()), space, encoders)
        blocks = list(store_blocks(store, space, names, made.dim, rows=rows, with_previews=False))
        made._storage.commit(_merged(blocks, names), counts=(sum(len(block.keys) for block in blocks), 0, 0))
        # Payloads are numbered from 1 in the order of the items.
        made._previews, made._preview_rows = StorePreviews(store), item_rows(store, names, rows)
        made._calibrates = calibrate
        if calibrate:
            made._calibrate_from(store)
        return made

    def close(self) -> None:
        """Close the files, and allow other writers."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def refresh(self) -> bool:
        """Show the last commit of another process, and return whether anything changed."""
        return self._storage.refresh()

    # --- description ---

    @property
    def path(self) -> Path | None:
        """Folder of the index; None in memory."""
        return self._storage.folder

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities."""
        return self._storage.modalities

    @property
    def dim(self) -> int:
        """Dimension D of the embeddings."""
        return self._storage.dim

    @property
    def space(self) -> Space | None:
        """The space that embeds items and queries, or None."""
        return self._space

    @property
    def encoders(self) -> dict[str, QueryEncoder]:
        """Modality -> encoder of raw values."""
        return dict(self._encoders)

    @property
    def info(self) -> dict[str, Any]:
        """The JSON object that was given to `create`."""
        return dict(self._storage.catalog.meta("info", {}))

    def set_encoders(self, encoders: Mapping[str, QueryEncoder | Encode]) -> None:
        """Use additional encoders of raw query values in this process, like the option `encoders` of `open`.

        Raises:
            ConfigError: the index has no space, or a modality is unknown.
        """
        self._encoders = query_encoders(self._space, encoders, self.modalities)

    @property
    def generation(self) -> int:
        """Number of the commit that is shown."""
        return self._storage.snapshot.generation

    @property
    def calibration(self) -> Calibration:
        """The correction of the modality gap."""
        return self._storage.calibration

    @property
    def labels(self) -> dict[str, int]:
        """Label -> number of items, the most frequent 1,000 labels first."""
        return self._storage.catalog.label_counts(self.generation)

    @property
    def fields(self) -> list[str]:
        """Names of at most 100 metadata fields."""
        return self._storage.catalog.field_names()

    def __len__(self) -> int:
        return self._storage.living()

    def __contains__(self, key: object) -> bool:
        return (
            isinstance(key, str)
            and not has_surrogate(key)
            and self._storage.catalog.find([key], self.generation)[0] is not None
        )

    def __repr__(self) -> str:
        where = f", path={str(self.path)!r}" if self.path is not None else ""
        return f"Index({len(self)} items, modalities={self.modalities}, dim={self.dim}{where})"

    def can_encode(self, modality: str) -> str | None:
        """Return None if raw values of a modality can be queries, or the reason why not."""
        if self._space is None:
            return "the index has no space, so only items and vectors can be queries"
        encoder = self._encoders.get(modality)
        return no_encoder(modality, self._encoders) if encoder is None else encoder.problem

    def stats(self) -> dict[str, Any]:
        """Return numbers of items, rows, parts and bytes, and the calibration, as a JSON object."""
        snapshot = self._storage.snapshot
        counts = dict.fromkeys(self.modalities, 0)
        for part in snapshot.parts:
            mask_n = place_mask(snapshot, part)
            for name in part.rows:
                counts[name] += int(mask_n[row_places(part, name)].sum())
        stored = sum(rows.nbytes for part in snapshot.parts for rows in part.rows.values())
        return {
            "items": len(self),
            "modalities": counts,
            "dim": self.dim,
            "generation": self.generation,
            "parts": len(snapshot.parts),
            "dead_items": sum(part.items for part in snapshot.parts) - len(self),
            "bytes": stored,
            "correction": self.calibration.method,
            "correction_reason": self.calibration.reason,
            "space": self._storage.catalog.meta("space"),
            "labels": len(self.labels),
            "fields": self.fields,
        }

    # --- changes ---

    def add(
        self,
        data: EmbeddingStore | Mapping[str, Any],
        *,
        present: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
        labels: Sequence[Any] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | None = None,
        previews: Sequence[Mapping[str, Preview] | None] | None = None,
        rows: str | Sequence[int] | NDArray[np.int64] = "all",
        on_conflict: OnConflict = "error",
    ) -> Commit:
        """Add items: all of them, or none if an error occurs.

        Args:
            data: a store, whose features the space of the index embeds, or a mapping of modality to (B, D) embeddings.
                Items without any modality are left out.
            present: for a mapping, modality -> (B,) bool; absent rows may have any values.
            keys: B unique strings. Default: keys or unique names of the store, or numbers.
            labels: for a mapping, B strings or None.
            metadata: for a mapping, B mappings of field names to strings, numbers, booleans or None.
            previews: for a mapping, B mappings of modality to (content type, content).
            rows: for a store, the name of a split or row numbers.
            on_conflict: `error` raises for keys of the index, `replace` replaces the existing items, `skip` keeps them.

        Raises:
            ConfigError: a key exists, an option is invalid, or the index is open for reading.
            ShapeError, NonFiniteError: rows have another dim, are not finite, or have norm zero.
            DataError: the index cannot be written; it is unchanged.
        """
        check_choice("on_conflict", on_conflict, ("error", "replace", "skip"))
        self._storage.check_writable()
        if isinstance(data, EmbeddingStore):
            if any(value is not None for value in (present, labels, metadata, previews)):
                raise ConfigError("present, labels, metadata and previews belong to a mapping; a store has its own")
            known = self._storage.catalog.meta("space")
            if (data.provenance.get("space") or known) != known and known is not None:
                raise DataError(
                    f"the store {data.name!r} has embeddings of another space; embed its items with the space of the "
                    "index"
                )
            blocks = list(store_blocks(data, self._space, self.modalities, self.dim, rows=rows, keys=keys))
            self._calibration_store = data
        else:
            blocks = [
                mapping_block(
                    data,
                    self.modalities,
                    self.dim,
                    present=present,
                    keys=keys,
                    labels=labels,
                    metadata=metadata,
                    previews=previews,
                    first=self._next_number(data) if keys is None else 0,
                )
            ]
            has_B = np.logical_or.reduce(list(blocks[0].present.values()))
            blocks = [blocks[0].take(np.flatnonzero(has_B))]
        with self._change() as pending:
            before = (pending.added, pending.replaced)
            for block in blocks:
                self._add_block(pending, block, on_conflict)
            added, replaced = pending.added - before[0], pending.replaced - before[1]
        return Commit(self.generation, added, replaced, 0)

    def update(
        self,
        key: str,
        rows: Mapping[str, Any] | None = None,
        *,
        label: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        previews: Mapping[str, Preview] | None = None,
    ) -> Commit:
        """Change an item: add or replace rows, the label or metadata; other values are kept.

        Args:
            key: key of the item.
            rows: modality -> (D,) embedding; None as a value removes the modality.
            label: new label.
            metadata: new values of fields; None as a value removes the field.
            previews: modality -> (content type, content). A preview of a changed row is removed.

        Raises:
            ConfigError: there is no such item, or it would have no modality.
            ShapeError, NonFiniteError: a row is invalid.
        """
        self._storage.check_writable()
        with self._change() as pending:
            old = self._block_of(pending, key)
            given = {name: value for name, value in (rows or {}).items() if value is not None}
            new = old.take(np.array([0]))
            if given:
                stacked = {name: torch.as_tensor(np.asarray(value))[None] for name, value in given.items()}
                checked = mapping_block(stacked, self.modalities, self.dim, keys=[key])
                new.rows = {**old.rows, **checked.rows}
                new.present = {**old.present, **checked.present}
            for name in set(rows or {}) - set(given):
                if name not in self.modalities:
                    raise ConfigError(f"unknown modality {name!r}; the index has {', '.join(self.modalities)}")
                new.present = {**new.present, name: np.array([False])}
            if not any(mask[0] for mask in new.present.values()):
                raise ConfigError(f"the item {key!r} would have no modality; delete it instead")
            if label is not None:
                new.labels = check_labels([label], 1)
            changed = check_metadata(metadata, key) if metadata is not None else None
            if changed is not None or rows or previews:
                kept = {**((old.metadata or [None])[0] or {}), **(changed or {})}
                kept_previews = {n: p for n, p in self._stored_previews(old).items() if n not in (rows or {})}
                shown = kept_previews | check_previews(previews, self.modalities, key)
                new.metadata = [{name: value for name, value in kept.items() if value is not None}]
                new.previews, new.payloads = [shown], None
            self._remove(pending, key)
            pending.add(new)
            pending.replaced += 1
        return Commit(self.generation, 0, 1, 0)

    def delete(self, *, keys: Sequence[str] | None = None, where: str | None = None) -> Commit:
        """Delete items by their keys or by a filter.

        Raises:
            ConfigError: neither or both are given, a key does not exist, or the filter is invalid.
        """
        self._storage.check_writable()
        if (keys is None) == (where is None):
            raise ConfigError("give either `keys` or `where`")
        if isinstance(keys, str):
            keys = [keys]
        with self._change() as pending:
            if keys is None:
                if pending:
                    raise ConfigError("in a batch, delete by `where` before other changes, or delete by `keys`")
                places = self._selected(str(where))
                records = self._storage.catalog.at_places(places.tolist())
                pending.removed.update((record.key, record.id) for record in records)
                deleted = len(records)
            else:
                deleted = len(set(keys))
                for key in dict.fromkeys(keys):
                    self._remove(pending, key)
            pending.deleted += deleted
        return Commit(self.generation, 0, 0, deleted)

    @contextlib.contextmanager
    def batch(self) -> Iterator[Self]:
        """Commit all changes of the block at once; nothing is changed if it raises."""
        self._storage.check_writable()
        if self._pending is not None:
            raise ConfigError("batches cannot be nested")
        self._pending = Pending()
        try:
            yield self
            pending, self._pending = self._pending, None
            self._commit(pending)
        finally:
            self._pending = None

    def compact(self, *, everything: bool = False) -> Commit:
        """Rewrite small parts, and parts of which more than 20 % of the items are deleted; or all parts.

        Deleted rows stay on the disk until the index is opened for writing at least ten minutes later, so that readers
        of earlier generations keep their files.
        """
        self._storage.check_writable()
        snapshot = self._storage.snapshot
        chosen = [
            part
            for part in snapshot.parts
            if everything or part.items < _SMALL or place_mask(snapshot, part).mean() < 1 - _MOST_DEAD
        ]
        if len(chosen) == 1 and place_mask(snapshot, chosen[0]).all():
            chosen = []
        self._rewrite(chosen)
        self._storage.clean()
        return Commit(self.generation, 0, 0, 0)

    # --- calibration ---

    def calibrate(
        self,
        *,
        method: str = "auto",
        rows: Sequence[str] | None = None,
        items: int = _CALIBRATION_ITEMS,
        seed: int = 0,
    ) -> Calibration:
        """Fit the correction of the modality gap (see `ua.repair`) to a sample of the items.

        Args:
            method: `auto` chooses on held-out items; or `none`, `center`, `coral` or `center_csls`.
            rows: keys of the items to use. None: a random sample.
            items: maximum number of items, at least 4.
            seed: seed of the sample.

        Raises:
            ConfigError: an option is invalid, or the index is open for reading.
        """
        self._storage.check_writable()
        check_choice("method", method, ("auto", *METHODS))
        check_integer("items", items, low=4)
        sample = self.embeddings(limit=items, seed=seed, keys=rows)
        return self._fit(sample.z, sample.present, sample.labels, method, seed=seed)

    def build_approximate(
        self, *, kind: Kind = "hnsw", target: str = "any", recall: float = 0.95, seed: int = 0
    ) -> ApproximateInfo:
        """Build a faiss graph or inverted file, which finds the candidates for searches of large indexes.

        It is a cache: items that are added later are compared exactly, and deleted items are left out.

        Args:
            kind: `hnsw` (a graph: fast searches, slow to build) or `ivf` (an inverted file).
            target: `any`, or a modality; searches with other targets compare all items.
            recall: requested fraction of the exact ten nearest items that are found, measured with rows of each
                modality. The effort of searches is raised until all modalities reach it.
            seed: seed of the queries.

        Returns:
            The description, with the measured recall.

        Raises:
            ConfigError: an option is invalid, or the index is open for reading.
            MissingDependencyError: faiss is not installed.
        """
        self._storage.check_writable()
        check_choice("target", target, ("any", *self.modalities))
        storage = self._storage
        built = build_approximate(
            storage.snapshot,
            storage.calibration,
            kind=kind,
            target=target,
            recall=recall,
            calibration_id=storage.calibration_id,
            seed=seed,
        )
        storage.set_approximate(target, built)
        return built.info

    def _calibrate_from(self, store: EmbeddingStore) -> None:
        """Fit the correction to the items of a store, except those of a test split."""
        split = np.asarray(store.split)
        if not len(split) or not (split == 2).any():
            self.calibrate()
            return
        blocks = list(
            store_blocks(
                store,
                self._space,
                self.modalities,
                self.dim,
                rows=np.random.default_rng(0).permutation(np.flatnonzero(split != 2))[:_CALIBRATION_ITEMS],
                with_previews=False,
            )
        )
        block = _merged(blocks, self.modalities)[0]
        self._fit(block.rows, block.present, block.labels or [], "auto", is_split=True)

    def _fit(
        self,
        z: Mapping[str, Any],
        present: Mapping[str, Any],
        labels: Sequence[str | None],
        method: str,
        *,
        seed: int = 0,
        is_split: bool = False,
    ) -> Calibration:
        used = [name for name in self.modalities if name in z and present[name].any()]
        known = [label for label in labels if label is not None]
        fitted = fit_calibration(
            {name: z[name] for name in used},
            self.modalities,
            present={name: present[name] for name in used},
            labels=_label_codes(labels) if known else None,
            method=method,
            seed=seed,
        )
        sample = {
            "method": "split" if is_split else method,
            "items": len(next(iter(z.values()), ())),
            "rows": {name: int(np.asarray(present[name]).sum()) for name in used},
        }
        self._storage.set_calibration(fitted, sample)
        return fitted

    # --- reading ---

    def get(self, key: str, *, with_rows: bool = True) -> Item:
        """Return an item.

        Raises:
            ConfigError: there is no such item.
        """
        return self._item(self._record(key), with_rows=with_rows)

    def items(self, *, where: str | None = None, after: str | None = None, limit: int = 100) -> list[Item]:
        """Return items without their rows, in the order in which they were added.

        Args:
            where: filter, as in `search`.
            after: key of the last item of the previous page.
            limit: maximum number of items, from 1 to 10,000.
        """
        check_integer("limit", limit, low=1, high=10_000)
        condition, parameters = self._condition(where)
        self._storage.check_current()
        first = 0 if after is None else self._record(after).id
        catalog = self._storage.catalog
        records = catalog.page(self.generation, after=first, limit=limit, condition=condition, parameters=parameters)
        return [self._item(record, with_rows=False) for record in records]

    def preview(self, key: str, modality: str) -> Preview | None:
        """Return (content type, content) of an image, text or sound that shows an item, or None."""
        return self._preview(self._record(key), modality)

    def preview_modalities(self, key: str) -> list[str]:
        """Return the modalities of an item that have a preview."""
        record = self._record(key)
        return [name for name in self.modalities if self._preview(record, name) is not None]

    def embeddings(
        self, *, limit: int | None = None, seed: int = 0, keys: Sequence[str] | None = None
    ) -> IndexEmbeddings:
        """Return embeddings of items without correction.

        Args:
            limit: maximum number of items, drawn at random without replacement. None: all.
            seed: seed of the sample.
            keys: keys of the items to draw from. None: all items.
        """
        check_seed(seed)
        snapshot = self._storage.snapshot
        if keys is not None:
            records = [self._record(key) for key in keys]
            at = np.array([(record.part, record.place) for record in records], np.int64).reshape(-1, 2)
        else:
            places = [np.flatnonzero(place_mask(snapshot, part)) for part in snapshot.parts]
            pairs = [np.stack([np.full(len(p), part.id), p], 1) for part, p in zip(snapshot.parts, places, strict=True)]
            at = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
        if limit is not None:
            check_integer("limit", limit, low=1)
            if len(at) > limit:
                at = at[np.sort(np.random.default_rng(seed).permutation(len(at))[:limit])]
        records = self._storage.catalog.at_places(at.tolist())
        z = {name: np.zeros((len(at), self.dim), np.float32) for name in self.modalities}
        present = {name: np.zeros(len(at), np.bool_) for name in self.modalities}
        for part in snapshot.parts:
            rows_of_part = np.flatnonzero(at[:, 0] == part.id)
            for name in part.rows if len(rows_of_part) else ():
                row, has = _row_numbers(part, name, at[rows_of_part, 1])
                z[name][rows_of_part[has]] = part.rows[name][row[has]]
                present[name][rows_of_part[has]] = True
        return IndexEmbeddings([r.key for r in records], z, present, [r.label for r in records])

    def encode(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Embed raw values (a list) or features (an array of shape (B, W)) without correction.

        Returns:
            Modality -> (B, D) unit rows.

        Raises:
            ConfigError: the index has no space, or no encoder for a modality.
            MediaError: raw values cannot be decoded.
        """
        found: dict[str, Tensor] = {}
        for name, values in inputs.items():
            if name not in self.modalities:
                raise ConfigError(
                    f"unknown modality {name!r}; the index has {', '.join(self.modalities)}"
                    f"{suggestion(name, self.modalities)}"
                )
            given = list(values) if isinstance(values, list | tuple) else torch.as_tensor(values)
            found[name] = encode_values(self._space, self._encoders, name, given)
        return found

    def verify(self) -> list[str]:
        """Read all files and compare them with their checksums; return a sentence for each problem."""
        return problems_of(self._storage)

    @classmethod
    def salvage(cls, path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Salvaged:
        """Copy the undamaged items of a damaged index to a new index.

        Items whose rows of a modality are in a damaged file keep their other rows. The correction is fitted again.

        Args:
            path: folder of the damaged index, which is only read.
            out: folder of the new index.

        Returns:
            The number of copied items, the keys of lost and of incomplete items, and the problems.

        Raises:
            DataError: the description of the index is damaged, so nothing can be read.
            ConfigError: the output folder exists.
        """
        found = salvage(Path(path), Path(out))
        if found.items >= CALIBRATED_FROM:
            with cls.open(out, mode="w") as made:
                made.calibrate()
        return found

    def to_store(self, path: str | os.PathLike[str], *, keys: Sequence[str] | None = None) -> EmbeddingStore:
        """Write the embeddings of all or of given items to a new store."""
        found = self.embeddings(keys=keys)
        labels = sorted({label for label in found.labels if label is not None})
        codes = {label: number for number, label in enumerate(labels)}
        used = [name for name in self.modalities if found.present[name].any()]
        if not used:
            raise ConfigError("no items are left to write")
        return EmbeddingStore.write(
            path,
            {name: found.z[name] for name in used},
            present={name: found.present[name] for name in used},
            labels=np.array([codes.get(label, -1) if label is not None else -1 for label in found.labels]),
            label_names=labels,
            names=found.keys,
            provenance={"made_by": "unialign.Index", "space": self._storage.catalog.meta("space")},
        )

    def export(self, address: str) -> int:
        """Write corrected vectors to another vector database, such as `lancedb:FOLDER` or `qdrant:URL`.

        The cosine search of the database is then correct without this library, and `Index.connect` adds CSLS scores,
        queries of several parts and their encoding. An earlier export is replaced.

        Returns:
            The number of items.

        Raises:
            ConfigError: unknown back end.
            MissingDependencyError: the client of the database is not installed.
        """
        return export_index(self._storage, address)

    @staticmethod
    def connect(
        address: str,
        *,
        space: Space | str | None = None,
        encoders: Mapping[str, QueryEncoder | Encode] | None = None,
    ) -> ConnectedIndex:
        """Open an index that was exported to another vector database; see `unialign.index.connect`."""
        return connect(address, space=space, encoders=encoders)

    # --- search ---

    @overload
    def search(
        self,
        query: Query,
        *,
        k: int = ...,
        target: str | Sequence[str] = ...,
        unit: Unit = ...,
        where: str | None = ...,
        correction: Literal["auto", "none"] = ...,
        fuse: Fuse = ...,
        exact: bool | Literal["auto"] = ...,
        deduplicate: float | None = ...,
        rerank: Reranker | None = ...,
        rerank_depth: int = ...,
        min_probability: float | None = ...,
        exclude: Collection[str] = ...,
    ) -> Found: ...
    @overload
    def search(
        self,
        query: Sequence[Query],
        *,
        k: int = ...,
        target: str | Sequence[str] = ...,
        unit: Unit = ...,
        where: str | None = ...,
        correction: Literal["auto", "none"] = ...,
        fuse: Fuse = ...,
        exact: bool | Literal["auto"] = ...,
        deduplicate: float | None = ...,
        rerank: Reranker | None = ...,
        rerank_depth: int = ...,
        min_probability: float | None = ...,
        exclude: Collection[str] = ...,
    ) -> list[Found]: ...
    def search(
        self,
        query: Query | Sequence[Query],
        *,
        k: int = 10,
        target: str | Sequence[str] = "any",
        unit: Unit = "item",
        where: str | None = None,
        correction: Literal["auto", "none"] = "auto",
        fuse: Fuse = "mean",
        exact: bool | Literal["auto"] = "auto",
        deduplicate: float | None = None,
        rerank: Reranker | None = None,
        rerank_depth: int = 50,
        min_probability: float | None = None,
        exclude: Collection[str] = (),
    ) -> Found | list[Found]:
        """Find the items nearest to a query, or to each query of a list.

        Results are the same as in float64, with scores within 1e-12 sorted by key.

        Args:
            query: a query (see `ua.query`), or a list of queries, which are computed together.
            k: number of results, from 1 to 100,000.
            target: modalities to compare with: `any` and a list use the normalized mean of the rows that an item has,
                `best` uses its best row, and a name uses one modality. Items without any of them are left out, with a
                warning.
            unit: `item`, or `row` for one result for each row of the target modalities.
            where: filter, such as `label in ('car', 'bus') and has(audio) and price < 5`.
            correction: `auto` for the calibration of the index, or `none` for plain cosines.
            fuse: how to combine the parts of a query: `mean` (normalized weighted sum), `frechet_mean` (smallest sum
                of squared angles), `max` (largest weighted score, minus the largest of the parts with negative
                weights) or `rrf` (reciprocal rank fusion with the constant 60; ranks above 1,000, or above k if that
                is larger, add nothing; ties share a rank). With `max` and `rrf`, each row of an item is a part.
            exact: whether to compare all items. `auto` uses the approximate index of the target (see
                `build_approximate`) for more than 250,000 items, unless a filter selects at most 20,000 items or 10 %.
                False uses it for any number of items. Without an approximate index, all items are compared; see
                `Found.exact`.
            deduplicate: leave out items whose vector, the normalized mean of their corrected target rows, has at least
                this cosine with that of a better item, and fill up to k.
            rerank: function of the query and its hits that returns one number for each hit, by which the hits are
                ordered; see `unialign.index.cross_encoder` and `gram_volume`.
            rerank_depth: number of hits that `rerank` orders, at least k.
            min_probability: leave out results with a smaller or unknown probability.
            exclude: keys to leave out. Items of the query are always left out.

        Raises:
            ConfigError: an option or the filter is invalid, an item or encoder does not exist, or the parts of a
                query cancel.
            ShapeError, NonFiniteError: a vector of a query is invalid.
        """
        options = search_options(
            self.modalities,
            k=k,
            rerank_depth=None if rerank is None else rerank_depth,
            target=target,
            unit=unit,
            correction=correction,
            fuse=fuse,
            exact=exact,
            deduplicate=deduplicate,
            min_probability=min_probability,
            exclude=exclude,
        )
        queries = check_queries(query)
        found = search_index(
            self._storage,
            queries,
            options,
            lookup=self._rows_of,
            space=self._space,
            encoders=self._encoders,
            select=lambda generation: None if where is None else self._selected(where, generation),
        )
        notes = [*self._unknown_names(where), *self._uncorrected(options)]
        if notes:
            found = [replace(its, warnings=(*its.warnings, *notes)) for its in found]
        if rerank is not None:
            found = [rerank_found(rerank, one, its, k) for one, its in zip(queries, found, strict=True)]
        return found[0] if isinstance(query, Query) else found

    def query_vector(self, query: Query) -> Tensor:
        """Return the corrected (D,) unit vector of a query with `fuse="mean"`, float64."""
        encoded = encode_inputs(check_queries(query), self._space, self._encoders)
        vectors = query_vectors(encoded, self.calibration, self.dim, encode=not_encoded, lookup=self._rows_of)
        return vectors.q_QD[0]

    def duplicates(self, threshold: float | None = None, within: Within = "modality") -> list[DuplicateGroup]:
        """Find groups of items with equal or nearly equal rows, by comparing all rows.

        The time is quadratic in the number of items: minutes for 100,000 items.

        Args:
            threshold: cosine after the correction from which rows are near, in (0, 1]. None: the cosine above which
                about one in 1,000 rows has an unrelated row; without a calibration, only equal rows are found.
            within: compare rows of the same modality, or `across` different modalities.

        Returns:
            Groups with their keys, cause and smallest cosine, the largest first.

        Raises:
            ConfigError: an option is invalid.
        """
        found = self.embeddings()
        return find_duplicates(found.keys, found.z, found.present, self.calibration, threshold=threshold, within=within)

    def others(self, key: str, *, target: str) -> Query:
        """Return a query with all modalities of an item except `target`.

        Raises:
            ConfigError: unknown modality.
        """
        return others(self.modalities, key, target)

    def neighbors(self, key: str, *, modalities: Sequence[str] | None = None, k: int = 10, **options: Any) -> Found:
        """Find the items nearest to an item of the index.

        Args:
            key: key of the item.
            modalities: its modalities to use. Default: all that it has.
            k: number of items.
            options: further options of `search`.
        """
        return self.search(make_query(item=key, modalities=modalities), k=k, **options)

    def _rows_of(self, query: QueryPart) -> dict[str, Tensor]:
        record = self._record(query.value)
        rows = self._item(record, with_rows=True).rows
        names = self.modalities if query.modalities is None else query.modalities
        for name in names:
            if name not in self.modalities:
                raise ConfigError(f"unknown modality {name!r}; the index has {', '.join(self.modalities)}")
        found = {name: torch.from_numpy(rows[name]).double() for name in names if name in rows}
        if not found:
            raise ConfigError(
                f"the item {query.value!r} has none of the modalities {', '.join(names)}; it has {', '.join(rows)}"
            )
        return found

    # --- helpers ---

    def _record(self, key: str) -> ItemRecord:
        self._storage.check_current()
        is_text = isinstance(key, str) and not has_surrogate(key)
        record = self._storage.catalog.find([key], self.generation)[0] if is_text else None
        if record is None:
            known = self._storage.catalog.similar_keys(key, self.generation) if is_text else ()
            raise ConfigError(f"the index has no item {str(key)[:100]!r}{suggestion(key, known)}")
        return record

    def _item(self, record: ItemRecord, *, with_rows: bool) -> Item:
        has = tuple(name for bit, name in enumerate(self.modalities) if record.present >> bit & 1)
        rows: dict[str, NDArray[np.float32]] = {}
        if with_rows:
            part = next(part for part in self._storage.snapshot.parts if part.id == record.part)
            for name in has:
                row, _ = _row_numbers(part, name, np.array([record.place]))
                rows[name] = np.array(part.rows[name][row[0]])
        return Item(record.key, record.name, record.label, record.metadata, has, rows)

    def _preview(self, record: ItemRecord, modality: str) -> Preview | None:
        return self._payload_preview(record.payload, modality)

    def _payload_preview(self, payload: int, modality: str) -> Preview | None:
        found = self._storage.catalog.preview(payload, modality)
        if found is None and self._previews is not None and payload <= len(self._preview_rows):
            return self._previews.read(int(self._preview_rows[payload - 1]), modality)
        return found

    def _condition(self, where: str | None) -> tuple[str, tuple[Any, ...]]:
        if where is None:
            return "1", ()
        return compile_filter(parse_filter(where), {name: bit for bit, name in enumerate(self.modalities)})

    def _uncorrected(self, options: SearchOptions) -> list[str]:
        """Return a sentence for each target modality that is not corrected while others are."""
        calibration = self.calibration
        if options.correction == "none" or calibration.method == "none":
            return []
        return [
            f"the gap of {name!r} is not corrected, since it had too few rows; call `calibrate` when it has {MIN_ROWS}"
            for name in options.targets
            if name not in calibration.bias
        ]

    def _unknown_names(self, where: str | None) -> list[str]:
        """Return a sentence for each name in a filter that no item has."""
        if where is None:
            return []
        names = names_of(parse_filter(where)) - {*self.modalities, "label", "key"}
        known = self._storage.catalog.field_names(most=10_000) if names else []
        options = ("label", "key", *self.modalities, *known)
        return [f"no item has the field {name!r}{suggestion(name, options)}" for name in sorted(names - set(known))]

    def _selected(self, where: str, generation: int | None = None) -> NDArray[np.int64]:
        condition, parameters = self._condition(where)
        shown = self.generation if generation is None else generation
        return self._storage.catalog.select(condition, parameters, shown)

    @contextlib.contextmanager
    def _change(self) -> Iterator[Pending]:
        """Collect changes in the open batch, or commit them at the end of the block."""
        if self._pending is not None:
            yield self._pending
            return
        pending = Pending()
        yield pending
        self._commit(pending)

    def _commit(self, pending: Pending) -> None:
        if not pending:
            return
        blocks = pending.merged(self.modalities)
        counts = (pending.added, pending.replaced, pending.deleted)
        self._storage.commit(blocks, removed=list(pending.removed.values()), counts=counts)
        try:
            if self._needs_calibration():
                if self._calibration_store is not None:
                    self._calibrate_from(self._calibration_store)
                else:
                    self.calibrate()
            self._merge_small_parts()
        except UniAlignError as error:
            # The changes are committed, so an exception would be wrong.
            warnings.warn(f"the changes are saved, but the index could not be maintained: {error}", stacklevel=4)

    def _needs_calibration(self) -> bool:
        """Whether the correction was never fitted, or was fitted to far fewer items or before a modality had enough
        rows.

        A method that was chosen explicitly is never replaced.
        """
        if not self._calibrates or len(self) < CALIBRATED_FROM:
            return False
        sample = self._storage.catalog.meta("calibration_sample")
        if sample is None:
            return not self._storage.calibration_id
        if sample["method"] != "auto":
            return False
        counts = self._storage.snapshot.counts()
        is_late = any(sample["rows"].get(name, 0) < MIN_ROWS <= counts[name] for name in self.modalities)
        return is_late or (sample["items"] < _CALIBRATION_ITEMS and len(self) >= _GROWN * sample["items"])

    def _add_block(self, pending: Pending, block: Block, on_conflict: OnConflict) -> None:
        stored = self._storage.catalog.find(block.keys, self.generation)
        keep: list[int] = []
        for place, (key, record) in enumerate(zip(block.keys, stored, strict=True)):
            exists = key in pending.places or (record is not None and key not in pending.removed)
            if exists and on_conflict == "error":
                raise ConfigError(
                    f"the index already has an item {key!r}; pass on_conflict='replace' or 'skip', or other keys"
                )
            if exists and on_conflict == "skip":
                continue
            if exists:
                self._remove(pending, key)
                pending.replaced += 1
            else:
                pending.added += 1
            keep.append(place)
        pending.add(block.take(np.array(keep, np.int64)))

    def _remove(self, pending: Pending, key: str) -> None:
        if key in pending.places:
            pending.drop(key)
        elif key in pending.removed:
            raise ConfigError(f"the item {key!r} was already deleted in this batch")
        else:
            pending.removed[key] = self._record(key).id

    def _block_of(self, pending: Pending, key: str) -> Block:
        found = pending.item(key)
        if found is not None:
            return found
        if key in pending.removed:
            raise ConfigError(f"the item {key!r} was deleted in this batch")
        return self._stored_block([self._record(key)])

    def _stored_block(self, records: Sequence[ItemRecord]) -> Block:
        rows = {name: np.zeros((len(records), self.dim), np.float32) for name in self.modalities}
        present = {name: np.zeros(len(records), np.bool_) for name in self.modalities}
        parts = {part.id: part for part in self._storage.snapshot.parts}
        by_part: dict[int, list[int]] = {}
        for number, record in enumerate(records):
            by_part.setdefault(record.part, []).append(number)
        for part_id, numbers in by_part.items():
            places = np.array([records[number].place for number in numbers])
            for name in parts[part_id].rows:
                row, has = _row_numbers(parts[part_id], name, places)
                chosen = np.array(numbers)[has]
                rows[name][chosen] = parts[part_id].rows[name][row[has]]
                present[name][chosen] = True
        return Block(
            [record.key for record in records],
            rows,
            present,
            [None if record.name == record.key else record.name for record in records],
            [record.label for record in records],
            [record.metadata or None for record in records],
            None,
            [record.payload for record in records],
        )

    def _stored_previews(self, block: Block) -> dict[str, Preview]:
        if block.payloads is None or block.payloads[0] is None:
            return dict((block.previews or [{}])[0] or {})
        payload = block.payloads[0]
        found = {name: self._payload_preview(payload, name) for name in self.modalities}
        return {name: preview for name, preview in found.items() if preview is not None}

    def _next_number(self, data: Mapping[str, Any]) -> int:
        """Return the first of consecutive numbers that are not keys of the index or of the open batch."""
        if not isinstance(data, Mapping):
            return 0  # `mapping_block` raises.
        first, pending = len(self), self._pending
        count = next((len(rows) for rows in data.values() if hasattr(rows, "__len__")), 0)
        taken = dict(pending.places) if pending is not None else {}
        first = max(first, *(int(key) + 1 for key in taken if key.isdecimal()), 0)
        numbers = [str(first + row) for row in range(count)]
        if any(record is not None for record in self._storage.catalog.find(numbers, self.generation)):
            first = max(first, self._storage.catalog.highest_number(self.generation) + 1)
        return first

    def _merge_small_parts(self) -> None:
        small = [part for part in self._storage.snapshot.parts if part.items < _SMALL]
        if len(small) > _MOST_SMALL:
            self._rewrite(small)

    def _rewrite(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        removed: list[int] = []

        def blocks() -> Iterator[Block]:
            """Yield the items of one new part at a time, to bound memory; the commit reads `removed` afterwards."""
            records: list[ItemRecord] = []
            for part in parts:
                records.extend(self._storage.catalog.living(part.id, self.generation))
                while len(records) >= MOST_ITEMS or (records and part is parts[-1]):
                    chosen, records = records[:MOST_ITEMS], records[MOST_ITEMS:]
                    removed.extend(record.id for record in chosen)
                    yield self._stored_block(chosen)

        self._storage.commit(blocks(), removed=removed, retired=[part.id for part in parts])


def _stored_space(storage: Storage, folder: Path) -> Space | None:
    """Return the space of an index; raise DataError if it is not the one with which the index was created."""
    known = storage.catalog.meta("space")
    if known is None:
        return None
    if not folder.is_dir():
        raise DataError(f"{folder} is missing; copy the space of the index there")
    space = Space.from_pretrained(folder)
    if space_fingerprint(space) != known:
        raise DataError(f"{folder} is not the space of the index; restore it, or create a new index")
    return space


def _merged(blocks: Sequence[Block], modalities: tuple[str, ...]) -> list[Block]:
    pending = Pending()
    for block in blocks:
        if block.keys:
            pending.add(block)
    return pending.merged(modalities)


def _row_numbers(part: Part, name: str, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the row numbers of a modality at places, and whether the items have it."""
    known = part.places.get(name)
    if known is None:
        return places.astype(np.int64), np.ones(len(places), np.bool_)
    row = np.searchsorted(known, places)
    inside = np.minimum(row, len(known) - 1)
    return inside, known[inside] == places


def _label_codes(labels: Sequence[str | None]) -> NDArray[np.int64]:
    codes: dict[str, int] = {}
    return np.array([-1 if label is None else codes.setdefault(label, len(codes)) for label in labels], np.int64)
