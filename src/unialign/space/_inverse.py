"""Map embeddings of a space to features of a frozen modality.

Shapes: `B` rows, `D` dimension of the space.
"""

from typing import TYPE_CHECKING

from torch import Tensor

from unialign.batch import as_dense
from unialign.errors import ConfigError, ShapeError
from unialign.space._validation import check_names
from unialign.space._whitening import Whitening

if TYPE_CHECKING:
    from unialign.space._space import Space


def invert_frozen(space: "Space", name: str, z: Tensor) -> Tensor:
    check_names([name], space.dims, "name")
    module = space.features[space.modalities.index(name)]
    if name in space.output_affine:
        raise ConfigError(f"{name!r} has an output affine map, which is not inverted; use the space without it")
    if not isinstance(module, Whitening):
        frozen = ", ".join(map(repr, space.frozen)) or "none"
        raise ConfigError(
            f"{name!r} has a trained head, which cannot be inverted; frozen modalities: {frozen}. To invert it, "
            f"train a space with frozen={{{name!r}: 'whiten'}}"
        )
    z = as_dense(z, "z", f"(B, {space.dim})")
    if z.ndim != 2 or z.shape[1] != space.dim:
        raise ShapeError(f"z has shape {tuple(z.shape)}; expected (B, {space.dim})")
    return module.inverse_transform(z.to(module.mean))
