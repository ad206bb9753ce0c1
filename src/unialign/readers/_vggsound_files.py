"""Find the table of VGGSound and the folders of its clips."""

from collections.abc import Sequence
from pathlib import Path

from unialign.errors import DataError

__all__ = ["clip_folders", "is_vggsound_folder", "table_of"]

_TABLE = "vggsound.csv"


def is_vggsound_folder(folder: Path) -> bool:
    return (folder / _TABLE).is_file()


def table_of(path: Path) -> Path:
    """Return the table in a folder, or the file itself."""
    found = path / _TABLE if path.is_dir() else path
    if not found.is_file():
        raise DataError(f"{found} does not exist; pass {_TABLE} or the folder that contains it")
    return found


def clip_folders(root: Path) -> Sequence[str]:
    """Return the root and its subfolders, sorted by name."""
    try:
        names = [entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{root} cannot be listed ({error.strerror or error}); check the path") from None
    return (".", *sorted(names, key=str.encode))
