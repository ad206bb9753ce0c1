"""Data sets, weights and recipes of the separate distribution `unialign-datasets`, loaded by name.

Importing this module imports neither NumPy nor torch.
"""

from importlib import import_module
from pathlib import Path

from unialign.errors import MissingDependencyError

DECODERS = ("emoji",)


def list_datasets() -> tuple[str, ...]:
    """Return the names of built-in data sets; the first is the default."""
    # Listed here so that errors can report a missing distribution and suggest names without it.
    return ("emoji", "digits")


def datasets_folder(kind: str) -> Path:
    """Return the folder of `stores`, `projections`, `models` or `recipes`.

    Raises:
        MissingDependencyError: `unialign-datasets` is not installed.
    """
    try:
        package = import_module("unialign_datasets")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "built-in data sets, weights and recipes are a separate distribution: pip install 'unialign[demo]', or "
            "pip install ./unialign-datasets in a checkout"
        ) from None
    folder: Path = package.FOLDER
    return folder / kind
