"""Save the files of an encoder into a folder, from which `load` reads them."""

from pathlib import Path
from typing import Any

from unialign.encoders._encoder import Encoder
from unialign.errors import ConfigError

__all__ = ["save"]


def save(encoder: Encoder, folder: Path) -> dict[str, Any]:
    """Write the files of an encoder with its current weights into an empty folder.

    Args:
        folder: an existing empty folder.

    Returns:
        A reference to the encoder with the current weights; its entry `stored` is `inside`, and its entry `files` maps
        each written file to its sha256. `load(reference, folder=folder)` loads it.

    Raises:
        ConfigError: the encoder has no files, for example because it was created by `wrap`.
    """
    write = getattr(encoder, "save_files", None)
    if write is None:
        reference = encoder.reference
        raise ConfigError(f"the encoder {reference['kind']}:{reference['name']} has no method save_files")
    saved: dict[str, Any] = write(Path(folder))
    return saved
