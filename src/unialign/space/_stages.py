"""Build the modules of one modality: input normalization, kernel features or whitening, and head."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from unialign._checks import suggestion
from unialign.errors import ConfigError
from unialign.space._heads import make_head
from unialign.space._kernel_features import KernelFeatures
from unialign.space._normalizer import make_input_norm
from unialign.space._whitening import Whitening

if TYPE_CHECKING:
    from unialign.space._space import Space


def make_stage(
    space: "Space", name: str, in_dim: int, kernel_sizes: Mapping[str, Sequence[int]] | None
) -> tuple[nn.Module, nn.Module]:
    """Return the modules that `Space.prepare` and `Space.project` apply to a modality."""
    sizes = {"dim": space.dim, "hidden": space.hidden, "dropout": space.dropout}
    if name in space.frozen:
        return Whitening(space.frozen[name], in_dim, space.dim), nn.Identity()
    if name in space.linear:
        return make_input_norm("standardize", in_dim), make_head("linear", in_dim, **sizes)  # type: ignore[arg-type]
    norm = make_input_norm(space.input_norm, in_dim)
    if space.head != "kernel":
        return norm, make_head(space.head, in_dim, **sizes)  # type: ignore[arg-type]
    landmarks, kernel_dim = (1, 1) if kernel_sizes is None else kernel_sizes[name]
    kernel = KernelFeatures(in_dim, landmarks, kernel_dim, is_fitted=kernel_sizes is not None)
    return nn.Sequential(norm, kernel), make_head(space.head, kernel_dim, **sizes)  # type: ignore[arg-type]


def check_linear(names: Any, dims: Mapping[str, int], frozen: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"linear must be a list of modalities, got {names!r}")
    for name in names:
        if name not in dims:
            raise ConfigError(
                f"unknown modality {name!r} in linear; this space has {', '.join(dims)}{suggestion(name, dims)}"
            )
        if name in frozen:
            raise ConfigError(f"{name!r} is in frozen and in linear; a frozen modality has no head")
    return tuple(name for name in dims if name in names)
