"""Read-only stream over a range of bytes of an open file."""

import io
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["ByteRange"]


class ByteRange(io.RawIOBase):
    """Bytes `offset` to `offset + size` of an open file descriptor, which is not closed.

    Native decoders ignore exceptions in reads, so a failed read ends the stream and is stored as `failure`.
    """

    def __init__(self, handle: int, offset: int, size: int) -> None:
        super().__init__()
        self._handle, self._offset, self.size, self._place = handle, offset, size, 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise ValueError(f"cannot seek to {start + offset}")
        self._place = start + offset
        return self._place

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self.size - self._place)
        if wanted <= 0 or self.failure is not None:
            return 0
        try:
            count = _read_at(self._handle, view[:wanted], self._offset + self._place)
        except OSError as error:
            self.failure = error
            return 0
        self._place += count
        return count


if hasattr(os, "preadv"):

    def _read_at(handle: int, view: memoryview, place: int) -> int:
        return os.preadv(handle, [view], place)

else:

    def _read_at(handle: int, view: memoryview, place: int) -> int:
        os.lseek(handle, place, os.SEEK_SET)
        data = os.read(handle, len(view))
        view[: len(data)] = data
        return len(data)
