"""A small decoder that maps noise to an image by flow matching, conditioned on principal directions of the embedding.

Shapes: `N` images, `W` dimension of the embeddings, `D` directions, `S` x `S` pixels of an image.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unialign.config import DecoderConfig
from unialign.errors import CheckpointError, ConfigError
from unialign.generation._decoder import EmbeddingSpec, check_embeddings, check_generated, check_sampling, draw_noise
from unialign.generation._flow import sample
from unialign.generation._image_basis import PCABasis, PixelBasis
from unialign.generation._networks import ResidualMLP, make_unet
from unialign.io import check_json_object, load_folder, save_folder
from unialign.space import Whitening

_CHUNK = 256


class FlowDecoder(nn.Module):
    """Decoder trained by `train_decoder`. It uses only the direction of the centered embedding, not its norm.

    Args:
        config: settings of the architecture, sampling and training.
        input_spec: specification of the embeddings that the decoder accepts.
        metadata: JSON object that describes the training.

    Raises:
        ConfigError: `config.directions` exceeds the dim of the embeddings.
        MissingDependencyError: the network is "unet" and diffusers is not installed.
    """

    def __init__(
        self, config: DecoderConfig, input_spec: EmbeddingSpec, *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if config.directions > input_spec.dim:
            raise ConfigError(
                f"directions={config.directions} exceeds the dim {input_spec.dim} of the embeddings of "
                f"{input_spec.encoder}; set directions to at most {input_spec.dim}"
            )
        self.config, self._input_spec = config, input_spec
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.whitening = Whitening(config.whitening, input_spec.dim, config.directions)
        self.basis: PCABasis | PixelBasis
        self.network: nn.Module
        if config.network == "mlp":
            self.basis = PCABasis(config.size, config.latents)
            self.network = ResidualMLP(config.latents, config.directions, width=config.width, depth=config.depth)
        else:
            self.basis = PixelBasis(config.size)
            self.network = make_unet(config.size, config.directions, width=config.width, depth=config.depth)
        # Learned input that represents "no condition".
        self.null_condition = nn.Parameter(torch.zeros(config.directions))

    def __repr__(self) -> str:
        size = f"{self.size} x {self.size} pixels, {_count_millions(self)} million weights"
        spec = self._input_spec
        return f"FlowDecoder({self.config.network}, {size}; decodes embeddings of {spec.encoder}, dim {spec.dim})"

    @property
    def input_spec(self) -> EmbeddingSpec:
        """Specification of the embeddings that the decoder accepts."""
        return self._input_spec

    @property
    def size(self) -> int:
        """Side length S of the images in pixels."""
        return self.config.size

    def condition(self, embeddings_NW: Tensor) -> Tensor:
        """Map embeddings (N, W) to network inputs (N, D) with norm sqrt(D), so that the entries are about 1."""
        return F.normalize(self.whitening(embeddings_NW), dim=1) * math.sqrt(self.config.directions)

    def generate(
        self, embeddings: Any, *, seed: int = 0, steps: int | None = None, guidance: float | None = None
    ) -> Tensor:
        """See `Decoder.generate`."""
        steps = self.config.sampler_steps if steps is None else steps
        guidance = self.config.guidance if guidance is None else guidance
        check_sampling(seed, steps, guidance)
        x_NW = check_embeddings(embeddings, self.input_spec)
        out = torch.empty(len(x_NW), 3, self.size, self.size, dtype=torch.float32)
        for start in range(0, len(x_NW), _CHUNK):
            chunk = slice(start, min(start + _CHUNK, len(x_NW)))
            noise = draw_noise(chunk.stop - start, math.prod(self.basis.shape), seed=seed, first=start)
            out[chunk] = self.decode(x_NW[chunk], noise, steps=steps, guidance=guidance)
        return check_generated(out)

    @torch.no_grad()
    def decode(self, embeddings_NW: Tensor, noise: Tensor, *, steps: int, guidance: float) -> Tensor:
        """Generate images from embeddings (N, W) and noise (N, L), with L latents each, without input validation."""
        with torch.autocast(self.null_condition.device.type, enabled=False):
            noise = noise.to(self.null_condition).reshape(-1, *self.basis.shape)
            condition = self.condition(embeddings_NW.to(self.null_condition))
            options: dict[str, Any] = {"steps": steps, "guidance": guidance, "unconditional_C": self.null_condition}
            return self.basis.decode(sample(self.network, noise, condition, **options)).float().cpu()

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json`, `model.safetensors` and, unless it exists, a model card `README.md` into a folder.

        Raises:
            CheckpointError: a file cannot be written, or the folder holds a model of another kind; previously saved
                files are kept.
        """
        save_folder(
            "decoder",
            directory,
            settings={"config": self.config.to_dict(), "input_spec": vars(self.input_spec)},
            metadata=check_json_object("decoder", self.metadata),
            tensors=self.state_dict(),
            card=_make_card(self),
        )

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None) -> "FlowDecoder":
        """Load a decoder from a folder or the Hub. Only JSON and safetensors files are read, and no code is executed.

        Raises:
            CheckpointError: there is no decoder, its version is not supported, its weights are a pickle, or a file is
                truncated or altered.
            MissingDependencyError: `source` is not a folder and `huggingface_hub` is not installed.
        """

        def build(settings: dict[str, Any], metadata: dict[str, Any]) -> "FlowDecoder":
            config, spec = DecoderConfig.from_dict(settings["config"]), EmbeddingSpec(**settings["input_spec"])
            return cls(config, spec, metadata=metadata)

        # Weights may be stored in half precision, but computations use single precision.
        decoder = load_folder("decoder", source, build, revision=revision).float()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in decoder.state_dict().values()):
            raise CheckpointError(f"the decoder in {source} has non-finite weights; train it again")
        return decoder


def _count_millions(decoder: FlowDecoder) -> str:
    return f"{sum(p.numel() for p in decoder.parameters()) / 1e6:.1f}"


def _make_card(decoder: FlowDecoder) -> str:
    config, spec = decoder.config, decoder.input_spec
    return f"""---
library_name: unialign
tags: [unclip, image-generation]
---

# A decoder of image embeddings

This decoder generates images of {config.size} x {config.size} pixels from embeddings of {spec.encoder} (dim
{spec.dim}), by flow matching (`{config.network}`, {_count_millions(decoder)} million weights).

```python
import unialign as ua

decoder = ua.generation.load_decoder("path or owner/name of this folder")
images = decoder.generate(embeddings)  # (N, {spec.dim}) -> (N, 3, {config.size}, {config.size}) in [0, 1]
```
"""
