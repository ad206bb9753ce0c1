"""Pack the images of items into the thumbnail archive of a store."""

import io
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign.data._streamed_asset import StreamedAsset
from unialign.data._thumbnails import THUMBNAILS
from unialign.errors import DataError, MissingDependencyError, ShapeError

__all__ = ["IMAGE_SUFFIXES", "pack_assets"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
_UNCHANGED = (".png", ".jpg", ".jpeg", ".webp")  # formats that browsers can display
_SIDE, _QUALITY = 128, 85
# Maximum size in bytes of a file that is stored unchanged.
_SMALL = 2**16
_IMAGE_COLUMN = re.compile(r"image|img|photo|picture|pix|frame", re.IGNORECASE)

Names = Sequence[str] | None


def pack_assets(
    assets: Any, columns: Sequence[str], items: int, *, keys: Names, names: Names, ids: Any
) -> dict[str, bytes | StreamedAsset]:
    """Return the assets as bytes, with all images in one archive. Files are matched by `keys`, `names` or `ids`."""
    if isinstance(assets, str | os.PathLike):
        assets = _by_column(Path(assets), columns)
    if not isinstance(assets, Mapping):
        raise DataError(f"assets must map file names to bytes, or be a folder of images, got {type(assets).__name__}")
    packed: dict[str, bytes | StreamedAsset] = {}
    images: dict[str, list[Path | None]] = {}
    for name, content in assets.items():
        if isinstance(content, bytes | StreamedAsset):
            packed[name] = content
        elif name not in columns:
            raise DataError(
                f"asset {name!r} must be bytes, got {type(content).__name__}; pass images by column, for example "
                f"assets={{{columns[0]!r}: folder or list with one file per item}}"
            )
        elif isinstance(content, str | os.PathLike):
            images[name] = _files_of_items(Path(content), items, keys=keys, names=names, ids=ids)
        else:
            images[name] = _one_per_item(name, content, items)
    if images:
        if THUMBNAILS in packed:
            raise DataError(
                f"assets contain both {THUMBNAILS!r} and images of {', '.join(images)}; pass only one of the two"
            )
        packed[THUMBNAILS] = _archive(images)
    return packed


def _by_column(folder: Path, columns: Sequence[str]) -> dict[str, Path]:
    """Use the subfolder of each column, or `folder` for the only image column."""
    if not folder.is_dir():
        raise DataError(f"assets={str(folder)!r} is not a folder of images")
    own = {column: folder / column for column in columns if (folder / column).is_dir()}
    if own:
        return own
    likely = [column for column in columns if _IMAGE_COLUMN.search(column)]
    if len(likely) != 1:
        raise DataError(
            f"cannot determine the column of the images in {folder} among {', '.join(columns)}; specify it with "
            f"assets={{{(likely or columns)[0]!r}: {str(folder)!r}}}"
        )
    return {likely[0]: folder}


def _one_per_item(column: str, files: Any, items: int) -> list[Path | None]:
    if not isinstance(files, Iterable):
        raise DataError(f"asset {column!r} is a {type(files).__name__}; expected a folder or one image file per item")
    found = list(files)
    if len(found) != items:
        raise ShapeError(
            f"assets of {column!r} have {len(found)} files for {items} items; pass one per item (None for no image)"
        )
    for place, file in enumerate(found):
        if file is not None and not isinstance(file, str | os.PathLike):
            raise DataError(f"assets of {column!r}: entry {place} is {file!r}; expected a path, or None for no image")
    return [None if file is None else Path(file) for file in found]


def _files_of_items(folder: Path, items: int, *, keys: Names, names: Names, ids: Any) -> list[Path | None]:
    """Match files by key, name or id; without any match, by order if there are N files, else by row number."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder of images")
    files = sorted((file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
    if not files:
        raise DataError(f"{folder} contains no image files; supported suffixes are {', '.join(IMAGE_SUFFIXES)}")
    by_stem = {file.stem: file for file in files}
    unmatched: list[str] = []
    for texts in (keys, names, None if ids is None else [str(value) for value in ids]):
        others = by_stem.keys() - set(texts or ())
        if texts is not None and not others:
            return [by_stem.get(text) for text in texts]
        if len(others) < len(by_stem):
            unmatched = unmatched or [stem for stem in by_stem if stem in others]
    if unmatched:
        # Do not fall back to the order of the files, which could assign images to the wrong items.
        raise DataError(
            f"{len(unmatched)} of {len(files)} images in {folder} belong to no item, such as "
            f"{by_stem[unmatched[0]].name}; remove them, or pass one file per item (None for no image)"
        )
    if len(files) == items:
        return list(files)
    numbers = [re.findall(r"\d+", file.stem) for file in files]
    by_row = {int(found[-1]): file for found, file in zip(numbers, files, strict=True) if found}
    if len(by_row) == len(files) and max(by_row) < items:
        return [by_row.get(row) for row in range(items)]
    raise DataError(
        f"cannot match the {len(files)} images in {folder}, such as {files[0].name}, to {items} items; pass the "
        "file names without suffix as names= or ids=, or pass one file per item (None for no image)"
    )


def _natural(file: Path) -> list[tuple[int, str]]:
    """Order `2.png` before `10.png`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


def _archive(images: Mapping[str, Sequence[Path | None]]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for column, files in images.items():
            for row, file in enumerate(files):
                if file is not None:
                    data, suffix = _thumbnail(file)
                    # Use a fixed date, so that equal images produce equal archives.
                    archive.writestr(zipfile.ZipInfo(f"{column}/{row}{suffix}"), data)
    return target.getvalue()


def _thumbnail(file: Path) -> tuple[bytes, str]:
    """Return at most 128 x 128 pixels, and the suffix; small images are unchanged."""
    suffix = file.suffix.lower()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(f"image {file} cannot be read: {error.strerror or error}") from None
    try:
        pil: Any = import_module("PIL.Image")
    except ImportError:
        if suffix in _UNCHANGED and len(data) <= _SMALL:
            return data, suffix
        raise MissingDependencyError(f"resizing {file} needs Pillow: pip install 'unialign[images]'") from None
    try:
        with pil.open(io.BytesIO(data)) as image:
            if suffix in _UNCHANGED and max(image.size) <= _SIDE and len(data) <= _SMALL:
                image.verify()
                return data, suffix
            image.thumbnail((_SIDE, _SIDE))
            small = io.BytesIO()
            image.convert("RGBA").save(small, "webp", quality=_QUALITY)
    except Exception as error:  # a damaged image can raise any exception
        raise DataError(f"image {file} is damaged: {error}") from error
    return small.getvalue(), ".webp"
