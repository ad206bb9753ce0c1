"""Encode decoded media in fixed batches.

Shapes: `n` items, `D` length of the features.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.encoders._encoder import Encoder, Prepared
from unialign.encoders._reference import BATCH_SIZE
from unialign.media import Media

__all__ = ["encode_media", "encode_prepared"]


def encode_media(encoder: Encoder, media: Sequence[Media | None], *, batch_size: int = BATCH_SIZE) -> Tensor:
    """Compute the features of decoded media, without gradients and in evaluation mode.

    Args:
        media: n media values as returned by `media.load_cell` with `encoder.decoding`; None for absent ones.
        batch_size: items of a batch. Texts are first sorted by length, so that a batch has little padding.

    Returns:
        Features of shape (n, D), float32 on the CPU; rows of absent media are zero.

    Raises:
        ConfigError: batch_size is not a positive integer.
    """
    return encode_prepared(
        encoder, [None if value is None else encoder.prepare(value) for value in media], batch_size=batch_size
    )


def encode_prepared(encoder: Encoder, prepared: Sequence[Prepared | None], *, batch_size: int = BATCH_SIZE) -> Tensor:
    """Compute the features of media on which `encoder.prepare` was already called; otherwise like `encode_media`.

    For media other than text, the result for a whole sequence is equal to that for parts of it, if the length of each
    part but the last is a multiple of batch_size.
    """
    check_integer("batch_size", batch_size, low=1)
    features = torch.zeros(len(prepared), encoder.dim)
    order = list(range(len(prepared)))
    if encoder.media == "text":
        order.sort(key=lambda place: _length(prepared[place]))
    with _evaluating(encoder.module), torch.inference_mode(), _full_precision():
        for start in range(0, len(order), batch_size):
            batch = {place: found for place in order[start : start + batch_size] if (found := prepared[place])}
            if batch:
                encoded = encoder.encode(encoder.collate(list(batch.values())))
                features[list(batch)] = encoded.float().cpu()
    return features


@contextmanager
def _full_precision() -> Iterator[None]:
    """By default, convolutions on a GPU round float32 to 10 bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _evaluating(module: nn.Module | None) -> Iterator[None]:
    """Restore the mode of each inner module, since some may be kept in evaluation mode."""
    modes = [] if module is None else [(inner, inner.training) for inner in module.modules()]
    try:
        if module is not None:
            module.eval()
        yield
    finally:
        for inner, training in modes:
            inner.training = training


def _length(prepared: Prepared | None) -> int:
    return 0 if prepared is None else max((array.size for array in prepared.values()), default=0)
