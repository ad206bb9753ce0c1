"""The computation of one modality as a module of tensors only, which torch.export can trace.

Shapes: `B` rows, `W` dimension of the features, `D` dimension of the space.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unialign.encoders import Encoder, Prepared
from unialign.errors import ConfigError
from unialign.space._normalizer import divide_by_norm
from unialign.space._probe_media import probe_media

if TYPE_CHECKING:
    from unialign.space._space import Space

# Batches with which the exported files are compared with the space, and the batch that is traced.
CHECKED_BATCHES, _TRACED = (1, 17), 2
_SHORT, _LONG = 4, 7


@dataclass(frozen=True, eq=False)
class Exported:
    """A module to export.

    Attributes:
        module: maps the inputs, in order, to unit rows (B, D).
        inputs: names of the inputs.
        dynamic: the axes of each input whose length varies, and their names.
        example: inputs with which the module is traced.
        checks: inputs with which the exported file is compared with the module.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    dynamic: tuple[dict[int, str], ...]
    example: tuple[Tensor, ...]
    checks: tuple[tuple[Tensor, ...], ...]


class _Head(nn.Module):
    def __init__(self, space: "Space", name: str) -> None:
        super().__init__()
        place = space.modalities.index(name)
        self.stages = nn.Sequential(space.features[place], space.heads[place], space.outputs[place])

    def forward(self, *inputs: Tensor) -> Tensor:
        return divide_by_norm(self.stages(*inputs))


class _EncoderAndHead(nn.Module):
    def __init__(self, encoder: Encoder, names: Sequence[str], head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.names, self.head = encoder, tuple(names), head
        # Registered here, so that its weights are part of the exported file.
        self.module = encoder.module

    def forward(self, *inputs: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.encoder.encode(dict(zip(self.names, inputs, strict=True))))
        return embedding


def exported_head(space: "Space", name: str) -> Exported:
    rng = torch.Generator().manual_seed(0)
    dim = space.dims[name]
    rows = [torch.randn(count, dim, generator=rng) for count in (_TRACED, *CHECKED_BATCHES)]
    example, *checks = [(x_BW,) for x_BW in rows]
    module = _Head(copy.deepcopy(space).float().cpu(), name).requires_grad_(False)
    return Exported(module, ("features",), ({0: "batch"},), example, tuple(checks))


def exported_encoder(space: "Space", name: str, encoder: Encoder) -> Exported:
    if encoder.reference["kind"] != "builtin":
        raise ConfigError(
            f"the encoder {encoder.reference['kind']}:{encoder.reference['name']} of {name!r} cannot be exported, "
            f"since it is not built in; leave {name!r} out of modalities, or export the head without the encoder"
        )
    if encoder.module is not None and any(tensor.device.type != "cpu" for tensor in encoder.module.parameters()):
        raise ConfigError(f"the encoder of {name!r} is not on the CPU; move its module to the CPU to export it")
    short, long = (_batch(encoder, _TRACED, seed=0, longest=longest) for longest in (_SHORT, _LONG))
    names = tuple(short)
    dynamic = tuple(_dynamic_axes(key, short[key], long[key]) for key in names)
    checks = tuple(
        tuple(_batch(encoder, count, seed=count, longest=longest).values())
        for count in CHECKED_BATCHES
        for longest in (_SHORT, _LONG)
    )
    head = exported_head(space, name).module
    return Exported(_EncoderAndHead(encoder, names, head), names, dynamic, tuple(long.values()), checks)


def _batch(encoder: Encoder, count: int, *, seed: int, longest: int) -> dict[str, Tensor]:
    media = probe_media(encoder, count, seed=seed, longest=longest)
    prepared: list[Prepared] = [encoder.prepare(value) for value in media]
    return encoder.collate(prepared)


def _dynamic_axes(name: str, one: Tensor, other: Tensor) -> dict[int, str]:
    axes = {0: "batch"}
    return axes | {axis: f"{name}_{axis}" for axis in range(1, one.ndim) if one.shape[axis] != other.shape[axis]}
