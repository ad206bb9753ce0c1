"""Queries: weighted parts, each a vector, features, raw media, or an item of the index."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from unialign.errors import ConfigError

# Weights outside this range would make other parts vanish in a floating-point sum.
_LEAST, _MOST = 1e-6, 1e6

Kind = Literal["input", "vector", "item"]


@dataclass(frozen=True)
class QueryPart:
    """One term of a query.

    Attributes:
        kind: `input` (raw media or features of a modality), `vector` (an embedding) or `item` (a key).
        value: the input, vector or key.
        modality: modality of the input or vector; None for items.
        modalities: for items, the modalities to use; None for all that the item has.
    """

    kind: Kind
    value: Any
    modality: str | None = None
    modalities: tuple[str, ...] | None = None
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Query:
    """A weighted sum of parts, created by `ua.query`.

    Queries can be added, subtracted, negated and multiplied by numbers.

    Attributes:
        parts: the terms of the sum.
    """

    parts: tuple[QueryPart, ...]

    def __add__(self, other: object) -> "Query":
        if not isinstance(other, Query):
            return NotImplemented
        return Query(self.parts + other.parts)

    def __neg__(self) -> "Query":
        return self * -1.0

    def __sub__(self, other: object) -> "Query":
        if not isinstance(other, Query):
            return NotImplemented
        return self + -other

    def __mul__(self, factor: object) -> "Query":
        if not isinstance(factor, numbers.Real) or isinstance(factor, bool):
            return NotImplemented
        return Query(tuple(replace(part, weight=check_weight(part.weight * float(factor))) for part in self.parts))

    __rmul__ = __mul__


def query(
    *,
    item: str | None = None,
    modalities: Sequence[str] | None = None,
    vector: Any = None,
    modality: str | None = None,
    weight: float = 1.0,
    **inputs: Any,
) -> Query:
    """Describe what to search for.

    Args:
        item: key of an item of the index, whose rows are the query.
        modalities: with `item`, the modalities to use. Default: all that the item has.
        vector: (D,) embedding of the space, before any correction.
        modality: with `vector`, its modality.
        weight: weight of each part; negative weights subtract.
        inputs: modality=value, raw media (a text, a path, an image, ...) or (W,) features of the modality.

    Returns:
        A query with one part for each input, `vector` and `item`. Queries can be combined: `2 * ua.query(text="red") +
        ua.query(image="car.png") - 0.5 * ua.query(text="winter")`.

    Raises:
        ConfigError: nothing is given, or the options do not belong together.
    """
    check_weight(weight)
    if (vector is None) != (modality is None):
        raise ConfigError("`vector` and `modality` belong together: query(vector=z, modality='image')")
    if modalities is not None and item is None:
        raise ConfigError("`modalities` can only be given with `item`: query(item='key', modalities=['image'])")
    if isinstance(modalities, str):
        modalities = [modalities]
    parts = [QueryPart("input", value, name, weight=weight) for name, value in inputs.items()]
    if vector is not None:
        parts.append(QueryPart("vector", vector, modality, weight=weight))
    if item is not None:
        chosen = None if modalities is None else tuple(modalities)
        parts.append(QueryPart("item", item, modalities=chosen, weight=weight))
    if not parts:
        raise ConfigError("a query needs an input, such as query(text='a red car'), query(item='key')")
    return Query(tuple(parts))


def check_weight(weight: object) -> float:
    """Return the weight as a float; raise ConfigError unless its absolute value is from 1e-6 to 1e6."""
    if isinstance(weight, bool) or not isinstance(weight, numbers.Real):
        raise ConfigError(f"weight must be a number, got {weight!r}")
    value = float(weight)
    if not _LEAST <= abs(value) <= _MOST:
        raise ConfigError(f"weight must have an absolute value from {_LEAST:g} to {_MOST:g}, got {weight!r}")
    return value


def check_queries(given: object) -> list[Query]:
    """Return one query or several as a list; raise ConfigError for other types."""
    if isinstance(given, Query):
        return [given]
    if isinstance(given, Sequence) and not isinstance(given, str | bytes) and all(isinstance(g, Query) for g in given):
        return list(given)
    raise ConfigError(
        f"expected a query or a list of queries, got {type(given).__name__}; create one with ua.query(text='a red car')"
    )
