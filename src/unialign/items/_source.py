"""Mark the items of a table as belonging to one source of a mixture."""

from dataclasses import replace

import numpy as np
from numpy.dtypes import StringDType
from numpy.typing import NDArray

from unialign.errors import DataError
from unialign.items._columns import check_key
from unialign.items._items import Items

__all__ = ["with_source"]


def with_source(items: Items, source: str, *, shared_ids: bool) -> Items:
    """Prefix the keys with the source and, unless ids are shared, also the groups and ids of the items.

    With shared ids, the key of an item without an id is used as the id, so that items with the same key in several
    sources are the same item.

    Raises:
        DataError: a key is too long for the prefix.
    """
    table = items._table
    columns = table.columns
    keys_N = _prefixed(columns.keys, source)
    longest = max(keys_N.tolist(), key=len, default="")
    if longest and (problem := check_key(longest)):
        raise DataError(f"the source {source!r}: {problem}; give the source a shorter name")
    values = dict(columns.values)
    if shared_ids:
        ids_N = values.get("ids", np.zeros(len(columns), StringDType()))
        values["ids"] = np.where(ids_N == "", columns.keys, ids_N)
    else:
        values |= {name: _prefixed(values[name], source) for name in ("group", "ids") if name in values}
    return Items(replace(table, columns=replace(columns, keys=keys_N, values=values), sealed=None))


def _prefixed(texts_N: NDArray[np.str_], source: str) -> NDArray[np.str_]:
    """Prefix texts with the source; an empty text, which stands for a missing value, stays empty."""
    texts = [text and f"{source}:{text}" for text in texts_N.tolist()]
    return np.array(texts, dtype=StringDType())
