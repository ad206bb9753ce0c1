"""Read tab-separated text: one matrix per file, one item per line."""

from pathlib import Path

import numpy as np

from unialign.errors import DataError
from unialign.readers import ArrayEntry, EmbeddingFile

__all__ = ["TsvReader"]


class TsvReader:
    """Reader of tab-separated numbers; the modality is named after the file."""

    name = "tsv"
    suffixes = (".tsv",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".tsv"

    def open(self, path: Path) -> EmbeddingFile:
        try:
            values_ND = np.loadtxt(path, dtype=np.float32, delimiter="\t", ndmin=2)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a table of tab-separated numbers: {error}") from None
        return EmbeddingFile.at(path, self.name, [ArrayEntry.from_array("", values_ND)])
