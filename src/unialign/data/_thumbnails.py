"""Read thumbnails from a zip archive of images `<modality>/<number>.webp` (or .png, .jpg), without importing torch."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from unialign.errors import DataError

__all__ = ["THUMBNAILS", "Thumbnails"]

THUMBNAILS = "thumbnails.zip"
# Limit that protects against damaged or malicious archives; thumbnails are far smaller.
_MAX_BYTES = 2**24
_SUFFIXES = ("webp", "png", "jpg", "jpeg")


class Thumbnails:
    """Map (modality, number) to an image; the mapping is empty without an archive.

    Args:
        archive: path or content of the archive, or an open file, which must stay open.
        name: name of the archive in error messages. Default: the path.

    Raises:
        DataError: the archive is not a valid zip archive.
    """

    def __init__(self, archive: Path | bytes | BinaryIO, name: str | None = None) -> None:
        self._name = str(archive) if name is None else name
        self._files: dict[tuple[str, int], zipfile.ZipInfo] = {}
        if isinstance(archive, Path) and not archive.is_file():
            return
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive)
        except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            raise DataError(f"{self._name} is not a zip archive ({error}); remove it or write it again") from error
        for info in self._archive.infolist():
            stem, _, suffix = info.filename.rpartition(".")
            modality, _, number = stem.rpartition("/")
            if suffix in _SUFFIXES and number.isdecimal():
                self._files[modality, int(number)] = info

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._files)

    @property
    def modalities(self) -> set[str]:
        """Modalities with at least one image."""
        return {modality for modality, _ in self._files}

    def read(self, modality: str, number: int) -> tuple[bytes, str] | None:
        """Return the content of an image file and its suffix, such as `webp`; None if there is no such image.

        Raises:
            DataError: the file is damaged, or too large to be a thumbnail.
        """
        info = self._files.get((modality, number))
        if info is None:
            return None
        what = f"{info.filename} in {self._name}"
        if info.file_size > _MAX_BYTES:
            raise DataError(f"{what} has {info.file_size} bytes; expected a thumbnail of at most {_MAX_BYTES}")
        try:
            return self._archive.read(info), info.filename.rpartition(".")[2]
        except Exception as error:  # a damaged archive can raise any exception
            raise DataError(f"{what} cannot be read ({error}); write the archive again") from error
