"""Choose which encoders are stored inside of a saved space, and write their files."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unialign.errors import ConfigError
from unialign.io import digest, write_json
from unialign.space._encoders import MODULE
from unialign.space._inside import ENCODER_FILE, ENCODERS, SUFFIXES, inside_name, read_inside

if TYPE_CHECKING:
    from unialign.space._space import Space

Inside = Literal["auto", "always", "never"]


def stored_encoders(space: "Space", inside: Inside) -> tuple[dict[str, dict[str, Any]], dict[str, bytes]]:
    """Return the references to save, and the files of the encoders that are stored inside of the space."""
    references: dict[str, dict[str, Any]] = {}
    files: dict[str, bytes] = {}
    for name, reference in space.encoders.items():
        if inside == "never" or (inside == "auto" and reference.get("stored") != "inside"):
            references[name] = reference | {"stored": "reference"}
            continue
        place = f"{ENCODERS}/{inside_name(reference)}/"
        folder = space._loaded_encoders.inside_folder(reference)
        if folder is None:
            references[name], found = _saved(space, name, reference)
        else:
            references[name], found = reference, read_inside(folder, reference)
        files |= {place + file: content for file, content in found.items()}
    return references, files


def _saved(space: "Space", name: str, reference: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    encoder = space._loaded_encoders.get(name, reference, space._like().device)
    save = getattr(encoder, "save", None)
    if save is None:
        reason = "its class is unknown when the space is loaded" if reference["kind"] == MODULE else "it has no `save`"
        raise ConfigError(
            f"the encoder {reference['kind']}:{reference['name']} of {name!r} cannot be stored inside of the space, "
            f"since {reason}; use inside='auto', which saves a reference"
        )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        changed = save(folder)
        names = sorted(path.name for path in folder.iterdir())
        if odd := [name for name in names if Path(name).suffix not in SUFFIXES or not (folder / name).is_file()]:
            raise ConfigError(f"the encoder of {name!r} wrote {odd[0]!r}; expected files of {', '.join(SUFFIXES)}")
        files = {name: (folder / name).read_bytes() for name in names}
        sums = {name: digest(content) for name, content in files.items()}
        sealed = {"library": "unialign", "fingerprint": reference["fingerprint"], "files": sums}
        write_json(folder / ENCODER_FILE, sealed)
        files[ENCODER_FILE] = (folder / ENCODER_FILE).read_bytes()
    return {**reference, **(changed or {}), "stored": "inside"}, files
