"""Settings with a fixed list of values."""

from typing import Literal

__all__ = [
    "Flips",
    "Head",
    "InputNorm",
    "Mix",
    "Network",
    "Precision",
    "ProgressMode",
    "Resume",
    "Split",
    "WhiteningMode",
]

Flips = Literal["none", "horizontal"]
Head = Literal["linear", "mlp"]
InputNorm = Literal["standardize", "unit", "none"]
Mix = Literal["mean", "unnormalized_mean", "frechet_mean"]
Network = Literal["mlp", "unet"]
Precision = Literal["auto", "fp32", "bf16"]
ProgressMode = Literal["auto", "bar", "lines", "none"]
Resume = Literal["never", "auto", "required"]
Split = Literal["train", "val", "test"]
WhiteningMode = Literal["whiten", "center"]
