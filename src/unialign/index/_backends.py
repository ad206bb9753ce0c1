"""Search an index that was exported to another vector database.

The database holds corrected vectors, so its own cosine search is correct without this library. Here, it returns
candidates; their scores, with CSLS if the calibration uses it, are computed here, by the same code as for an `Index`.

Shapes: `D` dimension, `M` modalities, `n` candidates.
"""

import base64
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign import registry
from unialign._checks import check_integer, suggestion
from unialign.errors import ConfigError, DataError
from unialign.index._calibration import Calibration, load_calibration, save_calibration
from unialign.index._catalog import Catalog, Changes, NewItems
from unialign.index._derived import derive
from unialign.index._encoders import Encode, QueryEncoder, encode_values, one_value, query_encoders
from unialign.index._filter import Expression, parse_filter
from unialign.index._found import Found
from unialign.index._query import Query, QueryPart
from unialign.index._query_vectors import query_vectors
from unialign.index._search import search, target_modalities
from unialign.index._snapshot import Part, Snapshot
from unialign.space import Space, space_fingerprint

# Candidates per result.
_WIDER = 10
SCHEMA = 1
_MOST_MANIFEST = 1 << 28


@dataclass
class Row:
    """An item of a vector database.

    Attributes:
        key, name, label, metadata: as in the index.
        vectors: modality -> (D,) float32 corrected unit vector, for the modalities that the item has.
        any_vector: (D,) normalized sum of the vectors; None if they cancel.
    """

    key: str
    name: str
    label: str | None
    metadata: Mapping[str, Any]
    vectors: Mapping[str, NDArray[np.float32]]
    any_vector: NDArray[np.float32] | None = field(default=None)


class BackEnd(Protocol):
    """A table of a vector database; plug-ins of the registry group `index` are functions that return one for an
    address.
    """

    def replace(
        self, rows: Iterator[list[Row]], *, modalities: Sequence[str], dim: int, manifest: Mapping[str, Any]
    ) -> int:
        """Write all items and the manifest to a new table, replace an earlier one, and return the number of items."""
        ...

    def manifest(self) -> Mapping[str, Any]:
        """Return the manifest; raise DataError if no index was exported."""
        ...

    def nearest(self, target: str, vector: NDArray[np.float32], count: int, where: Expression | None) -> list[Row]:
        """Return the items with the nearest vectors of a target (`any` or a modality), by cosine."""
        ...

    def get(self, key: str) -> Row | None:
        """Return an item."""
        ...

    def count(self) -> int:
        """Return the number of items."""
        ...


class ConnectedIndex:
    """An exported index; created by `Index.connect`.

    Attributes:
        modalities, dim: as in the index that was exported.
        calibration: the correction of the vectors.
    """

    def __init__(
        self, back_end: BackEnd, space: Space | None, encoders: Mapping[str, QueryEncoder | Encode] | None = None
    ) -> None:
        manifest = back_end.manifest()
        if manifest.get("schema") != SCHEMA:
            raise DataError(f"the table has schema {manifest.get('schema')!r}, but this version reads schema {SCHEMA}")
        self.modalities = tuple(manifest["modalities"])
        self.dim = int(manifest["dim"])
        known = manifest.get("space")
        if space is not None and known is not None and space_fingerprint(space) != known:
            raise DataError(
                "the table was exported from an index of another space; connect with the space of that index, since "
                "vectors of different spaces cannot be compared"
            )
        self.calibration = unpack_calibration(str(manifest["calibration"]))
        # The stored vectors are corrected, so only the terms of CSLS remain.
        self._scoring = Calibration(self.calibration.method, "", self.modalities, reference=self.calibration.reference)
        self._back_end, self._space = back_end, space
        self._encoders = query_encoders(space, encoders or {}, self.modalities)

    def __len__(self) -> int:
        return self._back_end.count()

    @overload
    def search(
        self, query: Query, *, k: int = ..., target: str | Sequence[str] = ..., where: str | None = ...
    ) -> Found: ...
    @overload
    def search(
        self, query: Sequence[Query], *, k: int = ..., target: str | Sequence[str] = ..., where: str | None = ...
    ) -> list[Found]: ...
    def search(
        self,
        query: Query | Sequence[Query],
        *,
        k: int = 10,
        target: str | Sequence[str] = "any",
        where: str | None = None,
    ) -> Found | list[Found]:
        """Find the items nearest to a query, as `Index.search` does, among 10 k candidates of the database.

        Args:
            query: one query, or a list.
            k: number of items.
            target: `any`, `best`, a modality or a list of modalities.
            where: filter, as in `Index.search`; the database applies it.

        Raises:
            ConfigError, ShapeError, NonFiniteError: as in `Index.search`.
        """
        check_integer("k", k, low=1, high=10_000)
        expression = None if where is None else parse_filter(where)
        queries = [query] if isinstance(query, Query) else list(query)
        found = [self._search_one(one, k, target, expression) for one in queries]
        return found[0] if isinstance(query, Query) else found

    def _search_one(self, query: Query, k: int, target: str | Sequence[str], where: Expression | None) -> Found:
        vectors = query_vectors([query], self.calibration, self.dim, encode=self._encode, lookup=self._rows_of)
        names = ("any",) if target == "any" else target_modalities(target, self.modalities)
        exclude = {part.value for part in query.parts if part.kind == "item"}
        q_D = vectors.q_QD[0].float().numpy()
        rows: dict[str, Row] = {}
        for name in names:
            for row in self._back_end.nearest(name, q_D, _WIDER * k + len(exclude), where):
                rows.setdefault(row.key, row)
        if not rows:
            return Found((), False, 0, self.calibration.method, {"search": 0.0})
        part, catalog = _in_memory(list(rows.values()), self.modalities)
        snapshot = Snapshot(1, self.modalities, self.dim, (part,))
        found = search(
            snapshot,
            {part.id: derive(part, self._scoring)},
            catalog,
            self._scoring,
            vectors,
            k=k,
            target=target,
            exclude=[exclude],
        )[0]
        catalog.close()
        return Found(found.hits, False, found.scanned, found.correction, found.seconds, found.warnings, 0)

    def _encode(self, modality: str, value: Any) -> Tensor:
        return encode_values(self._space, self._encoders, modality, one_value(value))[0].double()

    def _rows_of(self, query: QueryPart) -> dict[str, Tensor]:
        row = self._back_end.get(query.value) if isinstance(query.value, str) else None
        if row is None:
            raise ConfigError(f"the table has no item {str(query.value)[:100]!r}")
        names = self.modalities if query.modalities is None else query.modalities
        for name in names:
            if name not in self.modalities:
                raise ConfigError(
                    f"unknown modality {name!r}; the index has {', '.join(self.modalities)}"
                    f"{suggestion(name, self.modalities)}"
                )
        found = {name: torch.from_numpy(row.vectors[name]).double() for name in names if name in row.vectors}
        if not found:
            raise ConfigError(f"the item {query.value!r} has none of the modalities {', '.join(names)}")
        return {name: self._uncorrected(name, z_D) for name, z_D in found.items()}

    def _uncorrected(self, name: str, z_D: Tensor) -> Tensor:
        """Return the unit embedding that the correction maps to the stored vector: a line intersected with the
        sphere.
        """
        weight_DD, bias_D = self.calibration.weight.get(name), self.calibration.bias.get(name)
        if bias_D is None:
            return z_D
        if weight_DD is not None:
            inverse_DD = torch.linalg.inv(weight_DD)
            z_D, bias_D = z_D @ inverse_DD, bias_D @ inverse_DD
        # |t z - b| = 1 with t > 0; means of unit rows are shorter than 1, so there is one such t.
        square, linear, constant = z_D @ z_D, z_D @ bias_D, bias_D @ bias_D - 1
        t = (linear + (linear * linear - square * constant).clamp(min=0).sqrt()) / square
        return t * z_D - bias_D


def connect(
    address: str,
    *,
    space: Space | str | None = None,
    encoders: Mapping[str, QueryEncoder | Encode] | None = None,
) -> ConnectedIndex:
    """Open an exported index.

    Args:
        address: `lancedb:PATH`, `qdrant:PATH`, `qdrant:URL`, or the name of a plug-in and its address.
        space: the space that embeds queries, or its folder. None: queries are items or vectors.
        encoders: modality -> function from raw query values to features of the space.

    Raises:
        ConfigError: unknown back end.
        DataError: no index was exported to the address, or its space differs.
        MissingDependencyError: the client of the database is not installed.
    """
    if isinstance(space, str):
        space = Space.from_pretrained(space)
    return ConnectedIndex(open_back_end(address), space, encoders)


def open_back_end(address: str) -> BackEnd:
    """Return the back end of an address `NAME:REST`."""
    name, colon, rest = str(address).partition(":")
    if not colon or not rest:
        raise ConfigError(f"expected an address such as lancedb:my-folder, got {str(address)[:100]!r}")
    found: BackEnd = registry.load("index", name)(rest)
    return found


def make_manifest(calibration: Calibration, modalities: Sequence[str], dim: int, space: str | None) -> dict[str, Any]:
    """Return the description of an exported index, a JSON object."""
    return {
        "schema": SCHEMA,
        "modalities": list(modalities),
        "dim": dim,
        "space": space,
        "correction": calibration.method,
        "calibration": pack_calibration(calibration),
    }


def pack_calibration(calibration: Calibration) -> str:
    """Return the files of a calibration as base64 text."""
    content = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(content, "w") as archive:
        save_calibration(calibration, Path(folder))
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return base64.b64encode(content.getvalue()).decode()


def unpack_calibration(text: str) -> Calibration:
    """Read what `pack_calibration` returned; only files with known names are extracted."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(text, validate=True)))
        with tempfile.TemporaryDirectory() as folder, archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST_MANIFEST:
                raise DataError("it is too large")
            for name in archive.namelist():
                parts = Path(name).parts
                if len(parts) > 2 or any(part in ("..", "") or part.startswith((".", "/")) for part in parts):
                    raise DataError(f"it has a file {name[:60]!r}")
                target = Path(folder, *parts)
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(archive.read(name))
            return load_calibration(Path(folder))
    except (ValueError, zipfile.BadZipFile, OSError, DataError) as error:
        raise DataError(f"the calibration of the table cannot be read ({error}); export the index again") from None


def make_row(
    key: str,
    name: str,
    label: str | None,
    metadata: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.float32]],
    calibration: Calibration,
) -> Row:
    """Return an item with corrected vectors; rows that equal the mean of their modality are left out."""
    corrected = {
        each: calibration.correct(each, torch.from_numpy(row_D)[None])[0].numpy() for each, row_D in rows.items()
    }
    vectors = {each: z_D.astype(np.float32) for each, z_D in corrected.items() if np.isfinite(z_D).all()}
    total_D = np.sum([z_D for z_D in corrected.values() if np.isfinite(z_D).all()], axis=0) if vectors else np.zeros(1)
    norm = float(np.linalg.norm(total_D))
    return Row(key, name, label, metadata, vectors, (total_D / norm).astype(np.float32) if norm > 1e-3 else None)


def _in_memory(rows: Sequence[Row], modalities: tuple[str, ...]) -> tuple[Part, Catalog]:
    vectors: dict[str, NDArray[np.float32]] = {}
    places: dict[str, NDArray[np.int32] | None] = {}
    bits = np.zeros(len(rows), np.int64)
    for bit, name in enumerate(modalities):
        has = [place for place, row in enumerate(rows) if name in row.vectors]
        bits[has] |= 1 << bit
        if has:
            vectors[name] = np.stack([rows[place].vectors[name] for place in has]).astype(np.float32)
            places[name] = None if len(has) == len(rows) else np.array(has, np.int32)
    catalog = Catalog.create(None, {})
    items = NewItems(
        [row.key for row in rows],
        bits,
        [row.name for row in rows],
        [row.label for row in rows],
        [row.metadata or None for row in rows],
    )
    catalog.commit(Changes(parts=[("candidates", items)]))
    return Part(1, len(rows), vectors, places), catalog
