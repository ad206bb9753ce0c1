"""Choose which encoders are stored inside a saved space, and read their files."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unialign.config import Inside
from unialign.encoders import Encoder, base, has_adapter, load, save, save_adapter
from unialign.errors import ConfigError, DataError
from unialign.space._encoders import MODULE, naming
from unialign.space._inside import ENCODERS, SUFFIXES, has_files, inside_name, read_inside

if TYPE_CHECKING:
    from unialign.space._space import Space

Reference = dict[str, Any]


def stored_encoders(space: "Space", inside: Inside) -> tuple[dict[str, Reference], dict[str, bytes]]:
    """Return the references to save, and the files of the encoders that are stored inside the space."""
    references: dict[str, Reference] = {}
    files: dict[str, bytes] = {}
    for name, reference in space.encoders.items():
        references[name], found = _stored(space, name, reference, inside)
        place = f"{ENCODERS}/{inside_name(references[name])}"
        files |= {f"{place}/{file}": content for file, content in found.items()}
    return references, files


def _stored(space: "Space", name: str, reference: Reference, inside: Inside) -> tuple[Reference, dict[str, bytes]]:
    loaded = space._loaded_encoders
    is_whole = inside == "auto" or reference.get("stored") == "inside"
    if inside != "never" and is_whole and (folder := loaded.inside_folder(reference)) is not None:
        return reference, read_inside(folder, reference)
    by_reference = {key: value for key, value in reference.items() if key != "files"} | {"stored": "reference"}
    if inside == "always":
        return _written(name, loaded.get(name, reference, space._like().device))
    given = loaded.given(reference)
    loaded.check_given(name, reference)
    is_code = reference["kind"] == MODULE and not has_files(reference)
    if inside == "auto" and given is not None and given.module is not None and not is_code:
        if reference["kind"] != MODULE and has_adapter(given) and _can_be_loaded(base(reference), loaded.offline):
            return _written(name, given, save_adapter)
        changed, files = _written(name, given)
        # The weights of a module that was trained since it was created have another fingerprint.
        if changed["fingerprint"] != reference["fingerprint"] or not _can_be_loaded(by_reference, loaded.offline):
            return changed, files
    return by_reference, {}


def _can_be_loaded(reference: Reference, offline: bool | None) -> bool:
    """Return whether a reference alone rebuilds the encoder, whose weights may have been trained."""
    try:
        load(reference, device="cpu", offline=offline)
    except (ConfigError, DataError):
        return False
    return True


def _written(
    name: str, encoder: Encoder, save: Callable[[Encoder, Path], Reference] = save
) -> tuple[Reference, dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with naming(name, "stored inside the space"):
            reference = save(encoder, folder)
        paths = sorted(path for path in folder.rglob("*") if not path.is_dir())
        if odd := [path.name for path in paths if path.suffix not in SUFFIXES or not path.is_file()]:
            raise ConfigError(
                f"the encoder of {name!r} has the file {odd[0]!r}, which cannot be stored inside the space; expected "
                f"{', '.join(SUFFIXES)}: use inside='auto', which saves a reference"
            )
        return reference, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
