"""Compare the size that a file declares in its header with the actual size.

Decoders return the readable part of many truncated files without an error.
"""

from typing import BinaryIO

from unialign.errors import MediaError

__all__ = ["check_declared_size", "unfinished_size"]

# Placeholders for the size that programs leave when they write to a pipe: ffmpeg and most others, sox, arecord.
_UNKNOWN_32 = range(0xFFFFFF00, 1 << 32)
_UNKNOWN_31 = range(0x7FFF0000, 0x80000100)
_CHUNK_HEADER, _RIFF_HEADER = 8, 12
_MAX_CHUNKS = 1000
_OGG_PAGE_HEADER, _MAX_OGG_PAGE = 27, 65_307
_MP3_TAG = 128
_W64 = b"riff\x2e\x91\xcf\x11"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def check_declared_size(stream: BinaryIO, size: int) -> None:
    """Raise MediaError with the code `truncated` if the file is shorter than it declares."""
    stream.seek(0)
    head = stream.read(64)
    end = _declared_end(stream, size, head)
    stream.seek(0)
    if end > size:
        raise MediaError("truncated", f"the file declares {end:,} bytes, but has {size:,}")


def unfinished_size(stream: BinaryIO, size: int) -> int | None:
    """Return the offset of the size field of a WAV file if a program that wrote to a pipe left 0 in it; None
    otherwise.
    """
    stream.seek(0)
    head = stream.read(_RIFF_HEADER)
    found = None
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        place, length = _samples(stream, b"data", "little")
        declared = _CHUNK_HEADER + int.from_bytes(head[4:8], "little")
        # In a complete file without samples, the declared size includes the other chunks.
        if length == 0 and place and declared <= place + _CHUNK_HEADER < size:
            found = place + 4
    stream.seek(0)
    return found


def _declared_end(stream: BinaryIO, size: int, head: bytes) -> int:
    kind, form = head[:4], head[8:12]
    if kind == b"RIFF" and form == b"WAVE":
        return _samples_end(stream, b"data", "little")
    if kind == b"RIFF":  # AVI and WebP
        length = int.from_bytes(head[4:8], "little")
        return 0 if _is_unknown(length) else _CHUNK_HEADER + length
    if kind == b"FORM" and form in (b"AIFF", b"AIFC"):
        return _samples_end(stream, b"SSND", "big")
    if kind == b"RF64":
        return _CHUNK_HEADER + int.from_bytes(head[20:28], "little") if head[12:16] == b"ds64" else 0
    if head.startswith(_W64):
        return int.from_bytes(head[16:24], "little")
    if kind == b".snd":
        length = int.from_bytes(head[8:12], "big")
        return 0 if _is_unknown(length) else int.from_bytes(head[4:8], "big") + length
    if kind == b"OggS":
        return _ogg_end(stream, size, head[14:18])
    if head[4:8] == b"ftyp":
        return _mp4_end(stream, size)
    if kind == _EBML:
        return _matroska_end(stream)
    return _mp3_end(stream, head)


def _is_unknown(length: int) -> bool:
    return length == 0 or length in _UNKNOWN_32 or length in _UNKNOWN_31


def _samples(stream: BinaryIO, name: bytes, order: str) -> tuple[int, int]:
    """Return offset and length of the chunk with the samples, or (0, 0)."""
    place = _RIFF_HEADER
    for _ in range(_MAX_CHUNKS):
        stream.seek(place)
        header = stream.read(_CHUNK_HEADER)
        length = int.from_bytes(header[4:], order)  # type: ignore[arg-type]
        if len(header) < _CHUNK_HEADER:
            break
        if header[:4] == name:
            return place, length
        place += _CHUNK_HEADER + length + length % 2
    return 0, 0


def _samples_end(stream: BinaryIO, name: bytes, order: str) -> int:
    place, length = _samples(stream, name, order)
    return 0 if _is_unknown(length) else place + _CHUNK_HEADER + length


def _ogg_end(stream: BinaryIO, size: int, serial: bytes) -> int:
    """Return the end of the last page. Streams without an end mark are common, and are not treated as truncated."""
    start = max(0, size - _MAX_OGG_PAGE - _OGG_PAGE_HEADER)
    stream.seek(start)
    tail = stream.read()
    place = tail.rfind(b"OggS\0")
    page = tail[place : place + _OGG_PAGE_HEADER]
    if place < 0 or (len(page) >= 18 and page[14:18] != serial):
        return 0
    segments = page[26] if len(page) == _OGG_PAGE_HEADER else 0
    lengths = tail[place + _OGG_PAGE_HEADER : place + _OGG_PAGE_HEADER + segments]
    missing = segments - len(lengths)
    return start + place + _OGG_PAGE_HEADER + segments + (1 if missing else sum(lengths))


def _mp4_end(stream: BinaryIO, size: int) -> int:
    place = 0
    for _ in range(_MAX_CHUNKS):
        stream.seek(place)
        header = stream.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        # Length 0 means "to the end of the file". Players ignore bytes after the last box.
        if len(header) < _CHUNK_HEADER or length < _CHUNK_HEADER or not kind.isalnum():
            return 0
        place += length
        if place > size:
            return place
    return 0


def _matroska_end(stream: BinaryIO) -> int:
    stream.seek(len(_EBML))
    place = len(_EBML)
    length, width = _ebml_number(stream)
    place += width + length
    stream.seek(place)
    if stream.read(4) != _SEGMENT:
        return 0
    length, width = _ebml_number(stream)
    # If all bits are set, the size is unknown, as in live streams.
    unknown = length == (1 << 7 * width) - 1 or width == 0
    return 0 if unknown else place + len(_SEGMENT) + width + length


def _ebml_number(stream: BinaryIO) -> tuple[int, int]:
    """Read a variable-width number; return it and its width in bytes, or (0, 0) if there is none."""
    first = stream.read(1)
    if not first or first[0] == 0:
        return 0, 0
    width = 9 - first[0].bit_length()
    rest = int.from_bytes(stream.read(width - 1), "big")
    return (first[0] & (1 << 8 - width) - 1) << 8 * (width - 1) | rest, width


def _mp3_end(stream: BinaryIO, head: bytes) -> int:
    """Return the declared end, or 0; only files with a variable bit rate declare it."""
    start = 0
    if head[:3] == b"ID3":
        for byte in head[6:10]:
            start = start << 7 | byte & 0x7F
        start += 10
    stream.seek(start)
    frame = stream.read(256)
    if len(frame) < 2 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return 0
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    if place < 0 or not flags & 2:
        return 0
    place += 12 if flags & 1 else 8
    length = int.from_bytes(frame[place : place + 4], "big")
    # The declared size may include the tag at the end, which may have been removed later.
    return max(0, start + length - _MP3_TAG)
