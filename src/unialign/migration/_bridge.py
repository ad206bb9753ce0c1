"""A bridge: a map, the estimated loss of retrieval quality, and a verdict.

Shapes: `N` rows of the index, `n` pairs, `Q` queries, `D` dimension of the old rows, `E` dimension of the new rows.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.errors import CheckpointError, ConfigError, DataError, ShapeError
from unialign.io import NpyAppender, checked_path, sync_folder, temporary_sibling
from unialign.migration._files import SETTINGS, read_bridge, write_bridge
from unialign.migration._inputs import (
    FIT_PAIRS,
    RowSource,
    as_array,
    check_dims,
    checked_unit,
    content_fingerprint,
    open_rows,
)
from unialign.migration._interval import OverlapInterval
from unialign.migration._level import Level
from unialign.migration._maps import Map
from unialign.migration._plan import plan_rows
from unialign.migration._search import Cache, Embed, SearchResult, search_mapped

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Bridge:
    """Map from an old to a new embedding space, with the expected loss of quality and a verdict; see `bridge`.

    Attributes:
        map: the chosen map.
        errors: method -> mean squared distance between held-out mapped rows and true new rows, in [0, 4].
        pairs: (n,) row numbers of the pairs in the index.
        items: N, the number of rows of the index.
        overlap: interval of overlap@10 with the ranking of full re-embedding.
        contained: interval of the fraction of the true first ten rows that are among the first `candidates` mapped
            rows.
        levels: task scores, if labels or known items were given.
        verdict: `switch now` (the lower end of `overlap` reaches `goal`), `switch with C = 100` (with the number of
            candidates) or `re-embed or stay`.
        reasons: sentences that explain the verdict.
        goal, candidates: arguments of `bridge`.
        old_fingerprint, new_fingerprint: sha256 that identifies each model. It is the encoder fingerprint of a store,
            or the sha256 of the unit rows of the first 20,000 pairs.
        encoders: whether the old and the new fingerprint are encoder fingerprints.
    """

    map: Map
    errors: Mapping[str, float]
    pairs: NDArray[np.int64]
    items: int
    overlap: OverlapInterval
    contained: OverlapInterval
    levels: tuple[Level, ...]
    verdict: str
    reasons: tuple[str, ...]
    goal: float
    candidates: int
    old_fingerprint: str
    new_fingerprint: str
    encoders: tuple[bool, bool]
    _old: RowSource | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        found = self.overlap
        return (
            f"Bridge({self.verdict!r}, method={self.method!r}, dims={self.map.dims}, pairs={len(self.pairs)}, "
            f"items={self.items}, overlap={found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}])"
        )

    @property
    def method(self) -> str:
        """Name of the chosen method."""
        return self.map.method

    def apply(
        self,
        old: Any = None,
        *,
        out: str | os.PathLike[str] | None = None,
        new: Any = None,
        modality: str | None = None,
    ) -> Array:
        """Map old rows into the space of the new model.

        Args:
            old: (N, D) array, file or store of old rows; None: the index that the bridge was built from. Any number of
                other rows of the same model is accepted.
            out: `.npy` file to write in blocks, for indexes larger than memory; the result is then a memory map.
            new: (n, E) true new rows of the pairs, which replace the mapped rows of the pairs.
            modality: name of the matrix to map, if the source contains several matrices.

        Returns:
            (N, E) float32 unit rows.

        Raises:
            DataError: the store records a different encoder than the index, or `new` is given and the rows are not
                those of the index.
            ShapeError: the dimension is not D.
            NonFiniteError: a row contains NaN or infinity, or has norm zero.
        """
        source = self._source(old, modality)
        if new is not None and old is not None:
            self._check_index(source)
        known = None if new is None else self._true_rows(new, source)
        if out is None:
            mapped = np.empty((len(source), self.map.dims[1]), np.float32)
            for rows, x_bD in source.blocks():
                mapped[rows] = self._mapped(rows, x_bD, known)
            return mapped
        path = checked_path(out, "the file of mapped rows", error=DataError)
        if path.suffix != ".npy":
            raise ConfigError(f"out is {str(path)!r}, expected a path that ends with .npy")
        self._write(path, source, known)
        return np.asarray(np.lib.format.open_memmap(path, mode="r"))

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        mapped: Any,
        candidates: int | None = None,
        embed: Embed | None = None,
        cache: Cache | None = None,
    ) -> SearchResult:
        """Search the mapped index; with `embed`, re-rank the first candidates by their embeddings from the new model.

        Args:
            queries: (Q, E) embeddings of the queries by the new model.
            k: number of results.
            mapped: (N, E) result of `apply`.
            candidates: number of rows to embed for each query; None: `Bridge.candidates`.
            embed: function that maps (m,) row numbers to their (m, E) embeddings by the new model. None: results are
                ordered by the mapped rows.
            cache: mapping of row number to new row. Rows in the mapping are not embedded again, and new rows are added,
                so pass the same mapping to each search.

        Raises:
            ShapeError: the queries, the mapped rows, a row in `cache` or the result of `embed` have a wrong shape.
            ConfigError: k or candidates is out of range.
        """
        check_dims([("queries", queries, self.map.dims[1]), ("mapped", mapped, self.map.dims[1])])
        count = self.candidates if candidates is None else candidates
        return search_mapped(queries, mapped, k, candidates=count, embed=embed, cache=cache)

    def plan(self, n: int, old: Any = None, *, seed: int = 0, modality: str | None = None) -> NDArray[np.int64]:
        """Return the (n,) numbers of the rows to embed next, which are near cluster centers and are not pairs.

        These rows improve the map, but they are not a random sample, so intervals require other pairs.
        """
        source = self._source(old, modality)
        taken = self.pairs if self._is_index(source) else np.empty(0, np.int64)
        return plan_rows(source, n, taken=taken, seed=seed)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write `bridge.safetensors` and `bridge.json` into a folder; `Bridge.load` reads them.

        Raises:
            CheckpointError: a file cannot be written, or the folder holds a model of another kind; existing files are
                kept.
        """
        write_bridge(directory, self.map, self.pairs, self._body())

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> "Bridge":
        """Load a bridge without unpickling.

        Raises:
            CheckpointError: a file is missing, damaged or altered, or does not describe a bridge.
        """
        found, pairs_n, body = read_bridge(directory)
        try:
            return cls(
                map=found,
                errors={str(key): float(value) for key, value in body["errors"].items()},
                pairs=pairs_n,
                items=int(body["items"]),
                overlap=OverlapInterval(**body["overlap"]),
                contained=OverlapInterval(**body["contained"]),
                levels=tuple(Level(**level) for level in body["levels"]),
                verdict=str(body["verdict"]),
                reasons=tuple(str(reason) for reason in body["reasons"]),
                goal=float(body["goal"]),
                candidates=int(body["candidates"]),
                old_fingerprint=str(body["old_fingerprint"]),
                new_fingerprint=str(body["new_fingerprint"]),
                encoders=(bool(body["encoders"][0]), bool(body["encoders"][1])),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            path = Path(directory) / SETTINGS
            raise CheckpointError(f"{path} does not describe a bridge ({type(error).__name__}: {error})") from None

    def text(self) -> str:
        """Return the verdict and its reasons as lines."""
        return "\n".join([f"Verdict: {self.verdict}.", *self.reasons])

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict, the estimates and the errors as JSON types."""
        return {"method": self.method, "dims": list(self.map.dims), "pairs": len(self.pairs)} | self._body()

    def _body(self) -> dict[str, Any]:
        return {
            "errors": dict(self.errors),
            "items": self.items,
            "overlap": self.overlap.to_dict(),
            "contained": self.contained.to_dict(),
            "levels": [level.to_dict() for level in self.levels],
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "goal": self.goal,
            "candidates": self.candidates,
            "old_fingerprint": self.old_fingerprint,
            "new_fingerprint": self.new_fingerprint,
            "encoders": list(self.encoders),
        }

    def _source(self, old: Any, modality: str | None) -> RowSource:
        if old is None:
            if self._old is None:
                raise ConfigError("a loaded bridge does not hold the old index; pass its rows as `old`")
            return self._old
        source = open_rows(old, "old", modality=modality)
        if source.dim != self.map.dims[0]:
            raise ShapeError(f"'old' has dim {source.dim}, but the bridge maps rows of dim {self.map.dims[0]}")
        self._check_encoder(source)
        return source

    def _check_encoder(self, source: RowSource) -> None:
        found = source.encoder
        if self.encoders[0] and found is not None and found != self.old_fingerprint:
            raise DataError(
                f"'old' has the encoder fingerprint {found[:12]}, but the bridge was built for "
                f"{self.old_fingerprint[:12]}; pass rows of the same model, or build a new bridge"
            )

    def _is_index(self, source: RowSource) -> bool:
        """Compare the number of rows and the content fingerprint."""
        if source is self._old:
            return True
        if self.encoders[0] or len(source) != self.items:
            return len(source) == self.items
        return content_fingerprint(source.take(self.pairs[:FIT_PAIRS])) == self.old_fingerprint

    def _check_index(self, source: RowSource) -> None:
        if len(source) == self.items and not self._is_index(source):
            raise DataError(
                "`new` replaces rows of the index, but the rows of the pairs in 'old' differ from those that the "
                f"bridge was built for ({self.old_fingerprint[:12]}); pass the index in its original order, or leave "
                "out `new` for other rows of the same model"
            )

    def _true_rows(self, new: Any, source: RowSource) -> Callable[[slice], tuple[Array, Array]]:
        """Return a function that maps a slice of rows to the positions and the true rows of its pairs."""
        new_nE = checked_unit(as_array(new), "new")
        if new_nE.shape != (len(self.pairs), self.map.dims[1]) or len(source) != self.items:
            raise ShapeError(
                f"`new` must hold the {len(self.pairs)} true rows of dim {self.map.dims[1]} of the pairs, and `old` "
                f"the {self.items} rows of the index; got {new_nE.shape} and {len(source)} rows"
            )
        order_n = np.argsort(self.pairs)
        sorted_n = self.pairs[order_n]

        def inside(rows: slice) -> tuple[Array, Array]:
            low, high = np.searchsorted(sorted_n, [rows.start, rows.stop])
            return sorted_n[low:high] - rows.start, new_nE[order_n[low:high]]

        return inside

    def _mapped(self, rows: slice, x_bD: Array, known: Callable[[slice], tuple[Array, Array]] | None) -> Array:
        mapped_bE = self.map(x_bD).astype(np.float32)
        if known is not None:
            places, true_rows = known(rows)
            mapped_bE[places] = true_rows
        return mapped_bE

    def _write(self, path: Path, source: RowSource, known: Callable[[slice], tuple[Array, Array]] | None) -> None:
        partial = temporary_sibling(path, "partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            appender = NpyAppender(partial, np.dtype(np.float32), self.map.dims[1])
            try:
                for rows, x_bD in source.blocks():
                    appender.append(self._mapped(rows, x_bD, known))
            finally:
                appender.close()
            os.replace(partial, path)
            sync_folder(path.parent)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error
        finally:
            partial.unlink(missing_ok=True)
