"""Encoders whose references describe the present weights of their modules."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save as safetensors_bytes

from unialign.encoders._built import BuiltEncoder, device_of
from unialign.encoders._create import load, save
from unialign.encoders._encoder import Encoder
from unialign.encoders._lora import adapter_tensors, has_effect, read_adapter
from unialign.encoders._reference import is_same_form
from unialign.encoders._state import read_state, state_digest
from unialign.encoders._tuning import count_change, described_encoder, has_trained_weights
from unialign.errors import ConfigError, DataError
from unialign.io import digest

__all__ = ["check_unchanged", "has_adapter", "own_encoder", "restored", "save_adapter", "trained_encoder"]


def trained_encoder(encoder: Encoder) -> Encoder:
    """Return an encoder of the same module whose fingerprint, reference and witness describe the present weights.

    An encoder whose weights did not change is returned as it is. If only an adapter was trained, `stored` of the
    reference is `adapter`, otherwise `inside`.

    Raises:
        ConfigError: the encoder is not of this package and has no method `save_files`.
    """
    if encoder.module is None:
        return encoder
    if not isinstance(encoder, BuiltEncoder):
        raise ConfigError(
            f"{described_encoder(encoder)} cannot describe its trained weights; wrap its module with "
            f"unialign.encoders.wrap"
        )
    write = save_adapter if has_adapter(encoder) else save
    with tempfile.TemporaryDirectory() as folder:
        reference = write(encoder, Path(folder))
    return encoder if reference["fingerprint"] == encoder.fingerprint else encoder.with_reference(reference)


def has_adapter(encoder: Encoder) -> bool:
    """Return whether an encoder differs only by an adapter from the encoder of `base(encoder.reference)`."""
    if not isinstance(encoder, BuiltEncoder) or encoder.module is None:
        return False
    return has_effect(encoder.module) and not has_trained_weights(encoder.module)


def save_adapter(encoder: Encoder, folder: Path) -> dict[str, Any]:
    """Write only the adapter of an encoder into a folder, and return a reference that names its base encoder."""
    assert isinstance(encoder, BuiltEncoder)
    return encoder.save_adapter(folder)


def own_encoder(encoder: Encoder) -> Encoder:
    """Return an encoder with the same weights and reference whose module is not shared, to be trained.

    Encoders that cannot be trained, and modules that were passed to `wrap`, are returned as they are.

    Raises:
        ConfigError: the encoder is not of this package.
        DataError: the encoder was trained since its fingerprint was computed.
    """
    if encoder.module is None or encoder.reference["kind"] == "module":
        return encoder
    if not isinstance(encoder, BuiltEncoder):
        raise ConfigError(
            f"{described_encoder(encoder)} cannot be copied; pass its name instead of an instance, or wrap its module "
            f"with unialign.encoders.wrap"
        )
    # The encoder reads its files again when it is saved.
    folder = tempfile.TemporaryDirectory()
    reference = save(encoder, Path(folder.name))
    if reference["fingerprint"] != encoder.fingerprint:
        raise DataError(_stale(encoder))
    loaded = load(reference, device=device_of(encoder.module), folder=Path(folder.name))
    assert isinstance(loaded, BuiltEncoder)
    own = loaded.with_reference(encoder.reference)
    own.files = folder
    return own


def check_unchanged(encoder: Encoder) -> None:
    """Raise DataError if the module was trained since the fingerprint of the encoder was computed.

    Changes by `fit` are always detected; changes by other code only for built-in encoders and wrapped modules.
    """
    module = encoder.module
    if module is None:
        return
    reference = encoder.reference
    state = reference.get("weights", {}).get("state")
    adapter = reference.get("adapter", {}).get("sha256")
    if has_effect(module) or adapter is not None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_tensors(module).items()}
        is_same = digest(safetensors_bytes(tensors)) == adapter
    elif state is not None and reference.get("dtype") == "float32":
        is_same = state_digest(module) == state
    else:
        is_same = not has_trained_weights(module) or trained_encoder(encoder).fingerprint == encoder.fingerprint
    if not is_same:
        raise DataError(_stale(encoder))


def restored(encoder: Encoder, reference: Mapping[str, Any], folder: Path) -> Encoder | None:
    """Load trained weights of a wrapped module, which a folder contains, into another module of the same architecture.

    Returns:
        An encoder with the given reference, or None if the architectures differ.

    Raises:
        DataError: a file is damaged or does not fit the module.
    """
    if not isinstance(encoder, BuiltEncoder) or encoder.module is None:
        return None
    if not is_same_form(encoder.reference, reference):
        return None
    what = described_encoder(encoder)
    files = reference.get("files", {})
    count_change(encoder.module)
    read_state(encoder.module, folder, files)
    if "adapter" in reference:
        read_adapter(encoder.module, reference["adapter"], folder, what)
    if {"state": state_digest(encoder.module)} != dict(reference["weights"]):
        raise DataError(f"the weights in {folder} are not those of the reference to {what}; save the space again")
    return encoder.with_reference(reference)


def _stale(encoder: Encoder) -> str:
    return (
        f"the weights of {described_encoder(encoder)} changed since its fingerprint {encoder.fingerprint[:12]} was "
        f"computed; use the encoder that unialign.encoders.trained_encoder returns, or that of the trained space, or "
        f"create the encoder again"
    )
