"""Compare an encoder with an earlier version of it by the features of fixed inputs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unialign.encoders._encode import encode_media
from unialign.encoders._encoder import Encoder
from unialign.encoders._examples import example_media
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError

__all__ = ["check_witness", "example_inputs", "rounded", "witness"]

_NUMBERS = 64
# Bounds on the largest difference divided by the root mean square of the stored numbers.
_EQUAL, _CLOSE = 1e-3, 0.02


def witness(encoder: Encoder) -> Tensor:
    """Compute 64 features of fixed synthetic inputs, to detect when the same encoder computes different features.

    Returns:
        Tensor of shape (64,), float32 on the CPU.

    Raises:
        ConfigError, ShapeError, NonFiniteError: the encoder does not accept the inputs; see `encode_media`.
    """
    try:
        features = encode_media(encoder, example_inputs(encoder)).flatten()
    except (ConfigError, ShapeError, NonFiniteError) as error:
        raise type(error)(
            f"the features of example inputs, which identify the encoder when it is loaded, cannot be computed: "
            f"{error}; if the encoder needs other inputs, pass wrap(..., example=value)"
        ) from error
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
    try:
        expected = torch.as_tensor(stored, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError, OverflowError):  # torch raises several exceptions for other types
        expected = torch.empty(0)
    if expected.numel() != _NUMBERS or not bool(expected.isfinite().all()):
        raise DataError(f"the stored witness of an encoder must have {_NUMBERS} finite numbers, got {stored!r:.200}")
    scale = float(expected.square().mean().sqrt())
    difference = float((witness(encoder).double() - expected).abs().max()) / max(scale, 1e-30)
    if difference <= _EQUAL:
        return difference
    reference = encoder.reference
    now = ", ".join(f"{name} {version}" for name, version in reference.get("packages", {}).items()) or "none"
    before = "" if packages is None else " instead of " + ", ".join(f"{n} {v}" for n, v in packages.items())
    message = (
        f"the encoder {reference['kind']}:{reference['name']} computes different features than when its reference was "
        f"saved: the relative difference is {difference:.2g}; the installed packages are {now}{before}"
    )
    if not difference <= _CLOSE:
        raise DataError(f"{message}; install the earlier versions, or embed the data again")
    warnings.warn(message, stacklevel=2)
    return difference


def rounded(values: Tensor) -> list[float]:
    """Keep the digits of float32."""
    return [float(f"{value:.7g}") for value in values.tolist()]


def example_inputs(encoder: Encoder) -> list[Any]:
    example = getattr(encoder, "example", None)
    return example_media(encoder.media, encoder.decoding, encoder.dim) if example is None else [example]
