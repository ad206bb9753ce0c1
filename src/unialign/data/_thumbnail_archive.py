"""Write a zip archive of thumbnails as a stream, with one image in memory at a time."""

import struct
import zlib
from collections.abc import Iterable, Iterator

__all__ = ["thumbnail_archive"]

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR_64 = struct.Struct("<4sIQI")
# All files have the earliest date of the zip format, 1980-01-01, so that equal images produce equal archives.
_TIME, _DATE = 0, 0x21
_VERSION, _VERSION_64 = 20, 45
_MODE = 0o100644 << 16
_MOST_16, _MOST_32 = 0xFFFF, 0xFFFFFFFF


def thumbnail_archive(images: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Yield the bytes of an archive of (name, content) pairs, with ASCII names such as `image/7.webp` and contents
    below 4 GiB.
    """
    directory = bytearray()
    offset = count = 0
    for name, content in images:
        encoded, crc, size = name.encode("ascii"), zlib.crc32(content), len(content)
        header = _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, _TIME, _DATE, crc, size, size, len(encoded), 0)
        yield header + encoded + content
        extra = b"" if offset < _MOST_32 else struct.pack("<HHQ", 1, 8, offset)
        directory += _CENTRAL.pack(
            b"PK\x01\x02",
            3 << 8 | _VERSION,
            _VERSION_64 if extra else _VERSION,
            0,
            0,
            _TIME,
            _DATE,
            crc,
            size,
            size,
            len(encoded),
            len(extra),
            0,
            0,
            0,
            _MODE,
            min(offset, _MOST_32),
        )
        directory += encoded + extra
        offset += len(header) + len(encoded) + size
        count += 1
    yield bytes(directory)
    yield _end(count, len(directory), offset)


def _end(count: int, size: int, start: int) -> bytes:
    end = _END.pack(
        b"PK\x05\x06", 0, 0, min(count, _MOST_16), min(count, _MOST_16), min(size, _MOST_32), min(start, _MOST_32), 0
    )
    if count < _MOST_16 and max(size, start) < _MOST_32:
        return end
    record = _END_64.pack(b"PK\x06\x06", _END_64.size - 12, _VERSION_64, _VERSION_64, 0, 0, count, count, size, start)
    return record + _LOCATOR_64.pack(b"PK\x06\x07", 0, start + size, 1) + end
