"""Images inside a page, as data addresses: from a file, or from the `thumbnails.zip` of a folder."""

import base64
import zipfile
from pathlib import Path

__all__ = ["Archive", "address"]

# Far above any thumbnail: a damaged or hostile archive must not fill the memory.
_LARGEST = 2**24


def address(data: bytes, kind: str) -> str:
    """A `data:` address of an image file; `kind` as in its name."""
    return f"data:image/{'jpeg' if kind == 'jpg' else kind};base64,{base64.b64encode(data).decode('ascii')}"


class Archive:
    """Images of items of the store by modality and row; no archive, or a damaged one, has none."""

    def __init__(self, folder: Path) -> None:
        self._found: dict[str, bytes] = {}
        try:
            with zipfile.ZipFile(folder / "thumbnails.zip") as archive:
                small = [info.filename for info in archive.infolist() if info.file_size <= _LARGEST]
                self._found = {name: archive.read(name) for name in small}
        except Exception:  # a damaged archive raises anything, and these are decoration
            self._found = {}

    def use(self, modality: str, row: int | None) -> str:
        """The address of an image, "" where there is none."""
        for kind in ("webp", "png", "jpg"):
            data = self._found.get(f"{modality}/{row}.{kind}")
            if data is not None:
                return address(data, kind)
        return ""
