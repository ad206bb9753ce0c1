"""Settings with a fixed list of values."""

from typing import Literal

FusedSubsets = Literal["leave_one_out", "all"]
Head = Literal["linear", "mlp", "kernel"]
Init = Literal["random", "gcca", "ridge"]
InputNorm = Literal["standardize", "unit", "none"]
Mix = Literal["mean", "unnormalized_mean", "frechet_mean"]
MixtureMode = Literal["alternate", "blend"]
ProgressMode = Literal["auto", "bar", "lines", "none"]
Resume = Literal["never", "auto", "required"]
Split = Literal["train", "val", "test"]
WhiteningMode = Literal["whiten", "center"]
SpaceFormat = Literal["unialign", "sentence-transformers"]
ExportFormat = Literal["onnx", "torch"]
Inside = Literal["auto", "always", "never"]
OnError = Literal["raise", "absent"]
