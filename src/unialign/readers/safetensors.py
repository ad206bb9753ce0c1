"""Read .safetensors files: the library validates the header, and tensors are read in place."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from unialign.errors import DataError
from unialign.io import open_regular
from unialign.readers._array_items import array_file, array_items
from unialign.readers._entry import ArrayEntry, EmbeddingFile
from unialign.readers._item_records import ItemOptions, ItemRecords
from unialign.readers._rows import FileRegion
from unialign.readers._text import is_text

__all__ = ["SafetensorsReader"]

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16", "BOOL": "|b1", "I8": "|i1", "I16": "<i2",
    "I32": "<i4", "I64": "<i8", "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip


class SafetensorsReader:
    name = "safetensors"
    suffixes = (".safetensors",)

    def can_read(self, path: Path, head: bytes) -> bool:
        # An 8-byte header length precedes the JSON header. Read as a length, eight bytes of text would be too large.
        return head[8:9] == b"{" and not is_text(head[:8])

    def open(self, path: Path) -> EmbeddingFile:
        try:
            # `safe_open` raises an error if shapes, sizes and offsets are inconsistent.
            with safe_open(path, framework="numpy"):
                pass
            with open_regular(path) as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
        except Exception as error:  # malicious input may raise any exception in the parser
            raise DataError(f"{path} is not a safetensors file, or is damaged ({error}); write it again") from None
        header.pop("__metadata__", None)
        return EmbeddingFile.at(
            path, self.name, [_entry(path, 8 + length, key, facts) for key, facts in header.items()]
        )

    def read_items(self, paths: Sequence[Path], options: ItemOptions) -> ItemRecords:
        return array_items([array_file(path, self.open(path)) for path in paths], options)


def _entry(path: Path, start: int, key: str, facts: dict[str, object]) -> ArrayEntry:
    dtype, shape, offsets = str(facts["dtype"]), facts["shape"], facts["data_offsets"]
    if dtype not in _DTYPES:
        return ArrayEntry.ignored(key, f"dtype {dtype}")
    assert isinstance(shape, list)
    assert isinstance(offsets, list)
    return ArrayEntry.from_region(key, FileRegion(path, start + offsets[0], tuple(shape), _DTYPES[dtype]))
