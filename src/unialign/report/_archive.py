"""Read image files and a folder's `thumbnails.zip` as data URLs."""

import base64
import zipfile
from pathlib import Path

__all__ = ["Archive", "data_url"]

# Limit for damaged or malicious archives, far above any thumbnail.
_LARGEST = 2**24


def data_url(data: bytes, kind: str) -> str:
    """Return the `data:` URL of an image file with the suffix `kind`."""
    return f"data:image/{'jpeg' if kind == 'jpg' else kind};base64,{base64.b64encode(data).decode('ascii')}"


class Archive:
    """Thumbnails by modality and row of the store; empty if the archive is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[str, bytes] = {}
        try:
            with zipfile.ZipFile(folder / "thumbnails.zip") as archive:
                small = [info.filename for info in archive.infolist() if info.file_size <= _LARGEST]
                self._found = {name: archive.read(name) for name in small}
        except Exception:  # damaged archives can raise any exception, and thumbnails are optional
            self._found = {}

    def url(self, modality: str, row: int | None) -> str:
        """Return the data URL of a thumbnail, "" if there is none."""
        for kind in ("webp", "png", "jpg"):
            data = self._found.get(f"{modality}/{row}.{kind}")
            if data is not None:
                return data_url(data, kind)
        return ""
