"""Choose the scalar columns of a table that are the coordinates of a matrix.

They are a matrix only if their names are a numbered series, such as `e0, e1, ...` or `000, 001, ...`. An id, a score or
a single number of an item is never a coordinate, whatever its dtype.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from unialign._plain_text import count

__all__ = ["Series", "choose_columns"]

_NUMBERED = re.compile(r"^(?P<prefix>.*?)[\s_.:\-\[(]*(?P<number>\d+)[\])]?$")
# Words of a prefix that name something else than a coordinate.
_OTHER_WORDS = frozenset(
    {"id", "ids", "key", "uuid", "guid", "hash", "index", "idx", "row", "rows", "item", "items", "label", "labels",
     "class", "target", "category", "cluster", "split", "group", "groups", "score", "scores", "similarity", "sim",
     "rank", "ranks", "distance", "distances", "dist", "prob", "probs", "probability", "confidence", "rating",
     "weight", "weights", "loss", "count", "counts", "num", "number", "year", "month", "day", "week", "hour", "date",
     "time", "timestamp", "price", "age", "length", "len", "width", "height", "size", "area", "lat", "lon",
     "latitude", "longitude", "neighbor", "neighbors", "nn"}
)  # fmt: skip
# Prefixes that do not name a modality: the matrix is named by the file.
_GENERIC_WORDS = frozenset(
    {"emb", "embs", "embed", "embedding", "embeddings", "dim", "dims", "feat", "feats", "feature", "features", "vec",
     "vector", "vectors", "col", "column", "columns", "component", "components", "comp", "pc", "value", "values",
     "var", "coord", "coords", "coordinate", "coordinates", "unnamed", "array", "data"}
)  # fmt: skip
# A series with gaps, another first number than 0 or 1, or only integers needs this many columns.
_CLEAR_SERIES = 8


@dataclass(frozen=True)
class Series:
    """Scalar columns that are one matrix.

    Attributes:
        name: name of the matrix; "" if it is named by the file.
        columns: names of the columns in the order of their numbers.
    """

    name: str
    columns: tuple[str, ...]

    @property
    def described(self) -> str:
        """Return, for example, "32 columns, e0 to e31"."""
        return f"{count(len(self.columns), 'column')}, {self.columns[0]} to {self.columns[-1]}"


def choose_columns(kinds: Mapping[str, str]) -> tuple[list[Series], dict[str, str]]:
    """Return the numbered series among numeric columns, and the other columns with the reason why they are left out.

    Args:
        kinds: numeric column -> "f" (floating) or "i" (integer), in the order of the table.
    """
    numbered: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for column in kinds:
        found = _NUMBERED.match(column)
        if found:
            numbered[found["prefix"].strip(" _.:-[(")][int(found["number"])].append(column)
    chosen: list[Series] = []
    left: dict[str, str] = {}
    for prefix, at in numbered.items():
        columns = tuple(column for number in sorted(at) for column in at[number])
        why = _objection(prefix, at, [kinds[column] for column in columns])
        if why:
            left |= dict.fromkeys(columns, why)
        else:
            chosen.append(Series(_matrix_name(prefix), columns))
    if len({series.name for series in chosen}) < len(chosen):  # two generic prefixes: their own names are clearer
        prefixes = [_NUMBERED.match(series.columns[0]) for series in chosen]
        chosen = [
            Series(found["prefix"].strip(" _.:-[("), series.columns)
            for found, series in zip(prefixes, chosen, strict=True)
            if found
        ]
    taken = {column for series in chosen for column in series.columns}
    single = "one number an item, not part of a numbered series"
    return chosen, {column: left.get(column, single) for column in kinds if column not in taken}


def _objection(prefix: str, at: Mapping[int, list[str]], kinds: list[str]) -> str:
    """Return why numbered columns are not a matrix, or ""."""
    other = _words(prefix) & _OTHER_WORDS
    if other:
        return f"{min(other)} is not the name of a coordinate"
    if any(len(columns) > 1 for columns in at.values()):
        return "several columns have this number"
    first, last, size = min(at), max(at), len(at)
    if size < 2:
        return "one number an item, not part of a numbered series"
    whole = first in (0, 1) and last - first + 1 == size
    # Columns such as 2019, 2020, ... are years, and a few numbered integers are counts or codes.
    if not whole and (size < _CLEAR_SERIES or not prefix or 2 * size < last - first + 1):
        return f"the numbers {first} to {last} of its series have gaps or do not begin with 0 or 1"
    if "f" not in kinds and size < _CLEAR_SERIES:
        return "integers, and too few columns for a matrix of quantized values"
    return ""


def _words(prefix: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", prefix)}


def _matrix_name(prefix: str) -> str:
    """Return the prefix, or "" if it does not name a modality."""
    words = _words(prefix)
    return "" if len(prefix) < 2 or words <= _GENERIC_WORDS else prefix
