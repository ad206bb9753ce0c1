"""Convert cells to the texts in the columns of a table, and back.

"" is an absent cell, "=TEXT" a text, and "ROOT/PATH" a file, with an empty ROOT for root 0. Other cells are JSON.
"""

import json
import math
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, overload

from numpy.typing import NDArray

from unialign.io import digest, finite
from unialign.media import Cell, Kind

__all__ = ["CellSequence", "cell_of", "json_of", "plain_text", "text_of", "with_nan", "with_roots"]

_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_VALUE, _PATH = {"value"}, {"path"}


class CellSequence(Sequence[Cell]):
    """Cells of one modality, decoded on access."""

    def __init__(self, texts: NDArray[Any], kind: Kind) -> None:
        self._texts, self._kind = texts, kind

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> "CellSequence": ...
    def __getitem__(self, index: int | slice) -> "Cell | CellSequence":
        if isinstance(index, slice):
            return CellSequence(self._texts[index], self._kind)
        return cell_of(str(self._texts[index]), self._kind)

    @property
    def sha256(self) -> str:
        """sha256 of the JSON forms of all cells, one per line."""
        return digest(f"{json_of(text)}\n".encode() for text in self._texts.tolist())


def text_of(cell: Mapping[str, Any]) -> str:
    keys = cell.keys()
    if keys == _VALUE and isinstance(cell["value"], str):
        return "=" + str(cell["value"])
    if keys == _PATH:
        return "/" + str(cell["path"])
    if keys == {"path", "root"}:
        return f"{cell['root'] or ''}/{cell['path']}"
    # JSON has no NaN. When the cell is read, null in a vector becomes NaN again, and the decoder reports it.
    return _encode(finite({key: value for key, value in cell.items() if key != "root" or value}))


def plain_text(text: str) -> dict[str, Any]:
    if text[0] == "=":
        return {"value": text[1:]}
    if text[0] == "{":
        cell: dict[str, Any] = json.loads(text)
        return cell
    root, _, path = text.partition("/")
    return {"path": path, "root": int(root)} if root else {"path": path}


def with_nan(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace null by NaN in a vector."""
    value = cell.get("value")
    if not isinstance(value, list | tuple) or None not in value:
        return cell
    return {**cell, "value": [math.nan if number is None else number for number in value]}


def cell_of(text: str, kind: Kind) -> Cell:
    return Cell.from_json(kind, with_nan(plain_text(text)))


def json_of(text: str) -> str:
    if text[0] == "=":
        return f'{{"value":{encode_basestring(text[1:])}}}'
    if text[0] == "{":
        return text
    root, _, path = text.partition("/")
    return f'{{"path":{encode_basestring(path)},"root":{root}}}' if root else f'{{"path":{encode_basestring(path)}}}'


def with_roots(text: str, roots: Sequence[int]) -> str:
    """Renumber the root of a cell: root i becomes `roots[i]`."""
    if text[0] == "=":
        return text
    if text[0] != "{":
        root, _, path = text.partition("/")
        return f"{roots[int(root or 0)] or ''}/{path}"
    cell = plain_text(text)
    return text if "value" in cell else text_of({**cell, "root": roots[cell.get("root", 0)]})
