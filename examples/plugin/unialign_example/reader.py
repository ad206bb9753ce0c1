"""Read .fvecs files of nearest-neighbor benchmarks: each row is its dim as int32, then its values as float32."""

from pathlib import Path

import numpy as np

from unialign.errors import DataError
from unialign.readers import ArrayEntry, EmbeddingFile

__all__ = ["FvecsReader"]


class FvecsReader:
    """Reader of vectors with a dim before each row; the modality is named after the file."""

    name = "fvecs"
    suffixes = (".fvecs",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".fvecs"

    def open(self, path: Path) -> EmbeddingFile:
        words = path.stat().st_size // 4
        dim = int(np.fromfile(path, "<i4", 1)[0]) if words else 0
        if dim < 1 or words % (dim + 1) or path.stat().st_size % 4:
            raise DataError(f"{path} is not a file of float32 vectors of one dim")
        values_NW = np.memmap(path, "<f4", "r").reshape(-1, dim + 1)[:, 1:]
        return EmbeddingFile.at(path, self.name, [ArrayEntry.from_array("", values_NW)])
