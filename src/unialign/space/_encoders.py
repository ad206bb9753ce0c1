"""The encoders of a space: references that are saved with it, and the encoders that were loaded from them."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unialign._checks import check_choice, check_integer
from unialign.encoders import (
    Encoder,
    changes_of,
    check_reference,
    check_unchanged,
    check_witness,
    create,
    is_same_form,
    load,
    references_of,
    restored,
)
from unialign.errors import ConfigError, DataError, MissingDependencyError
from unialign.media import KINDS
from unialign.space._inside import ENCODERS, has_files, inside_name, read_inside
from unialign.space._validation import check_names

if TYPE_CHECKING:
    import torch

    from unialign.data import EmbeddingStore
    from unialign.space._space import Space

# Entries of a reference that are JSON objects.
_MAPPINGS = ("options", "architecture", "decoding", "prepare", "weights", "packages", "files", "adapter")
# Kind of encoders that cannot be rebuilt from a reference.
MODULE = "module"


class LoadedEncoders:
    """Encoders that were loaded at their first use or given by the caller; copies of a space share them.

    Args:
        folder: the saved space, which may contain encoders.
        offline: as in `Space.from_pretrained`.
    """

    def __init__(self, folder: Path | None = None, *, offline: bool | None = None) -> None:
        self.folder, self.offline = folder, offline
        self._given: dict[str, Encoder] = {}
        self._loaded: dict[tuple[str, str], Encoder] = {}
        # Version counters of the modules of given encoders at their last check.
        self._changes: dict[str, int] = {}

    def __deepcopy__(self, memo: object) -> "LoadedEncoders":
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes load encoders again, since models of other libraries may not be picklable.
        return self.__dict__ | {"_given": {}, "_loaded": {}, "_changes": {}}

    def add(self, encoder: Encoder) -> None:
        self._given[encoder.fingerprint] = encoder
        self._changes[encoder.fingerprint] = changes_of(encoder)

    def get(self, name: str, reference: Mapping[str, Any], device: "torch.device") -> Encoder:
        """Return the encoder of a modality; at its first use, its features are compared with the stored witness."""
        fingerprint = str(reference["fingerprint"])
        self.check_given(name, reference)
        found = self._loaded.get((fingerprint, str(device)))
        if found is None:
            found = self._checked(name, reference) or self._load(name, reference, device)
            self._loaded[fingerprint, str(device)] = found
        return found

    def _checked(self, name: str, reference: Mapping[str, Any]) -> Encoder | None:
        encoder = self.given(reference)
        if encoder is not None and reference.get("witness") is not None:
            with naming(name):
                check_witness(encoder, reference["witness"], packages=reference.get("packages"))
        return encoder

    def given(self, reference: Mapping[str, Any]) -> Encoder | None:
        """Return the encoder that the caller gave for a reference, if any."""
        return self._given.get(str(reference["fingerprint"]))

    def check_given(self, name: str, reference: Mapping[str, Any]) -> None:
        """Raise DataError if the weights of the module of a given encoder have changed since it was given.

        The weights are compared only if they may have changed, since a comparison reads all of them.
        """
        encoder = self.given(reference)
        if encoder is not None and self._changes.get(encoder.fingerprint) != (changes := changes_of(encoder)):
            with naming(name):
                check_unchanged(encoder)
            self._changes[encoder.fingerprint] = changes

    def inside_folder(self, reference: Mapping[str, Any]) -> Path | None:
        """Return the folder with the files of an encoder or an adapter that is stored inside the space."""
        if self.folder is None or not has_files(reference):
            return None
        folder = self.folder / ENCODERS / inside_name(reference)
        # An encoder that was trained later and given to this space is not in its folder.
        return None if self.given(reference) is not None and not folder.is_dir() else folder

    def _load(self, name: str, reference: Mapping[str, Any], device: "torch.device") -> Encoder:
        if reference["kind"] == MODULE:
            raise ConfigError(
                f"the encoder of {name!r} is a module, whose code is not stored in the space, so {name!r} takes only "
                f"features (B, {reference['dim']}); to encode raw media, pass the module wrapped by "
                f"`unialign.encoders.wrap` as encoders={{{name!r}: encoder}} of Space.from_pretrained"
            )
        folder = self.inside_folder(reference)
        if folder is not None:
            read_inside(folder, reference)
        elif has_files(reference) or "adapter" in reference:
            raise DataError(
                f"the encoder of {name!r}, {described(reference)}, was trained, and its weights are not stored in this "
                f"space; pass encoders={{{name!r}: encoder}}, such as `encoder({name!r})` of the space that it was "
                f"trained with, to Space.from_pretrained or with_encoders"
            )
        with naming(name):
            return load(reference, device=device, offline=self.offline, folder=folder)


def check_references(encoders: Any, dims: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    if encoders is None:
        return {}
    if not isinstance(encoders, Mapping):
        raise ConfigError(f"encoders must map modalities to references of encoders, got {encoders!r:.80}")
    check_names(encoders, dims, "encoders")
    for name, reference in encoders.items():
        try:
            check_reference(reference, f"encoders[{name!r}]")
        except DataError as error:
            raise ConfigError(f"{error}; use `encoder.reference` of an encoder") from None
        _check_entries(name, reference)
        if reference["dim"] != dims[name]:
            raise ConfigError(
                f"the encoder of {name!r} returns features of dim {reference['dim']}, but the space expects dim "
                f"{dims[name]}; use the encoder that computed the features of the space"
            )
    return {name: dict(encoders[name]) for name in dims if name in encoders}


def _check_entries(name: str, reference: Mapping[str, Any]) -> None:
    """Check the types of entries, since a fingerprint can be computed for any values."""
    what = f"the reference of the encoder of {name!r}"
    check_choice(f"`media` of {what}", reference["media"], KINDS)
    check_integer(f"`batch_size` of {what}", reference.get("batch_size", 1), low=1)
    for key in ("kind", "name"):
        if not isinstance(reference[key], str):
            raise ConfigError(f"`{key}` of {what} must be a string, got {reference[key]!r:.80}")
    for key in _MAPPINGS:
        if not isinstance(reference.get(key, {}), Mapping):
            raise ConfigError(f"`{key}` of {what} must be an object, got {reference[key]!r:.80}")
    witness = reference.get("witness", [])
    if not isinstance(witness, list) or not all(isinstance(number, float | int) for number in witness):
        raise ConfigError(f"`witness` of {what} must be a list of numbers, got {witness!r:.80}")


def set_encoders(space: "Space", encoders: Any) -> None:
    """Set the encoders of modalities: an encoder, its name, its reference, or None to remove it."""
    if not isinstance(encoders, Mapping):
        raise ConfigError(f"encoders must map modalities to encoders, got {encoders!r:.80}")
    check_names(encoders, space.dims, "encoders")
    references = dict(space.encoders)
    for name, given in encoders.items():
        before = references.pop(name, None)
        if given is None:
            continue
        encoder = _encoder(name, given, before, space)
        if before is not None and encoder is not None:
            encoder = _restored(name, encoder, before, space)
        references |= check_references({name: given if encoder is None else encoder.reference}, space.dims)
        if before is not None:
            check_same_encoder(name, before, references[name], "the given encoder is")
            # Keep the witness of the features that the space was made from.
            references[name] = before
        if encoder is not None:
            space._loaded_encoders.add(encoder)
    space.encoders = {name: references[name] for name in space.dims if name in references}


def check_same_encoder(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], what: str) -> None:
    if ours["fingerprint"] != theirs["fingerprint"]:
        advice = "features of different encoders are not comparable"
        if is_same_form(ours, theirs):
            advice = (
                "both have the same architecture, but one was trained, so their features are not comparable; use the "
                "encoders of the space, or embed the data with them"
            )
        raise DataError(
            f"the space was made from features of {name!r} by {described(ours)}, but {what} {described(theirs)}; "
            f"{advice}"
        )


def check_encoders(space: "Space", store: "EmbeddingStore") -> None:
    """Raise DataError if a column of a store was computed by a different encoder than that of the space."""
    shared = [name for name in space.encoders if name in store.columns]
    for name, reference in references_of(store, shared).items():
        check_same_encoder(name, space.encoders[name], reference, f"the column of {store.name!r} has features by")


def folder_of(space: "Space") -> Path | None:
    """Return the folder from which a space was loaded, or None."""
    return space._loaded_encoders.folder


def described(reference: Mapping[str, Any]) -> str:
    """Return the name of an encoder and the start of its fingerprint, for messages."""
    revision = f"@{reference['revision']}" if reference.get("revision") else ""
    adapter = " with an adapter" if "adapter" in reference else ""
    fingerprint = str(reference["fingerprint"])[:12]
    return f"{reference['kind']}:{reference['name']}{revision}{adapter} (fingerprint {fingerprint})"


def _encoder(name: str, given: Any, before: Mapping[str, Any] | None, space: "Space") -> Encoder | None:
    if isinstance(given, Mapping):
        return None
    if isinstance(given, str | os.PathLike):
        media = None if before is None else before["media"]
        return create(
            os.fspath(given), media=media, device=space._like().device, offline=space._loaded_encoders.offline
        )
    if isinstance(given, Encoder):
        return given
    raise ConfigError(
        f"the encoder of {name!r} must be an encoder of `unialign.encoders`, its name or its reference, got "
        f"{type(given).__name__}; `unialign.encoders.wrap` makes an encoder of a module"
    )


def _restored(name: str, encoder: Encoder, reference: Mapping[str, Any], space: "Space") -> Encoder:
    """Load the trained weights of a module, which are stored in the space, into the given module."""
    folder = space._loaded_encoders.inside_folder(reference)
    if folder is None or reference["kind"] != MODULE or encoder.fingerprint == reference["fingerprint"]:
        return encoder
    read_inside(folder, reference)
    with naming(name):
        return restored(encoder, reference, folder) or encoder


@contextmanager
def naming(name: str, done: str = "used") -> Iterator[None]:
    """Name the modality in the errors of its encoder."""
    try:
        yield
    except (ConfigError, DataError, MissingDependencyError) as error:
        kind = next(kind for kind in (ConfigError, DataError, MissingDependencyError) if isinstance(error, kind))
        raise kind(f"the encoder of {name!r} cannot be {done}: {error}") from error
