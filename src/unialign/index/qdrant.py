"""Export an index to Qdrant, and search it there."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._optional import optional_module
from unialign.errors import ConfigError, DataError
from unialign.index._backends import Row
from unialign.index._filter import Combination, Comparison, Expression, Membership, Not, Presence, Value

_COLLECTION = "unialign"
_NAMESPACE = uuid.UUID("6f1c1a3e-6a53-4a9e-9d0c-2f1f8a5a7d10")
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class Qdrant:
    """A collection of Qdrant, with the named vectors `any` and `0`, `1`, ... for the modalities in order.

    Args:
        address: URL of a server, or path of a local folder, followed by `#COLLECTION`. Default: `unialign`. Local
            folders are for tests and small collections.

    Raises:
        MissingDependencyError: qdrant-client is not installed.
    """

    name = "qdrant"

    def __init__(self, address: str) -> None:
        library = optional_module("qdrant_client", "an index in Qdrant", "qdrant")
        self._models = library.models
        place, _, collection = address.partition("#")
        is_url = place.startswith(("http://", "https://"))
        self._client = library.QdrantClient(url=place) if is_url else library.QdrantClient(path=place)
        self._address, self._collection = place, collection or _COLLECTION
        self._known: Mapping[str, Any] | None = None

    def replace(
        self, rows: Iterator[list[Row]], *, modalities: Sequence[str], dim: int, manifest: Mapping[str, Any]
    ) -> int:
        """Write all items to a new collection that replaces the previous one."""
        models, batches = self._models, list(rows)
        fields = sorted({name for batch in batches for row in batch for name in row.metadata})
        size = models.VectorParams(size=dim, distance=models.Distance.COSINE)
        names = ["any", *map(str, range(len(modalities)))]
        described = dict(manifest) | {"fields": fields}
        for collection in (self._manifest_collection, self._collection):
            if self._client.collection_exists(collection):
                self._client.delete_collection(collection)
        self._client.create_collection(self._collection, vectors_config=dict.fromkeys(names, size))
        count = 0
        for batch in batches:
            points = [self._point(row, modalities, fields) for row in batch]
            self._client.upsert(self._collection, points=points, wait=True)
            count += len(points)
        # The manifest is written last, so that an interrupted export is not an index.
        one = models.VectorParams(size=1, distance=models.Distance.COSINE)
        self._client.create_collection(self._manifest_collection, vectors_config=one)
        point = models.PointStruct(id=0, vector=[1.0], payload=described)
        self._client.upsert(self._manifest_collection, points=[point], wait=True)
        self._known = None
        return count

    def manifest(self) -> Mapping[str, Any]:
        """Return the manifest of the last export."""
        if self._known is None:
            found = []
            if self._client.collection_exists(self._manifest_collection):
                found = self._client.retrieve(self._manifest_collection, ids=[0], with_payload=True)
            if not found:
                raise DataError(
                    f"{self._address} has no exported index {self._collection!r}; write one with `index.export`"
                )
            self._known = dict(found[0].payload)
        return self._known

    def count(self) -> int:
        """Return the number of items."""
        return int(self._client.count(self._collection, exact=True).count)

    def nearest(self, target: str, vector: NDArray[np.float32], count: int, where: Expression | None) -> list[Row]:
        """Return the items with the largest cosine."""
        manifest = self.manifest()
        name = "any" if target == "any" else str(list(manifest["modalities"]).index(target))
        has = self._models.HasVectorCondition(has_vector=name)
        conditions = [has] if where is None else [has, self._condition(where)]
        found = self._client.query_points(
            self._collection,
            query=vector.tolist(),
            using=name,
            limit=count,
            query_filter=self._models.Filter(must=conditions),
            with_payload=True,
            with_vectors=True,
        )
        return [self._row(point) for point in found.points]

    def get(self, key: str) -> Row | None:
        """Return the item with a key."""
        found = self._client.retrieve(self._collection, ids=[_point_id(key)], with_payload=True, with_vectors=True)
        return self._row(found[0]) if found else None

    @property
    def _manifest_collection(self) -> str:
        return f"{self._collection}-manifest"

    def _point(self, row: Row, modalities: Sequence[str], fields: Sequence[str]) -> Any:
        vectors = {str(list(modalities).index(name)): z_D.tolist() for name, z_D in row.vectors.items()}
        if row.any_vector is not None:
            vectors["any"] = row.any_vector.tolist()
        payload: dict[str, Any] = {"key": row.key, "name": row.name, "label": row.label, "metadata": dict(row.metadata)}
        payload["has"] = sorted(row.vectors)
        for number, field in enumerate(fields):
            value = row.metadata.get(field)
            if value is not None:
                payload[f"{'text' if isinstance(value, str) else 'number'}_{number}"] = (
                    value if isinstance(value, str) else float(value)
                )
        return self._models.PointStruct(id=_point_id(row.key), vector=vectors, payload=payload)

    def _row(self, point: Any) -> Row:
        payload, modalities = point.payload, list(self.manifest()["modalities"])
        stored = dict(point.vector or {})
        vectors = {
            name: np.asarray(stored[str(number)], np.float32)
            for number, name in enumerate(modalities)
            if str(number) in stored
        }
        return Row(payload["key"], payload["name"], payload.get("label"), payload.get("metadata") or {}, vectors)

    def _condition(self, where: Expression) -> Any:
        models = self._models
        match where:
            case Combination("and", operands):
                return models.Filter(must=[self._condition(each) for each in operands])
            case Combination(_, operands):
                return models.Filter(should=[self._condition(each) for each in operands])
            case Not(operand):
                return models.Filter(must_not=[self._condition(operand)])
            case Presence(name):
                return self._presence(name)
            case Comparison(name, operator, value):
                return self._comparison(name, operator, value)
            case Membership(name, values):
                return models.Filter(should=[self._comparison(name, "=", value) for value in values])

    def _presence(self, name: str) -> Any:
        models, manifest = self._models, self.manifest()
        if name in manifest["modalities"]:
            return models.FieldCondition(key="has", match=models.MatchValue(value=name))
        if name in ("label", "key"):
            return models.Filter(
                must_not=[
                    models.IsNullCondition(is_null=models.PayloadField(key=name)),
                    models.IsEmptyCondition(is_empty=models.PayloadField(key=name)),
                ]
            )
        keys = self._field_keys(name)
        present = [
            models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=key))]) for key in keys
        ]
        return models.Filter(should=present) if present else self._never()

    def _comparison(self, name: str, operator: str, value: Value) -> Any:
        models = self._models
        if name in ("label", "key"):
            key: str | None = name if isinstance(value, str) else None
        else:
            kind = "text" if isinstance(value, str) else "number"
            key = next((key for key in self._field_keys(name) if key.startswith(kind)), None)
        if key is None:
            return self._never()
        if isinstance(value, str):
            if operator not in ("=", "!="):
                raise ConfigError(f"Qdrant cannot compare texts by {operator}; use = or in")
            equal = models.FieldCondition(key=key, match=models.MatchValue(value=value))
        elif operator in ("=", "!="):
            equal = models.FieldCondition(key=key, range=models.Range(gte=float(value), lte=float(value)))
        else:
            return models.FieldCondition(key=key, range=models.Range(**{_RANGES[operator]: float(value)}))
        if operator == "=":
            return equal
        return models.Filter(
            must_not=[
                models.IsEmptyCondition(is_empty=models.PayloadField(key=key)),
                models.IsNullCondition(is_null=models.PayloadField(key=key)),
                equal,
            ]
        )

    def _field_keys(self, name: str) -> list[str]:
        fields = list(self.manifest()["fields"])
        return [f"{kind}_{fields.index(name)}" for kind in ("text", "number")] if name in fields else []

    def _never(self) -> Any:
        return self._models.FieldCondition(key="key", match=self._models.MatchValue(value=""))


def _point_id(key: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, key))
