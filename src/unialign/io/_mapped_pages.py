"""Limit the resident pages of memory-mapped files.

The system counts pages of a mapped file as memory of the process until it needs them elsewhere, so reading a file of
any size through a map would grow the process by that size. Released pages stay in the page cache of the system.
"""

import contextlib
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Resident bytes of mapped files after which pages are released.
_LIMIT = 1 << 25


class MappedPages:
    """Releases the pages of the files behind arrays; does nothing for arrays in memory."""

    def __init__(self, arrays: Iterable[NDArray[Any]]) -> None:
        # Without MADV_DONTNEED (Windows), the system limits the resident pages of maps itself.
        found = [_mapping_of(array) for array in arrays] if hasattr(mmap, "MADV_DONTNEED") else []
        self._mappings = {id(mapping): mapping for mapping in found if mapping is not None}
        self._start = _resident_file_bytes()

    def limit(self) -> None:
        """Release all pages if more than 32 MiB of mapped files became resident since the last release."""
        if self._mappings and _resident_file_bytes() - self._start > _LIMIT:
            self.release()
            # Libraries are mapped files too, and may have been loaded in the meantime.
            self._start = _resident_file_bytes()

    def release(self) -> None:
        """Release all pages; later reads take them from the page cache, or from the disk."""
        for mapping in self._mappings.values():
            # Read-only and shared maps lose no data.
            mapping.madvise(mmap.MADV_DONTNEED)


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the map that an array views, or None; also None for maps that may be private and changed.

    A release would undo the changes of a private map. Only NumPy tells whether a writable map is shared.
    """
    owner: Any = array
    shared = False
    while isinstance(owner, np.ndarray):
        shared = shared or (isinstance(owner, np.memmap) and owner.mode in ("r", "r+", "w+"))
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if not isinstance(owner, mmap.mmap):
        return None
    return owner if shared or memoryview(owner).readonly else None


def _resident_file_bytes() -> int:
    """Return the resident bytes of mapped files of this process; 0 if the system does not report them."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    return 0
