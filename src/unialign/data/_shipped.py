"""Names and folders of the built-in data sets. Importing this module imports neither NumPy nor torch."""

from pathlib import Path

from unialign._datasets import DATASETS, datasets_folder

__all__ = ["list_datasets", "shipped_folder"]


def list_datasets() -> tuple[str, ...]:
    """Names of the data sets that `load_dataset` finds without a path; the first one is the default."""
    return DATASETS


def shipped_folder(name: str) -> Path:
    """The store folder of one of these names; MissingDependencyError without `unialign-datasets`."""
    return datasets_folder("stores") / name
