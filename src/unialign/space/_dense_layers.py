"""Express a modality of a space as dense layers, the form in which other libraries store a head.

Shapes: `W` dimension of the features, `H` units of a layer, `D` dimension of the space.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unialign.errors import ConfigError
from unialign.space._normalizer import Standardize, UnitNorm
from unialign.space._output_affine import OutputAffine
from unialign.space._prepare import kernel_of
from unialign.space._whitening import Whitening

if TYPE_CHECKING:
    from unialign.space._space import Space


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """The map x -> activation(x weight' + bias) in float64; weight (H, W), bias (H,)."""

    weight: Tensor
    bias: Tensor
    gelu: bool = False

    def __call__(self, x_BW: Tensor) -> Tensor:
        y_BH = x_BW @ self.weight.mT + self.bias
        return nn.functional.gelu(y_BH) if self.gelu else y_BH

    def after_columns(self, scale_W: Tensor, shift_W: Tensor) -> "DenseLayer":
        """Fold the input transform scale x + shift into the layer."""
        return DenseLayer(self.weight * scale_W, self.weight @ shift_W + self.bias, self.gelu)


@dataclass(frozen=True, eq=False)
class DenseHead:
    """Layers of a modality before normalization; `output` follows a normalization to unit length."""

    unit_input: bool
    layers: tuple[DenseLayer, ...]
    output: DenseLayer | None = None


@torch.no_grad()
def dense_head(space: "Space", name: str) -> DenseHead:
    """Return the dense layers of a modality: standardization is folded into the first one, and whitening is a single
    layer.
    """
    place = space.modalities.index(name)
    stage, head = space.features[place], space.heads[place]
    if kernel_of(stage) is not None:
        raise ConfigError(
            f"the head of {name!r} is a kernel head, which dense layers cannot express; save the space in the format "
            f"'unialign', or train it with head='linear' or head='mlp'"
        )
    output = _output_layer(space.outputs[place])
    if isinstance(stage, Whitening):
        return DenseHead(False, (_whitening_layer(stage),), output)
    layers = _layers_of(head, name)
    if isinstance(stage, Standardize):
        mean_W, std_W = _exact(stage.mean), _exact(stage.std)
        layers[0] = layers[0].after_columns(1 / std_W, -mean_W / std_W)
    elif not isinstance(stage, UnitNorm | nn.Identity):
        raise ConfigError(f"the input normalization {type(stage).__name__} of {name!r} is not affine")
    return DenseHead(isinstance(stage, UnitNorm), tuple(layers), output)


def _whitening_layer(stage: Whitening) -> DenseLayer:
    axes_WD = _exact(stage.axes) / _exact(stage.scale)
    return DenseLayer(axes_WD.mT.contiguous(), -_exact(stage.mean) @ axes_WD)


def _output_layer(module: nn.Module) -> DenseLayer | None:
    if not isinstance(module, OutputAffine):
        return None
    return DenseLayer(_exact(module.weight).mT.contiguous(), _exact(module.bias))


def _layers_of(head: nn.Module, name: str) -> list[DenseLayer]:
    layers: list[DenseLayer] = []
    for module in head.children():
        if isinstance(module, nn.Linear):
            weight = _exact(module.weight)
            bias = weight.new_zeros(len(weight)) if module.bias is None else _exact(module.bias)
            layers.append(DenseLayer(weight, bias))
        elif isinstance(module, nn.GELU) and module.approximate == "none" and layers:
            layers[-1] = DenseLayer(layers[-1].weight, layers[-1].bias, gelu=True)
        elif not isinstance(module, nn.Dropout | nn.Identity):
            raise ConfigError(f"the layer {type(module).__name__} of the head of {name!r} is not a dense layer")
    return layers


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().double().cpu()
