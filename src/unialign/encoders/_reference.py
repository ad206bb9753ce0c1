"""References of encoders: JSON objects that identify an encoder and rebuild it."""

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from unialign.encoders._names import EncoderName
from unialign.errors import ConfigError, DataError
from unialign.io import canonical_json, digest
from unialign.media import VERSIONS, Decoding, Kind

if TYPE_CHECKING:
    from unialign.data import EmbeddingStore

__all__ = [
    "BATCH_SIZE", "base", "check_reference", "fingerprint_of", "is_same_form", "make_reference", "references_of",
]  # fmt: skip

# Default batch size of `encode_media`.
BATCH_SIZE = 64
# Version of this package's encoder code; increment it with every change that alters features.
_CODE = 1
# Entries that do not affect the features.
_LEFT_OUT = ("name", "revision", "witness", "stored", "files", "license", "packages", "batch_size", "fingerprint")
# Entries that may differ between an encoder and its trained version.
_NOT_FORM = ("weights", "adapter", "witness", "stored", "files", "license", "packages", "batch_size", "fingerprint")
_REQUIRED = ("kind", "name", "media", "dim", "fingerprint")


def make_reference(
    spec: EncoderName,
    *,
    media: Kind,
    dim: int,
    architecture: Mapping[str, Any],
    prepare: Mapping[str, Any],
    decoding: Decoding,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[str, str] | None = None,
    dtype: str = "float32",
    license: str = "unknown",
    packages: Sequence[str] = (),
) -> dict[str, Any]:
    """Make a reference without a witness; `architecture` determines the computation besides the weights."""
    body = {
        "kind": spec.kind,
        "name": spec.name,
        "revision": spec.revision,
        "media": media,
        "dim": dim,
        "options": dict(options or {}),
        "architecture": dict(architecture),
        "decoding": {**decoding.to_json(), "version": VERSIONS[media]},
        "prepare": dict(prepare),
        "weights": dict(weights or {}),
        "code": _CODE,
        "dtype": dtype,
        "batch_size": BATCH_SIZE,
        "stored": "reference",
        "license": license,
        "packages": {name: _version(name) for name in packages},
    }
    return {**body, "fingerprint": fingerprint_of(body)}


def fingerprint_of(reference: Mapping[str, Any]) -> str:
    """Return the sha256 of the entries that determine the features."""
    return digest(canonical_json({key: value for key, value in reference.items() if key not in _LEFT_OUT}))


def check_reference(reference: object, where: str = "the reference") -> Mapping[str, Any]:
    """Return a reference unchanged; raise DataError if its entries do not match its fingerprint."""
    if not isinstance(reference, Mapping) or any(key not in reference for key in _REQUIRED):
        raise DataError(f"{where} is not a reference to an encoder; expected an object with {', '.join(_REQUIRED)}")
    try:
        expected = fingerprint_of(reference)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} is not a reference to an encoder: {error}") from None
    if reference["fingerprint"] != expected:
        raise DataError(
            f"{where} was altered: its fingerprint is {reference['fingerprint']}, but its entries give {expected}"
        )
    return reference


def references_of(store: "EmbeddingStore", modalities: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the references of the encoders that made the columns of a store.

    Args:
        modalities: columns to look at; by default the default modalities of the store.

    Returns:
        Mapping of column to reference, without the columns whose provenance has no valid reference.

    Raises:
        ConfigError: the store has no such column.
    """
    chosen = store.modalities if modalities is None else tuple(modalities)
    columns: Any = store.provenance.get("columns", {})
    found: dict[str, dict[str, Any]] = {}
    for name in chosen:
        dim = store.dim(name)
        entry = columns.get(name)
        reference = entry.get("reference") if isinstance(entry, Mapping) else None
        try:
            checked = check_reference(reference)
        except DataError:
            continue
        if checked["dim"] == dim and checked["fingerprint"] == entry.get("fingerprint"):
            found[name] = dict(checked)
    return found


def base(reference: Mapping[str, Any]) -> dict[str, Any]:
    """Return the reference to the base encoder of an adapter, as it was before training."""
    others = ("adapter", "witness", "files", "fingerprint")
    body = {key: value for key, value in reference.items() if key not in others} | {"stored": "reference"}
    return {**body, "fingerprint": fingerprint_of(body)}


def is_same_form(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two encoders differ at most in their weights."""
    ours, theirs = ({k: v for k, v in entry.items() if k not in _NOT_FORM} for entry in (one, other))
    return ours == theirs


def name_of(reference: Mapping[str, Any]) -> EncoderName:
    """Return the name of the encoder, with all options."""
    options = {key: _option_text(value) for key, value in reference.get("options", {}).items() if value is not None}
    return EncoderName(str(reference["kind"]), str(reference["name"]), reference.get("revision"), options)


def _option_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise ConfigError(f"an option of an encoder must be text or a number, got {value!r}")
    return str(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
