"""Save and publish a space as a folder, with its encoders and a model card."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from unialign._checks import check_choice
from unialign.config import Inside, SpaceFormat
from unialign.encoders import ADAPTER_FILE
from unialign.errors import CheckpointError, ConfigError
from unialign.io import CARD, check_json_object, checked_path, push_folder, read_json, save_folder, wait_for_folder
from unialign.space._card import license_of, model_card
from unialign.space._inside import ENCODERS, FOLDER, SUFFIXES, has_files, inside_name
from unialign.space._own_towers import own_towers
from unialign.space._sentence_transformer import MODULE_FILES, discard_modules, write_modules
from unialign.space._stored_encoders import stored_encoders
from unialign.space._towers import CLOSED, Tower, towers_of

if TYPE_CHECKING:
    from unialign.space._space import Space

# Patterns of the files of a space, which are the only ones that are downloaded.
FILES = ("config.json", "model.safetensors", *(f"{ENCODERS}/*/*{suffix}" for suffix in SUFFIXES))


def save(
    space: "Space", directory: str | os.PathLike[str], *, format: str, encoders: Any, inside: Inside
) -> list[Tower]:
    """Return the encoders that are stored as modules of sentence-transformers."""
    check_choice("format", format, get_args(SpaceFormat))
    check_choice("inside", inside, get_args(Inside))
    metadata = check_json_object("space", space.metadata)
    folder = checked_path(directory, "the folder to save in", error=CheckpointError)
    if format == "unialign":
        if encoders is not None:
            raise ConfigError(
                "encoders are stored only with format='sentence-transformers'; set it, or omit encoders, and use "
                "with_encoders for the encoders of raw media"
            )
        _save_space(space, folder, metadata, [], inside)
        discard_modules(folder)
        return []
    towers = own_towers(space) if encoders is None else towers_of(encoders, space.dims, metadata)
    write_modules(space, towers, folder, lambda: _save_space(space, folder, metadata, towers, inside))
    return towers


def push(
    space: "Space",
    repo_id: str,
    *,
    format: str,
    encoders: Any,
    inside: Inside,
    license: str | None,
    **options: Any,
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        towers = save(space, folder, format=format, encoders=encoders, inside=inside)
        own = {tower.name for tower in towers} if encoders is None else set[str]()
        _check_licenses(space, Path(folder), own, license)
        return push_folder(Path(folder), repo_id, allow_patterns=[*FILES, CARD, *MODULE_FILES], **options)


def _save_space(space: "Space", folder: Path, metadata: dict[str, Any], towers: list[Tower], inside: Inside) -> None:
    references, files = stored_encoders(space, inside)
    save_folder(
        "space",
        folder,
        settings=space.get_config() | ({"encoders": references} if references else {}),
        metadata=metadata,
        tensors=space.state_dict(),
        card=model_card(space, metadata, towers),
        files=files,
    )
    _discard_other_encoders(folder)


def _discard_other_encoders(folder: Path) -> None:
    """Delete the encoders of the space that was replaced."""
    # Another process may have replaced the space again, so the encoders to keep are read from the folder.
    with contextlib.suppress(OSError, CheckpointError, KeyError, AttributeError), wait_for_folder(folder):
        references = read_json(folder / "config.json")["space"].get("encoders", {}).values()
        kept = {inside_name(reference) for reference in references if has_files(reference)}
        for path in (folder / ENCODERS).iterdir():
            if path.name not in kept and FOLDER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        if not any((folder / ENCODERS).iterdir()):
            (folder / ENCODERS).rmdir()


def _check_licenses(space: "Space", folder: Path, copied: set[str], license: str | None) -> None:
    """Check that licenses permit copies; `copied` are modalities whose encoders are in the folder, besides those in the
    subfolder of encoders.
    """
    for name, reference in space.encoders.items():
        found = license_of(reference)
        is_inside = name in copied or _has_weights(folder / ENCODERS / inside_name(reference))
        if not is_inside or (found != "unknown" and found not in CLOSED):
            continue
        if not license:
            state = "is not known" if found == "unknown" else f"({found}) does not permit copies of its weights"
            raise ConfigError(
                f"the license of the encoder of {name!r} {state}, and the folder contains its weights; state the "
                f"license with license='...' if you may publish them, or use inside='never'"
            )


def _has_weights(folder: Path) -> bool:
    """Return whether a folder contains weights of an encoder; an adapter alone contains no weights of its base
    encoder.
    """
    return folder.is_dir() and any(path.name != ADAPTER_FILE for path in folder.iterdir())
