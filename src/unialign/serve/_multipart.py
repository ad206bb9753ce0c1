"""Read multipart bodies in memory; nothing is written to the disk."""

import re
from typing import Any

from unialign._optional import optional_module
from unialign.serve._errors import ApiError

__all__ = ["read_multipart"]

_REQUEST = "request"
_FILE = re.compile(r"f\d{1,2}")
_MOST_HEADER = 4096
_NAME = re.compile(rb'(?:^|;)\s*name="?([^";]*)"?')


def read_multipart(body: bytes, content_type: str, files: int) -> tuple[bytes, dict[str, bytes]]:
    """Return the content of the part `request`, and the parts `f0`, `f1`, ... by name.

    Raises:
        ApiError: the body is malformed (400), a part has another name (422), or there are too many files (413).
    """
    library = optional_module("python_multipart.multipart", "uploads", "serve")
    kind, options = library.parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise ApiError(400, "malformed", "Content-Type must be multipart/form-data with a boundary")
    reader = _Reader(files)
    try:
        parser = library.MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except ApiError:
        raise
    except Exception:  # the parser raises several types
        raise ApiError(400, "malformed", "the multipart body is malformed") from None
    if not reader.ended:
        raise ApiError(400, "malformed", "the multipart body is not complete")
    if _REQUEST not in reader.parts:
        raise ApiError(422, "no_request", "the part `request` with the JSON of the search is missing", field=_REQUEST)
    return reader.parts.pop(_REQUEST), reader.parts


class _Reader:
    def __init__(self, files: int) -> None:
        self.parts: dict[str, bytes] = {}
        self.ended = False
        self._files = files
        self._field, self._value, self._size = b"", b"", 0
        self._name: bytes | None = None
        self._data: list[bytes] = []

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._field, self._value, self._size, self._name, self._data = b"", b"", 0, None, []

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > _MOST_HEADER:
            raise ApiError(400, "malformed", "the header of a part is too long", limit=_MOST_HEADER)

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            found = _NAME.search(self._value)
            self._name = found[1] if found else None
        self._field, self._value = b"", b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _part_end(self) -> None:
        name = (self._name or b"").decode("utf-8", "replace")
        if name != _REQUEST and not _FILE.fullmatch(name):
            raise ApiError(422, "unknown_part", "parts must be named request, f0, f1, ...", field=name[:40])
        if name in self.parts:
            raise ApiError(422, "repeated_part", f"the part {name} is given twice", field=name)
        if len(self.parts) - (_REQUEST in self.parts) + (name != _REQUEST) > self._files:
            raise ApiError(413, "too_many_files", f"there are more than {self._files} files", limit=self._files)
        self.parts[name] = b"".join(self._data)

    def _end(self) -> None:
        self.ended = True
