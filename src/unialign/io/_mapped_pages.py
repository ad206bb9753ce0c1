"""Limit the resident pages of memory-mapped files.

Reading a whole file through a map would otherwise increase the memory of the process by the size of the file.
"""

import contextlib
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Maximum increase of the resident bytes of mapped files before pages are released.
_LIMIT = 1 << 25


class MappedPages:
    """Args:
    arrays: arrays, or array-likes with `parts` that are arrays.
    """

    def __init__(self, arrays: Iterable[NDArray[Any]]) -> None:
        parts = [part for array in arrays for part in getattr(array, "parts", [array])]
        # Systems without MADV_DONTNEED (Windows) limit the resident pages of maps themselves.
        found = [_mapping_of(part) for part in parts] if hasattr(mmap, "MADV_DONTNEED") else []
        self._mappings = {id(mapping): mapping for mapping in found if mapping is not None}
        self._start = _resident_file_bytes()

    def limit(self) -> None:
        """Release all pages if more than 32 MiB of mapped files became resident since the last release."""
        if self._mappings and _resident_file_bytes() - self._start > _LIMIT:
            self.release()
            # Shared libraries are also mapped files, and may have been loaded in the meantime.
            self._start = _resident_file_bytes()

    def release(self) -> None:
        for mapping in self._mappings.values():
            # No data are lost, since the maps are read-only or shared.
            mapping.madvise(mmap.MADV_DONTNEED)


def _mapping_of(array: NDArray[Any]) -> mmap.mmap | None:
    """Return the map of an array; None for a private map, since releasing its pages would discard changes."""
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
    """Return the number of resident bytes of mapped files; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[2]) * os.sysconf("SC_PAGE_SIZE")
    return 0
