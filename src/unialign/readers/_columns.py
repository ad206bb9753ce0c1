"""Find the scalar columns of a table that form a matrix."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from unialign._plain_text import count

__all__ = ["Series", "choose_columns"]

_NUMBERED = re.compile(r"(?P<prefix>.*?)[\s_.:\-\[(]*(?P<number>\d+)[\])]?")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# Columns with these words in their prefix are not coordinates, unless the prefix also contains a word such as "emb".
_OTHER_WORDS = frozenset(
    {"age", "area", "category", "class", "cluster", "code", "codes", "confidence", "count", "counts", "date",
     "day", "dist", "distance", "distances", "fold", "group", "groups", "guid", "hash", "height", "hour", "id",
     "ids", "idx", "index", "item", "items", "key", "label", "labels", "lat", "latitude", "len", "length",
     "logit", "logits", "lon", "longitude", "loss", "month", "neighbor", "neighbors", "nn", "num", "number",
     "price", "prob", "probabilities", "probability", "probs", "punsafe", "pwatermark", "rank", "ranks",
     "rating", "row", "rows", "score", "scores", "sim", "similarity", "size", "split", "target", "time",
     "timestamp", "uuid", "week", "weight", "weights", "width", "year"}
)  # fmt: skip
# If the column prefix of a matrix consists of these words, the matrix is named after its file.
_GENERIC_WORDS = frozenset(
    {"array", "c", "col", "column", "columns", "comp", "component", "components", "coord", "coordinate",
     "coordinates", "coords", "d", "data", "dim", "dimension", "dims", "e", "emb", "embed", "embedding",
     "embeddings", "embs", "f", "feat", "feats", "feature", "features", "pc", "unnamed", "v", "val", "value",
     "values", "var", "vec", "vector", "vectors", "x", "z"}
)  # fmt: skip
# Minimum number of columns of a series that has gaps or contains only integers.
_LONG_SERIES = 8
_SINGLE = "one number per item; columns of a matrix must be numbered, such as e0, e1, ..."


@dataclass(frozen=True)
class Series:
    """Scalar columns that form one matrix; `name` is "" if the matrix is named after the file."""

    name: str
    columns: tuple[str, ...]

    @property
    def described(self) -> str:
        return f"{count(len(self.columns), 'column')}, {self.columns[0]} to {self.columns[-1]}"


def choose_columns(kinds: Mapping[str, str]) -> tuple[list[Series], dict[str, str]]:
    """Return the numbered series, and the reason why each other column is not used."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for column in kinds:
        found = _NUMBERED.fullmatch(column.strip())
        if found:
            numbered.setdefault(found["prefix"], []).append((int(found["number"]), column))
    chosen: dict[str, tuple[str, ...]] = {}
    left = dict.fromkeys(kinds, _SINGLE)
    for prefix, members in numbered.items():
        members.sort()
        columns = tuple(column for _, column in members)
        why = _objection(prefix, [number for number, _ in members], [kinds[column] for column in columns])
        if why:
            left |= dict.fromkeys(columns, why)
        else:
            chosen[prefix] = columns
    names = {prefix: _matrix_name(prefix) for prefix in chosen}
    shared = Counter(names.values())
    # Series with the same name are named by their prefixes instead.
    series = [Series(names[p] if shared[names[p]] == 1 else p, columns) for p, columns in chosen.items()]
    taken = {column for columns in chosen.values() for column in columns}
    return series, {column: why for column, why in left.items() if column not in taken}


def _objection(prefix: str, numbers: list[int], kinds: list[str]) -> str:
    """Return the reason why numbered columns are not a matrix, or ""."""
    words = _words(prefix)
    if words & _OTHER_WORDS and not any(len(word) > 2 for word in words & _GENERIC_WORDS):
        return f"its name contains {min(words & _OTHER_WORDS)}, which is not a coordinate"
    size, span = len(numbers), numbers[-1] - numbers[0] + 1
    if size < 2:
        return _SINGLE
    if len(set(numbers)) < size:
        return f"several columns have the prefix {prefix!r} and the same number"
    # Columns such as 2019, 2020, ... are years. A long series may have gaps, since columns may have been dropped.
    whole = numbers[0] in (0, 1) and span == size
    if not whole and (size < _LONG_SERIES or not prefix or span > 2 * size):
        return f"the series of numbers {numbers[0]} to {numbers[-1]} has gaps or does not begin with 0 or 1"
    if "f" not in kinds and size < _LONG_SERIES:
        return f"integers; a matrix of integers needs a numbered series of at least {_LONG_SERIES} columns"
    return ""


def _words(prefix: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(prefix)}


def _matrix_name(prefix: str) -> str:
    return "" if _words(prefix) <= _GENERIC_WORDS else prefix
