"""Compare an encoder with an earlier one by their features of fixed inputs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign.encoders._encode import encode_media
from unialign.encoders._encoder import Encoder
from unialign.encoders._seeded import seeded_uniform
from unialign.errors import DataError
from unialign.media import Audio, Video

__all__ = ["check_witness", "rounded", "witness"]

_NUMBERS = 64
# Bounds on the largest difference divided by the root mean square of the stored numbers.
_EQUAL, _CLOSE = 1e-3, 0.02
_TEXTS = ("A red kite flies over the calm sea at night.", "two dogs", "Ünïcode, 3.14 & 日本語!")
_RATE = 16000


def witness(encoder: Encoder) -> Tensor:
    """Compute 64 features of fixed synthetic inputs, to detect that the same encoder computes other features.

    Returns:
        Tensor of shape (64,), float32 on the CPU.
    """
    features = encode_media(encoder, _inputs(encoder)).flatten()
    return features[torch.linspace(0, len(features) - 1, _NUMBERS).round().long()]


def check_witness(
    encoder: Encoder, stored: Sequence[float] | Tensor, *, packages: Mapping[str, str] | None = None
) -> float:
    """Compare the witness of an encoder with a stored one.

    Args:
        stored: the 64 numbers of `witness` at an earlier time.
        packages: versions of the packages at that time, for messages; by default those of the reference.

    Returns:
        The largest difference divided by the root mean square of the stored numbers. Above 1e-3, a warning is issued.

    Raises:
        DataError: the difference is above 0.02, or `stored` is not a list of 64 finite numbers.
    """
    expected = torch.as_tensor(stored, dtype=torch.float64).flatten()
    if expected.numel() != _NUMBERS or not bool(expected.isfinite().all()):
        raise DataError(f"the stored witness of an encoder must have {_NUMBERS} finite numbers, got {stored!r}")
    scale = float(expected.square().mean().sqrt())
    difference = float((witness(encoder).double() - expected).abs().max()) / max(scale, 1e-30)
    if difference <= _EQUAL:
        return difference
    reference = encoder.reference
    now = ", ".join(f"{name} {version}" for name, version in reference.get("packages", {}).items()) or "none"
    before = "" if packages is None else " instead of " + ", ".join(f"{n} {v}" for n, v in packages.items())
    message = (
        f"the encoder {reference['kind']}:{reference['name']} computes other features than when its reference was "
        f"saved: the relative difference is {difference:.2g}; the installed packages are {now}{before}"
    )
    if not difference <= _CLOSE:
        raise DataError(f"{message}; install the earlier versions, or embed the data again")
    warnings.warn(message, stacklevel=2)
    return difference


def rounded(values: Tensor) -> list[float]:
    """Return numbers for JSON, with the digits of float32."""
    return [float(f"{value:.7g}") for value in values.tolist()]


def _inputs(encoder: Encoder) -> list[Any]:
    example = getattr(encoder, "example", None)
    if example is not None:
        return [example]
    if encoder.media == "text":
        return list(_TEXTS)
    if encoder.media == "image":
        return [_picture(0), _picture(1)]
    if encoder.media == "video":
        frames = encoder.decoding.frames or 4
        return [Video(np.stack([_picture(place) for place in range(frames)]))]
    if encoder.media == "audio":
        return [_chirp(encoder.decoding.rate or _RATE)]
    dim = encoder.decoding.dim or encoder.dim
    return [4 * seeded_uniform((dim,), seed=11), np.abs(4 * seeded_uniform((dim,), seed=12))]


def _picture(number: int, height: int = 96, width: int = 128) -> Any:
    """Return a gradient with a bright disk and noise."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ramp = np.stack([x / width, y / height, 1 - x / width], -1) * 160
    disk = ((x - 40 - 8 * number) ** 2 + (y - 48) ** 2 < 24**2)[..., None] * np.float32([80, 20, 60])
    noise = 30 * seeded_uniform((height, width, 3), seed=number)
    return np.clip(ramp + disk + noise + 30, 0, 255).astype(np.uint8)


def _chirp(rate: int) -> Audio:
    """Return two seconds of a rising tone with harmonics and noise."""
    time = np.arange(2 * rate) / rate
    phase = 2 * np.pi * (200 * time + 300 * time**2)
    tone = 0.4 * np.sin(phase) + 0.2 * np.sin(3 * phase)
    return Audio((tone + 0.05 * seeded_uniform((len(time),), seed=3)).astype(np.float32), rate)
