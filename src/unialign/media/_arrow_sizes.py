"""Read the sizes of compressed Arrow record batches from their metadata, before pyarrow decompresses them.

A message of the Arrow IPC format is a flatbuffer (`Message.fbs` and `File.fbs` of the format's specification) and a
body. Each compressed buffer in the body begins with its uncompressed size.
"""

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from unialign._optional import optional_module

__all__ = ["BatchSize", "compressed_batches"]

_MAGIC = b"ARROW1"
# Fields of the tables, in the order of their schemas.
_MESSAGE_HEADER_TYPE, _MESSAGE_HEADER = 1, 2
_BATCH_ROWS, _BATCH_BUFFERS, _BATCH_COMPRESSION = 0, 2, 3
_DICTIONARY_DATA = 1
_FOOTER_DICTIONARIES, _FOOTER_BATCHES = 2, 3
_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2
# Offset (int64), length of the metadata (int32, padded) and of the body (int64).
_BLOCK_BYTES = 24


class BatchSize(NamedTuple):
    rows: int
    size: int  # bytes after decompression


def compressed_batches(data: Any, *, is_file: bool) -> Iterator[BatchSize]:
    """Yield the sizes of the compressed batches and dictionaries of an Arrow file or stream.

    Raises:
        Exception: the metadata is damaged; any exception of `struct` or pyarrow.
    """
    messages = _file_messages(data) if is_file else _stream_messages(data)
    for message in messages:
        size = _batch_size(message)
        if size is not None:
            yield size


def _stream_messages(data: Any) -> Iterator[Any]:
    pa = optional_module("pyarrow", "reading Arrow files", "parquet")
    ipc = optional_module("pyarrow.ipc", "reading Arrow files", "parquet")
    yield from ipc.MessageReader.open_stream(pa.BufferReader(data))


def _file_messages(data: Any) -> Iterator[Any]:
    """Yield the messages of the batches that the footer lists; readers of the file format use no other batches."""
    ipc = optional_module("pyarrow.ipc", "reading Arrow files", "parquet")
    view = memoryview(data)
    (length,) = struct.unpack_from("<i", view, len(view) - len(_MAGIC) - 4)
    footer = view[len(view) - len(_MAGIC) - 4 - length : len(view) - len(_MAGIC) - 4]
    root = _root(footer)
    for field in (_FOOTER_DICTIONARIES, _FOOTER_BATCHES):
        start, count = _vector(footer, root, field)
        for i in range(count):
            (offset,) = struct.unpack_from("<q", footer, start + _BLOCK_BYTES * i)
            yield ipc.read_message(data.slice(offset))


def _batch_size(message: Any) -> BatchSize | None:
    """Return the size of a compressed batch; None for other messages."""
    view = memoryview(message.metadata)
    root = _root(view)
    (kind,) = struct.unpack_from("<B", view, _place(view, root, _MESSAGE_HEADER_TYPE))
    if kind not in (_RECORD_BATCH, _DICTIONARY_BATCH):
        return None
    batch = _table(view, root, _MESSAGE_HEADER)
    if kind == _DICTIONARY_BATCH:
        batch = _table(view, batch, _DICTIONARY_DATA)
    if not _place(view, batch, _BATCH_COMPRESSION):
        return None
    rows_place = _place(view, batch, _BATCH_ROWS)
    rows = struct.unpack_from("<q", view, rows_place)[0] if rows_place else 0
    body, size = memoryview(message.body), 0
    start, count = _vector(view, batch, _BATCH_BUFFERS)
    for i in range(count):
        offset, length = struct.unpack_from("<qq", view, start + 16 * i)
        if length >= 8:
            # -1: this buffer is stored without compression.
            (bytes_after,) = struct.unpack_from("<q", body, offset)
            size += length - 8 if bytes_after < 0 else bytes_after
    return BatchSize(int(rows), int(size))


def _root(view: memoryview) -> int:
    return int(struct.unpack_from("<I", view)[0])


def _place(view: memoryview, table: int, field: int) -> int:
    """Return the offset of a field of a table; 0 if the table lacks the field."""
    entries = table - int(struct.unpack_from("<i", view, table)[0])
    (size,) = struct.unpack_from("<H", view, entries)
    if 4 + 2 * field >= size:
        return 0
    (offset,) = struct.unpack_from("<H", view, entries + 4 + 2 * field)
    return table + int(offset) if offset else 0


def _table(view: memoryview, table: int, field: int) -> int:
    place = _place(view, table, field)
    return place + int(struct.unpack_from("<I", view, place)[0])


def _vector(view: memoryview, table: int, field: int) -> tuple[int, int]:
    """Return the offset of the first element, and the number of elements."""
    place = _place(view, table, field)
    if not place:
        return 0, 0
    start = place + int(struct.unpack_from("<I", view, place)[0])
    return start + 4, int(struct.unpack_from("<I", view, start)[0])
