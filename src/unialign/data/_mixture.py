"""`Mixture`: several tables with different modalities, on which one space is trained.

Shapes: `N` items of all sources.
"""

import math
from collections.abc import Mapping
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from unialign._checks import check_choice, check_integer, check_number, suggestion, unsafe_name
from unialign._html import html_table
from unialign.config import MixtureMode
from unialign.data._item_identity import are_row_numbers
from unialign.data._mixture_store import MixtureStore
from unialign.data._mixture_values import check_shared
from unialign.data._sampling import Sampling, mixture_fingerprint
from unialign.data._store import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.items import Items, with_source

__all__ = ["Mixture"]


class Mixture:
    """Several sources of items, such as photos with captions and sounds with captions, on which `unialign.fit` trains
    one space.

    The items of all sources are concatenated. Sources are sampled in proportion to their weights:
    after any number of batches, the number of batches (`alternate`) or rows (`blend`) of a source differs from the
    exact proportion by less than one. The batches depend only on the seed of the run and the step. Evaluation, early
    stopping, closed forms and the statistics of the features use all items of their split, without weights.

    Examples:
        >>> photos = EmbeddingStore.from_arrays({"image": np.ones((8, 3)), "text": np.ones((8, 2))})
        >>> sounds = EmbeddingStore.from_arrays({"sound": np.ones((6, 4)), "text": np.ones((6, 2))})
        >>> mixture = Mixture({"photos": photos, "sounds": sounds}, weights={"photos": 2})
        >>> len(mixture), mixture.modalities, mixture.weights
        (14, ('image', 'text', 'sound'), {'photos': 2.0, 'sounds': 1.0})

    Args:
        sources: name of the source -> table; all tables are `EmbeddingStore`, or all are `Items`. Names may contain
            ASCII letters, digits, `_`, `.` and `-`. A modality must have the same name in all sources.
        weights: source -> positive number, the sampling weight of the source. Default: 1 each.
        mode: `alternate`: the items of a batch are from one source. `blend`: each batch has items of all sources, in
            random order.
        epoch_steps: number of optimizer steps of an epoch. Default: as many as are needed to use each training row of
            the source with the most training rows once, rounded up to whole batches. The other sources are reshuffled
            and start over when all of their rows were used.
        shared_ids: whether equal ids in different sources refer to the same item, so that these items are never
            negatives of each other. In item tables, and in stores that were embedded from item tables, the key of an
            item is used if the item has no id. Default: ids and groups of different sources are different, even if
            their values are equal.

    Raises:
        ConfigError: there are fewer than two sources, stores and items are mixed, an option is invalid, only some of
            the item tables have a split, or `shared_ids` is set for sources without ids, or whose keys are row numbers.
        ShapeError: a modality has different dims in two sources.
        DataError: a modality has different encoders or kinds in two sources, or a shared group crosses splits.
    """

    def __init__(
        self,
        sources: Mapping[str, EmbeddingStore] | Mapping[str, Items],
        *,
        weights: Mapping[str, float] | None = None,
        mode: MixtureMode = "alternate",
        epoch_steps: int | None = None,
        shared_ids: bool = False,
    ) -> None:
        _check_sources(sources)
        check_choice("mode", mode, get_args(MixtureMode))
        if epoch_steps is not None:
            check_integer("epoch_steps", epoch_steps, low=1)
        if not isinstance(shared_ids, bool):
            raise ConfigError(f"shared_ids must be True or False, got {shared_ids!r}")
        self._sources: dict[str, EmbeddingStore] | dict[str, Items] = dict(sources)  # type: ignore[assignment]
        self._sampling = Sampling(
            items={name: _items_of(source) for name, source in sources.items()},
            fingerprints={name: source.fingerprint for name, source in sources.items()},
            paths={name: _path_of(source) for name, source in sources.items()},
            weights=_checked_weights(weights, sources),
            mode=mode,
            epoch_steps=epoch_steps,
            shared_ids=shared_ids,
        )
        self._table = _combined(self._sources, self._sampling)

    @property
    def sources(self) -> dict[str, EmbeddingStore] | dict[str, Items]:
        """Name of the source -> table."""
        return self._sources.copy()

    @property
    def table(self) -> EmbeddingStore | Items:
        """The items of all sources, one source after another, with the modalities of all.

        Keys and names of the items have the prefix of their source, such as `photos:cat`. Labels with names are merged
        by name. Features of stores are not copied.
        """
        return self._table

    @property
    def sampling(self) -> Sampling:
        """Sources and sampling weights of the mixture."""
        return self._sampling

    @property
    def source_of(self) -> NDArray[np.int16]:
        """(N,) number of the source of each item, in the order of `sources`."""
        sizes = list(self._sampling.items.values())
        return np.repeat(np.arange(len(sizes), dtype=np.int16), sizes)

    @property
    def name(self) -> str:
        """Names of the sources, joined by `+`."""
        return "+".join(self._sources)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities of all sources."""
        return self._table.modalities

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each source."""
        return dict(self._sampling.weights)

    @property
    def mode(self) -> MixtureMode:
        """Whether the items of a batch are from one source (`alternate`) or from all sources (`blend`)."""
        return self._sampling.mode

    @property
    def epoch_steps(self) -> int | None:
        """Number of steps of an epoch; None: chosen by the source with the most training rows."""
        return self._sampling.epoch_steps

    @property
    def fingerprint(self) -> str:
        """sha256 of the names and fingerprints of the sources and of `shared_ids`, but not of weights and mode."""
        return mixture_fingerprint(self._sampling.fingerprints, shared_ids=self._sampling.shared_ids)

    def __len__(self) -> int:
        """Return the number N of items."""
        return sum(self._sampling.items.values())

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {items:,}" for name, items in self._sampling.items.items())
        return f"Mixture({sizes} items; {', '.join(self.modalities)}; {self.mode})"

    def _repr_html_(self) -> str:
        total = sum(self.weights.values())
        rows = [
            (name, f"{_items_of(source):,}", ", ".join(source.modalities), f"{self.weights[name] / total:.1%}")
            for name, source in self._sources.items()
        ]
        return html_table(rows, head=("source", "items", "modalities", "share"), caption=f"Mixture, mode {self.mode}")


def _check_sources(sources: object) -> None:
    if not isinstance(sources, Mapping):
        raise ConfigError(f"sources must map names to stores or item tables, got {type(sources).__name__}")
    for name, source in sources.items():
        if problem := unsafe_name(name):
            raise ConfigError(f"invalid name {name!r} of a source: {problem}")
        if not isinstance(source, EmbeddingStore | Items):
            raise ConfigError(
                f"the source {name!r} must be an EmbeddingStore or Items, got {type(source).__name__}; load it with "
                "`unialign.data.load_dataset` or `Items.open`"
            )
    if len(sources) < 2:
        raise ConfigError(f"a mixture needs at least two sources, got {', '.join(sources) or 'none'}")
    stores = [name for name, source in sources.items() if isinstance(source, EmbeddingStore)]
    tables = [name for name in sources if name not in stores]
    if stores and tables:
        raise ConfigError(
            f"the source {stores[0]!r} is a store of features, but {tables[0]!r} is a table of media; embed the media "
            "with `unialign.embed`, so that all sources are stores"
        )


def _checked_weights(weights: Mapping[str, float] | None, sources: Mapping[str, object]) -> dict[str, float]:
    if weights is not None and not isinstance(weights, Mapping):
        raise ConfigError(f"weights must map sources to numbers, got {weights!r}")
    for name, weight in (weights or {}).items():
        if name not in sources:
            raise ConfigError(f"weights has the unknown source {name!r}{suggestion(name, sources)}")
        check_number(f"the weight of {name!r}", weight, "a finite number above 0", lambda x: x > 0 and math.isfinite(x))
    return {name: float((weights or {}).get(name, 1.0)) for name in sources}


def _items_of(source: EmbeddingStore | Items) -> int:
    return source.items if isinstance(source, EmbeddingStore) else len(source)


def _path_of(source: EmbeddingStore | Items) -> str | None:
    return str(source.path) if isinstance(source, EmbeddingStore) and source.path is not None else None


def _combined(
    sources: Mapping[str, EmbeddingStore] | Mapping[str, Items], sampling: Sampling
) -> EmbeddingStore | Items:
    stores = {name: source for name, source in sources.items() if isinstance(source, EmbeddingStore)}
    name, shared_ids = "+".join(sources), sampling.shared_ids
    if stores:
        if shared_ids:
            check_shared(stores)
        return MixtureStore(stores, name, shared_ids=shared_ids).with_sampling(sampling)
    tables = {name: source for name, source in sources.items() if isinstance(source, Items)}
    _check_tables(tables)
    for source, items in tables.items():
        if shared_ids and not items.has_ids and are_row_numbers(items.keys.tolist()):
            raise ConfigError(
                f"shared_ids=True needs ids in every source, but {source!r} has none, and its keys are row numbers; "
                "specify the column of the ids (`Items.open(..., ids=...)`, --ids-column), or omit shared_ids"
            )
    return Items.concat([with_source(items, source, shared_ids=shared_ids) for source, items in tables.items()], name)


def _check_tables(tables: Mapping[str, Items]) -> None:
    for name, items in tables.items():
        if not len(items):
            raise DataError(f"the source {name!r} has no items; omit it")
    with_split = {name: items.has_split for name, items in tables.items()}
    if len(set(with_split.values())) > 1:
        having, lacking = ([name for name, has in with_split.items() if has is kind] for kind in (True, False))
        raise ConfigError(
            f"the source {having[0]!r} has a split, but {lacking[0]!r} has none; give every source a split, or none "
            "(`Items.with_split`)"
        )
    kinds: dict[str, tuple[str, str]] = {}
    for name, items in tables.items():
        for modality, kind in items.kinds.items():
            first, known = kinds.setdefault(modality, (name, kind))
            if known != kind:
                raise DataError(
                    f"{modality!r} is of kind {known!r} in the source {first!r} and of kind {kind!r} in {name!r}; give "
                    "the modalities different names"
                )
