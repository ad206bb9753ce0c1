"""Flops and activations of transformer encoders, and constants of an accelerator, for comparison with the losses."""

from typing import NamedTuple

__all__ = [
    "EFFICIENCY",
    "GPU",
    "IMAGE",
    "TEXT",
    "Accelerator",
    "Transformer",
    "activation_bytes",
    "parameters",
    "step_flops",
]


class Transformer(NamedTuple):
    """A plain transformer with MLPs of four times its width; `patch` is the side of image patches, 0 for tokens."""

    layers: int
    width: int
    tokens: int
    patch: int = 0

    def flops(self) -> float:
        """Flops of a forward pass of one item: projections, MLP and attention of all layers, and the patches."""
        layer = 24 * self.tokens * self.width**2 + 4 * self.tokens**2 * self.width
        patches = 2 * (self.tokens - 1) * 3 * self.patch**2 * self.width
        return self.layers * layer + patches


class Accelerator(NamedTuple):
    """Figures of a data sheet: flops per second without sparsity, bytes of memory, and bytes per second to other
    machines.
    """

    float32: float
    tf32: float
    bfloat16: float
    memory: float
    network: float


# ViT-B/16 at 224 x 224, and the text tower of CLIP with the same name.
IMAGE, TEXT = Transformer(12, 768, 197, 16), Transformer(12, 512, 77)
# NVIDIA H100 SXM with one port of 400 Gbit/s for each GPU.
GPU = Accelerator(67e12, 494e12, 989e12, 80e9, 50e9)
# Assumed share of the peak rate that large products reach.
EFFICIENCY = 0.4


def step_flops(modalities: int, *, grad_cache: bool = False) -> float:
    """Flops of a training step for one item: an image tower for every modality but the text.

    The backward pass takes twice the flops of the forward pass; the gradient cache adds a forward pass.
    """
    forward = TEXT.flops() + (modalities - 1) * IMAGE.flops()
    return (4 if grad_cache else 3) * forward


def parameters(modalities: int) -> int:
    """Parameters of the layers of the towers of `step_flops`, without embeddings."""
    return sum(12 * t.layers * t.width**2 for t in (TEXT, *[IMAGE] * (modalities - 1)))


def activation_bytes(encoder: Transformer) -> float:
    """Activations in 16 bits of one item, without attention matrices (Korthikanti et al. 2022, Eq. 2)."""
    return 34.0 * encoder.tokens * encoder.width * encoder.layers
