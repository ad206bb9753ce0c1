"""Read the columns of pyarrow schemas and the cells of record batches."""

import contextlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign._checks import one_line
from unialign._optional import optional_module
from unialign.errors import DataError, UniAlignError
from unialign.readers._list_cells import ListCells
from unialign.readers._table import Column, dense_rows
from unialign.readers._text_vectors import parse_rows

__all__ = ["ArrowCells", "arrow_columns", "arrow_module", "readable"]

Array = NDArray[Any]

_FLOATS = {"halffloat": "<f2", "float": "<f4", "double": "<f8"}
_CODES = {"int8": "|i1", "uint8": "|u1"}
_TEXTS = ("string", "large_string", "string_view")


def arrow_module(name: str, path: Path) -> Any:
    what = f"{path}: reading {path.suffix.lstrip('.') or 'Arrow'} files"
    return optional_module(name, what, "parquet")


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Raise DataError for any exception of pyarrow inside the block."""
    try:
        yield
    except UniAlignError:
        raise
    except Exception as error:  # malicious input may raise any exception in the parser
        raise DataError(f"{path} is not a readable {what} file ({one_line(error)}); write it again") from None


def arrow_columns(schema: Any) -> Mapping[str, Column]:
    return {field.name: _column(field.type) for field in schema}


def _column(kind: Any) -> Column:
    name = str(kind)
    if hasattr(kind, "value_type") and name.startswith(("list", "large_list", "fixed_size_list")):
        dtype = (_FLOATS | _CODES).get(str(kind.value_type), "")
        return Column("vectors" if dtype else "", dtype, f"a list of {kind.value_type}")
    if name.startswith("dictionary") and str(kind.value_type) in _TEXTS:
        return Column("text")
    if name in _FLOATS:
        return Column("float", _FLOATS[name])
    if name in _TEXTS or name == "bool":
        return Column("bool" if name == "bool" else "text")
    return Column("integer") if name.startswith(("int", "uint")) else Column("", "", f"a column of {name}")


def _signed(array: Any) -> Any:
    """Convert integers to int64, which can represent -1 for empty cells."""
    try:
        return array.cast("int64")
    except ValueError:  # ArrowInvalid is a subclass of ValueError
        if array.null_count:
            raise DataError(
                "a column with empty cells contains integers above 2^63 - 1; give every row a value"
            ) from None
        return array


class ArrowCells:
    def __init__(self, array: Any) -> None:
        self.array = array.dictionary_decode() if str(array.type).startswith("dictionary") else array

    def __len__(self) -> int:
        return len(self.array)

    def dim(self) -> int:
        lengths_c = self._lengths()
        return int(lengths_c[lengths_c > 0][:1].sum())

    def absent(self) -> Array:
        if self._is_text:
            return ListCells(self.texts()).absent()
        absent_c: Array = self._lengths() == 0
        return absent_c

    def dense(self, dim: int, dtype: str, where: str, start: int) -> Array:
        if self._is_text:
            return parse_rows(self.texts(), dim, where, start)
        flat = self.array.drop_null().flatten().to_numpy(zero_copy_only=False)
        return dense_rows(self._lengths(), flat, dim, dtype, where, start)

    def numbers(self, dtype: str) -> Array:
        numbers_c: Array = self.array.to_numpy(zero_copy_only=False).astype(dtype)
        return numbers_c

    def values(self, *, fill: bool) -> Array | None:
        array = self.array
        if fill and not self._is_text and (array.null_count or str(array.type).startswith("uint")):
            array = _signed(array)
        if array.null_count and fill:
            array = array.fill_null("" if self._is_text else -1)
        if array.null_count:
            return None
        values_c: Array = array.to_numpy(zero_copy_only=False)
        return values_c.astype(np.str_) if values_c.dtype == object else values_c

    def texts(self) -> list[str | None]:
        texts: list[str | None] = self.array.to_pylist()
        return texts

    @property
    def _is_text(self) -> bool:
        return str(self.array.type) in _TEXTS

    def _lengths(self) -> Array:
        lengths = import_module("pyarrow.compute").list_value_length(self.array).fill_null(0)
        lengths_c: Array = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        return lengths_c
