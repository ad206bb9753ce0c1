"""Use a PyTorch module as an encoder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unialign._checks import check_choice, check_integer, check_text, one_line
from unialign.encoders._built import Batch, BuiltEncoder, stack
from unialign.encoders._encoder import Encoder, Prepare, Prepared
from unialign.encoders._names import EncoderName
from unialign.encoders._reference import make_reference
from unialign.encoders._state import state_digest, write_state
from unialign.errors import ConfigError, ShapeError, UniAlignError
from unialign.media import KINDS, Decoding, Kind

__all__ = ["wrap"]


def wrap(
    module: nn.Module,
    *,
    media: Kind,
    dim: int,
    prepare: Prepare,
    collate: Callable[[Sequence[Prepared]], Batch] | None = None,
    decoding: Decoding | None = None,
    name: str | None = None,
    version: int = 1,
    license: str = "unknown",
    example: Any = None,
) -> Encoder:
    """Use a PyTorch module as an encoder.

    A space that is saved with this encoder stores its fingerprint and, if it was trained with the space, its tensors.
    After loading, pass an encoder of the module again to encode raw media; trained tensors are loaded into the module.

    Args:
        module: called with the entries of a batch as keyword arguments; returns features of shape (n, D).
        media: kind of media.
        dim: length D of the features.
        prepare: function of one decoded media value that returns a dictionary of NumPy arrays. To be used by worker
            processes, it must be picklable: a function or an instance of a class at the top level of a module.
        collate: function of a list of n such dictionaries that returns a dictionary of tensors. By default, arrays of
            equal shapes are stacked.
        decoding: options for the decoder.
        name: name in messages and references; by default the name of the class of the module.
        version: number to increase if `prepare` or `collate` changes; it is part of the fingerprint.
        license: SPDX identifier of the license of the weights.
        example: a decoded media value, the input of the witness; by default one that fits the kind of media. Arrays
            have the length `decoding.dim`, or else D.

    Raises:
        ConfigError: an argument is invalid.
    """
    if not isinstance(module, nn.Module):
        raise ConfigError(f"wrap expects a torch.nn.Module, got {module!r}")
    check_choice("kind of media", media, KINDS)
    check_integer("dim", dim, low=1)
    check_integer("version", version, low=1)
    check_text("license", license)
    if not callable(prepare):
        raise ConfigError(f"prepare must be a function, got {prepare!r}")
    named = type(module).__name__ if name is None else name
    check_text("name", named)
    decoded = Decoding() if decoding is None else decoding
    reference = make_reference(
        EncoderName("module", named),
        media=media,
        dim=dim,
        architecture={"class": f"{type(module).__module__}.{type(module).__qualname__}", "version": version},
        prepare=_describe(prepare),
        decoding=decoded,
        weights={"state": state_digest(module)},
        license=license,
        packages=("torch",),
    )

    def forward(batch: Batch) -> Tensor:
        try:
            features = module(**batch)
        except (UniAlignError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a user's module may raise any exception
            entries = ", ".join(f"{key} {tuple(value.shape)}" for key, value in batch.items())
            raise ConfigError(
                f"the module {named!r}, the encoder of {media}, raises {type(error).__name__}: {one_line(error)}; it "
                f"is called with the keyword arguments {entries} and must return features (n, {dim})"
            ) from error
        if not isinstance(features, Tensor):
            raise ShapeError(
                f"the module {named!r}, the encoder of {media}, returned {type(features).__name__}, expected a tensor "
                f"of shape (n, {dim}); select the features"
            )
        if features.is_complex():
            raise ShapeError(
                f"the module {named!r}, the encoder of {media}, returned complex features ({features.dtype}); return "
                "real numbers"
            )
        return features

    return BuiltEncoder(
        reference,
        decoding=decoded,
        prepare=prepare,
        collate=stack if collate is None else collate,
        forward=forward,
        module=module,
        example=example,
        write=lambda folder: write_state(module, folder),
    )


def _describe(prepare: Any) -> Mapping[str, Any]:
    describe = getattr(prepare, "to_json", None)
    if describe is not None:
        described: Mapping[str, Any] = describe()
        return described
    target = prepare if hasattr(prepare, "__qualname__") else type(prepare)
    return {"function": f"{target.__module__}.{target.__qualname__}"}
