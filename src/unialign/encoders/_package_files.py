"""Find the weights in an installed package without importing it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unialign.encoders._model_files import file_sha256
from unialign.errors import DataError, MissingDependencyError

__all__ = ["PackagedFiles", "packaged_folder"]


@dataclass(frozen=True)
class PackagedFiles:
    """Files of a package with their sha256; `install` is the command that installs the package."""

    module: str
    folder: str
    install: str
    sha256: Mapping[str, str]


def packaged_folder(files: PackagedFiles, what: str) -> Path:
    """Compare the checksums of the files."""
    spec = find_spec(files.module)
    places: Sequence[str] = () if spec is None else list(spec.submodule_search_locations or ())
    if not places:
        raise MissingDependencyError(f"the encoder {what!r} needs the package {files.module}: {files.install}")
    folder = Path(places[0]) / files.folder
    for name, expected in files.sha256.items():
        found = file_sha256(folder / name)
        if found != expected:
            raise DataError(
                f"{folder / name} is not the file that the encoder {what!r} needs: its sha256 is {found}, expected "
                f"{expected}; {files.install}"
            )
    return folder
