"""Encode decoded media in fixed batches.

Shapes: `n` items, `D` length of the features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.encoders._encoder import Encoder, Prepared
from unialign.encoders._prepared_media import prepared_media
from unialign.encoders._reference import BATCH_SIZE
from unialign.errors import NonFiniteError, ShapeError
from unialign.media import Media

__all__ = ["encode_media", "encode_prepared", "evaluating"]


def encode_media(encoder: Encoder, media: Sequence[Media | None], *, batch_size: int = BATCH_SIZE) -> Tensor:
    """Compute the features of decoded media, without gradients and in evaluation mode.

    Args:
        media: n media values as returned by `media.load_cell` with `encoder.decoding`; None for absent ones.
        batch_size: number of items per batch. Texts are first sorted by length, so that a batch has little padding.

    Returns:
        Features of shape (n, D), float32 on the CPU; rows of absent media are zero.

    Raises:
        ConfigError: batch_size is not a positive integer, media is not a sequence of media, or a value is not decoded
            media of the encoder's kind.
        ShapeError: the encoder returns complex features, or features of a shape other than (rows of the batch, D).
        NonFiniteError: features are NaN or infinite.
    """
    features = encode_prepared(encoder, prepared_media(encoder, media), batch_size=batch_size)
    wrong_n = ~features.isfinite().all(1)
    if wrong_n.any():
        raise NonFiniteError(
            f"the encoder {encoder!r} computed NaN or infinite features for row {int(wrong_n.int().argmax())}; check "
            "the encoder and its dtype"
        )
    return features


def encode_prepared(encoder: Encoder, prepared: Sequence[Prepared | None], *, batch_size: int = BATCH_SIZE) -> Tensor:
    """Compute the features of media on which `encoder.prepare` was already called; otherwise like `encode_media`.

    For media other than text, the result for a whole sequence is equal to that for parts of it, if the length of each
    part but the last is a multiple of batch_size. Features may be NaN or infinite.
    """
    check_integer("batch_size", batch_size, low=1)
    features = torch.zeros(len(prepared), encoder.dim)
    order = list(range(len(prepared)))
    if encoder.media == "text":
        order.sort(key=lambda place: _length(prepared[place]))
    # Not inference mode, since modules may keep tensors that a later training step needs.
    with evaluating(encoder.module), torch.no_grad(), _full_precision():
        for start in range(0, len(order), batch_size):
            batch = {place: found for place in order[start : start + batch_size] if (found := prepared[place])}
            if batch:
                encoded = encoder.encode(encoder.collate(list(batch.values())))
                features[list(batch)] = _checked(encoder, encoded, len(batch)).float().cpu()
    return features


def _checked(encoder: Encoder, encoded: Any, rows: int) -> Tensor:
    if not isinstance(encoded, Tensor):
        raise ShapeError(
            f"the encoder {encoder!r} returned {type(encoded).__name__}, expected a tensor of shape "
            f"{(rows, encoder.dim)}; select the features"
        )
    if encoded.shape != (rows, encoder.dim):
        raise ShapeError(
            f"the encoder {encoder!r} returned features of shape {tuple(encoded.shape)} for {rows} items, expected "
            f"{(rows, encoder.dim)}; return one row of length dim per item"
        )
    if encoded.is_complex():
        raise ShapeError(f"the encoder {encoder!r} returned complex features ({encoded.dtype}); return real numbers")
    return encoded


@contextmanager
def _full_precision() -> Iterator[None]:
    """Disable autocast and TF32, with which convolutions on a GPU round float32 to 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def evaluating(module: nn.Module | None) -> Iterator[None]:
    """Set the evaluation mode; then restore the mode of each inner module, since some may already be in evaluation
    mode.
    """
    modes = [] if module is None else [(inner, inner.training) for inner in module.modules()]
    # torch selects kernels by `requires_grad` even without gradients, so features would depend on what was trained.
    frozen = [] if module is None else [one for one in module.parameters() if _can_require_gradient(one)]
    try:
        if module is not None:
            module.eval()
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for inner, training in modes:
            inner.training = training


def _can_require_gradient(parameter: nn.Parameter) -> bool:
    return not parameter.requires_grad and parameter.is_floating_point() and not parameter.is_inference()


def _length(prepared: Prepared | None) -> int:
    return 0 if prepared is None else max((array.size for array in prepared.values()), default=0)
