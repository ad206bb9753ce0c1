"""Read tab-separated text: one matrix per file, one item per line."""

from pathlib import Path

import numpy as np

from unialign.errors import DataError
from unialign.readers import EmbeddingFile, Entry

__all__ = ["TsvReader"]


class TsvReader:
    """Tab-separated numbers; the file's name names the modality."""

    name = "tsv"
    suffixes = (".tsv",)

    def can_read(self, path: Path, head: bytes) -> bool:
        return path.suffix == ".tsv"

    def open(self, path: Path) -> EmbeddingFile:
        try:
            values_ND = np.loadtxt(path, dtype=np.float32, delimiter="\t", ndmin=2)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a table of tab-separated numbers: {error}") from None
        return EmbeddingFile.at(path, self.name, [Entry.from_array("", values_ND)])
