"""Locate the data sets, weights and recipes of `unialign-datasets`; imports neither NumPy nor torch."""

import os
from importlib import import_module
from pathlib import Path

from unialign._checks import suggestion
from unialign.errors import DataError, MissingDependencyError

DECODERS = ("emoji",)


def list_datasets() -> tuple[str, ...]:
    """Return the names of the built-in data sets; the first is the default."""
    # The names are listed here so that error messages can suggest them even if the distribution is not installed.
    return ("emoji", "digits")


def unknown_source(source: str) -> DataError:
    known = ", ".join(map(repr, list_datasets()))
    path = Path(source.rpartition("=")[2])
    if path.suffix:
        where = "" if path.is_absolute() else f" in {os.getcwd()}"
        return DataError(
            f"there is no file or folder {str(path)!r}{where}; {_similar_file(source) or 'check the path'}"
        )
    hint = suggestion(source, list_datasets(), otherwise=_similar_file(source) or "check the path")
    return DataError(f"{source!r} is neither a data set ({known}) nor a file or folder{hint}")


def _similar_file(source: str) -> str:
    """Return "" if there is none."""
    path = Path(source.rpartition("=")[2])
    try:
        names = [entry.name for entry in sorted(path.parent.iterdir())][:10_000]
    except (OSError, ValueError):
        return ""
    return suggestion(path.name, names).removeprefix("; ") if path.name else ""


def datasets_folder(kind: str) -> Path:
    try:
        package = import_module("unialign_datasets")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "built-in data sets, weights and recipes need unialign-datasets: pip install 'unialign[demo]', or "
            "pip install ./unialign-datasets in a checkout"
        ) from None
    folder: Path = package.FOLDER
    return folder / kind
