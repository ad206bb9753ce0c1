"""Names and folders of the data sets inside the package. Importing this module imports neither NumPy nor torch."""

from pathlib import Path

__all__ = ["list_datasets", "shipped_folder"]

_SHIPPED = Path(__file__).parent / "shipped"
_NAMES = ("emoji", "digits")


def list_datasets() -> tuple[str, ...]:
    """Names of the data sets that `load_dataset` finds without a path; the first one is the default."""
    return _NAMES


def shipped_folder(name: str) -> Path:
    """The store folder of one of these names."""
    return _SHIPPED / name
