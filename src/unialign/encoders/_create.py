"""Create encoders by name or from a reference, and save their files. Importing this module does not import torch."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unialign._checks import check_choice, suggestion
from unialign.encoders._encoder import Encoder
from unialign.encoders._kinds import find_kind
from unialign.encoders._names import parse_name
from unialign.encoders._reference import base, check_reference, name_of
from unialign.encoders._request import chosen_device
from unialign.errors import ConfigError, DataError
from unialign.media import KINDS, Kind

if TYPE_CHECKING:
    import torch

__all__ = ["create", "load", "resolve", "save"]

DTYPES = ("float32", "float16", "bfloat16")


def create(
    name: "str | Encoder",
    *,
    media: Kind | None = None,
    device: "str | torch.device" = "auto",
    dtype: str = "float32",
    offline: bool | None = None,
) -> Encoder:
    """Create an encoder by name. An instance is returned unchanged.

    Args:
        name: `kind:name`, `kind:name@revision` or `kind:name?key=value`, such as `builtin:chars` or
            `transformers:openai/clip-vit-base-patch32?tower=vision`. A name that starts with `.`, `~` or `/` is a
            folder.
        media: kind of media to encode; required only if the encoder accepts several and the name has no option for it.
        device: device of the module; `auto` is CUDA if available, else the CPU.
        dtype: floating-point type in which the module computes: `float32`, `float16` or `bfloat16`. Features are always
            float32.
        offline: raise an error instead of downloading from the Hugging Face Hub. Default: the value of the environment
            variable `HF_HUB_OFFLINE`.

    Examples:
        >>> create("builtin:chars").dim
        256

    Raises:
        ConfigError: unknown kind, name or option, or an architecture that is not supported.
        DataError: a file of the encoder is missing or has an unexpected sha256.
        MissingDependencyError: a required package is not installed.
    """
    if not isinstance(name, str):
        return _check_encoder(name, "the encoder")
    spec = parse_name(name)
    _check_options(media, dtype)
    factory = find_kind(spec.kind).factory
    made = factory(
        spec, media=media, device=chosen_device(device), dtype=dtype, offline=offline, folder=None, weights=None
    )
    return _check_encoder(made, f"the encoder {name!r}")


def load(
    reference: Mapping[str, Any],
    *,
    device: "str | torch.device" = "auto",
    offline: bool | None = None,
    folder: Path | None = None,
) -> Encoder:
    """Load the encoder that a reference describes.

    The sha256 of each file is checked before the file is used. Then the fingerprint and the witness are compared.

    Args:
        reference: an `Encoder.reference`.
        device, offline: see `create`.
        folder: folder written by `save`, to read the files from instead of the location in the reference.

    Raises:
        DataError: the reference was altered, a file is missing or has another sha256, the fingerprint of the loaded
            encoder differs, or the installed packages compute different features (see `check_witness`).
        ConfigError: the reference is to a module that was passed to `wrap`.
        MissingDependencyError: a required package is not installed.
    """
    from unialign.encoders._witness import check_witness

    checked = check_reference(reference)
    if checked["kind"] == "module":
        raise ConfigError(
            f"the module {checked['name']!r}, which computed the features of {checked['media']}, was passed to wrap "
            f"and is not saved; pass the same encoder again"
        )
    if folder is None and (checked.get("stored") == "inside" or "adapter" in checked):
        what = "has an adapter" if "adapter" in checked else "was saved"
        raise DataError(
            f"the encoder {checked['kind']}:{checked['name']} {what} in a folder; pass the folder, as in "
            f"load(reference, folder=folder)"
        )
    spec = name_of(checked)
    _check_options(checked["media"], checked.get("dtype"))
    made = find_kind(parse_name(str(spec)).kind).factory(
        spec,
        media=checked["media"],
        device=chosen_device(device),
        dtype=checked["dtype"],
        offline=offline,
        folder=None if folder is None or checked.get("stored") == "adapter" else Path(folder),
        weights={**checked.get("weights", {}), **checked.get("files", {})},
    )
    encoder = _check_encoder(made, f"the encoder {str(spec)!r}")
    # The fingerprint of the base encoder of an adapter.
    if encoder.fingerprint != base(checked)["fingerprint"]:
        raise DataError(
            f"the encoder {str(spec)!r} differs from that of the reference: {_differences(encoder.reference, checked)}"
        )
    if "adapter" in checked:
        encoder = _with_adapter(encoder, checked, folder, f"the encoder {str(spec)!r}")
    if checked.get("witness") is not None:
        check_witness(encoder, checked["witness"], packages=checked.get("packages"))
    return encoder


def resolve(
    choices: "Mapping[str, str | Encoder]",
    kinds: Mapping[str, Kind],
    *,
    device: "str | torch.device" = "auto",
    dtype: str = "float32",
    offline: bool | None = None,
    dims: Mapping[str, int] | None = None,
) -> dict[str, Encoder]:
    """Create the encoder of each modality; modalities with equal names of encoders share one instance.

    Args:
        choices: mapping of modality to encoder or name. A key may be a pattern such as `speech_*`; a key without `*`,
            `?` or `[` takes precedence over patterns.
        kinds: kind of media of each modality.
        device, dtype, offline: see `create`.
        dims: length of the vectors of the modalities of kind `array`, for encoders without option `dim`.

    Returns:
        Mapping of modality to encoder, in the order of `kinds`.

    Raises:
        ConfigError: a key matches no modality, two patterns match one modality, a modality has no encoder, or its
            encoder is for another kind of media.
    """
    loaded: dict[tuple[str, Kind], Encoder] = {}
    resolved: dict[str, Encoder] = {}
    for modality, (key, choice) in _match(choices, kinds).items():
        kind = kinds[modality]
        if isinstance(choice, str):
            name = _with_dim(choice, kind, None if dims is None else dims.get(modality))
            if (name, kind) not in loaded:
                loaded[name, kind] = create(name, media=kind, device=device, dtype=dtype, offline=offline)
            encoder = loaded[name, kind]
        else:
            encoder = _check_encoder(choice, f"the encoder of {key!r}")
        if encoder.media != kind:
            raise ConfigError(f"the modality {modality!r} is of kind {kind}, but its encoder encodes {encoder.media}")
        resolved[modality] = encoder
    return resolved


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


def _match(choices: "Mapping[str, str | Encoder]", kinds: Mapping[str, Kind]) -> "dict[str, tuple[str, str | Encoder]]":
    if not isinstance(choices, Mapping):
        raise ConfigError(f"encoders must be a mapping of modality to encoder, got {choices!r}")
    patterns = [key for key in choices if key not in kinds]
    used = {key for key in choices if key in kinds}
    matched: dict[str, tuple[str, str | Encoder]] = {}
    for modality in kinds:
        keys = [modality] if modality in choices else [key for key in patterns if fnmatchcase(modality, key)]
        if not keys:
            raise ConfigError(
                f"the modality {modality!r} has no encoder; encoders were given for {', '.join(choices) or 'none'}"
            )
        if len(keys) > 1:
            raise ConfigError(f"the modality {modality!r} matches both {keys[0]!r} and {keys[1]!r} of the encoders")
        used.add(keys[0])
        matched[modality] = keys[0], choices[keys[0]]
    if unused := [key for key in choices if key not in used]:
        raise ConfigError(
            f"an encoder was given for {unused[0]!r}, but the modalities are {', '.join(kinds)}"
            f"{suggestion(unused[0], kinds)}"
        )
    return matched


def _with_dim(name: str, kind: Kind, dim: int | None) -> str:
    spec = parse_name(name)
    if kind != "array" or dim is None or spec.kind != "builtin" or "dim" in spec.options:
        return name
    return f"{name}{'&' if spec.options else '?'}dim={dim}"


def _check_options(media: object, dtype: object) -> None:
    if media is not None:
        check_choice("kind of media", media, KINDS)
    check_choice("dtype", dtype, DTYPES)


def _check_encoder(encoder: Any, what: str) -> Encoder:
    from unialign.encoders._built import BuiltEncoder  # imports torch

    # Check the class first: in Python 3.11, `isinstance` with a protocol reads all attributes, and one of them embeds
    # example inputs.
    if not isinstance(encoder, BuiltEncoder) and not isinstance(encoder, Encoder):
        raise ConfigError(
            f"{what} must be a name or have the attributes of unialign.encoders.Encoder, got {encoder!r}; for a "
            f"PyTorch module use unialign.encoders.wrap"
        )
    return encoder


def _with_adapter(encoder: Encoder, reference: Mapping[str, Any], folder: Path | None, what: str) -> Encoder:
    from unialign.encoders._built import BuiltEncoder  # imports torch
    from unialign.encoders._lora import read_adapter

    if not isinstance(encoder, BuiltEncoder) or encoder.module is None:
        raise DataError(f"{what} cannot have an adapter, since it has no trainable weights")
    assert folder is not None
    read_adapter(encoder.module, reference["adapter"], Path(folder), what)
    entries = {key: value for key, value in encoder.reference.items() if key != "witness"}
    kept = {key: reference[key] for key in ("adapter", "stored", "files", "fingerprint") if key in reference}
    return encoder.with_reference(entries | kept)


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    keys = ("media", "dim", "options", "architecture", "decoding", "prepare", "weights", "code", "dtype")
    changed = [key for key in keys if found.get(key) != expected.get(key)]
    return "; ".join(f"{key} is {found.get(key)!r}, expected {expected.get(key)!r}" for key in changed) or "unknown"
