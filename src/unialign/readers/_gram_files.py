"""Find the annotation files of VAST and GRAM, and the media of a clip by its exact name."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unialign.errors import DataError
from unialign.readers._item_records import Folders

__all__ = ["MediaFolder", "annotation_split", "is_annotation", "is_gram_folder", "list_annotations"]

# Splits in the order in which clips are listed; a clip in `test` is never used for training.
_PARTS = ("train", "trainval", "val", "test")
_NAME = re.compile(rf"descs_ret_({'|'.join(_PARTS)})\.json")


def is_annotation(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def is_gram_folder(folder: Path) -> bool:
    return any((folder / f"descs_ret_{part}.json").is_file() for part in _PARTS)


def annotation_split(path: Path) -> str:
    """Return train, trainval, val or test."""
    found = _NAME.fullmatch(path.name)
    return found[1] if found else ""


def list_annotations(path: Path) -> list[Path]:
    """Return the annotation files of a folder, or the file itself."""
    if path.is_dir():
        files = [path / f"descs_ret_{part}.json" for part in _PARTS]
        files = [file for file in files if file.is_file()]
        if not files:
            raise DataError(f"{path} has no descs_ret_train.json, descs_ret_test.json or another annotation file")
        return files
    if not path.is_file():
        raise DataError(f"{path} does not exist; pass the folder that contains descs_ret_test.json")
    return [path]


class MediaFolder:
    """Find files in one or several folders by their exact stem and a list of suffixes."""

    def __init__(self, folders: Folders, places: Sequence[str], is_required: bool) -> None:
        self._files: list[tuple[dict[str, Any], str, frozenset[str]]] = []
        for place in places:
            self._files += _listed(folders, place.rstrip("/") or ".", is_required)

    def find(self, stem: str, suffixes: Sequence[str]) -> dict[str, Any] | None:
        """Return a reference to the first file that is found; names that only begin with the stem belong to other
        clips.
        """
        for root, prefix, names in self._files:
            for suffix in suffixes:
                for name in (stem + suffix, stem + suffix.upper()):
                    if name in names:
                        return {"path": f"{prefix}{name}", **root}
        return None


def _listed(folders: Folders, place: str, is_required: bool) -> list[tuple[dict[str, Any], str, frozenset[str]]]:
    path, root = folders.place(place) if place != "." else (".", 0)
    folder = folders.roots[root] / path
    if not folder.is_dir():
        if is_required:
            raise DataError(f"{folder} is not a folder; correct the rule")
        return []
    resolved = folder.resolve()
    prefix = "" if path == "." else f"{path}/"
    if not resolved.is_relative_to(folders.roots[root].resolve()):
        # Cells must not leave their root by a link, so the target of the link becomes a root.
        if not folders.allow_absolute:
            raise DataError(
                f"{folder} is a link to {resolved}, outside of {folders.roots[root]}; allow it with "
                "allow_absolute=True (--allow-absolute)"
            )
        root, prefix = folders.add(resolved), ""
    where = {"root": root} if root else {}
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror or error}); check its permissions") from None
    return [(where, prefix, frozenset(names))]
