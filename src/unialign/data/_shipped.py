"""Names and folders of the built-in data sets. Importing this module imports neither NumPy nor torch."""

from pathlib import Path

from unialign._datasets import DATASETS, datasets_folder

__all__ = ["list_datasets", "shipped_folder"]


def list_datasets() -> tuple[str, ...]:
    """Return the names of built-in data sets; the first is the default."""
    return DATASETS


def shipped_folder(name: str) -> Path:
    """Return the store folder of a built-in data set; MissingDependencyError without `unialign-datasets`."""
    return datasets_folder("stores") / name
