"""Our own decoder: flow matching from noise to an image, given the frame of an image embedding.

Shapes: `N` images, `W` width of the embeddings, `D` directions of the frame, `S` pixels a side.
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
from unialign.generation._decoder import EmbeddingSpec, check_embeddings, check_made, check_sampling, noise_rows
from unialign.generation._flow import sample
from unialign.generation._latents import ImageBasis
from unialign.generation._pixels import PixelBasis
from unialign.generation._residual_mlp import ResidualMLP
from unialign.generation._unet import make_unet
from unialign.io import json_object, load_folder, save_folder
from unialign.space import Whitening

__all__ = ["FlowDecoder"]

_CHUNK = 256


class FlowDecoder(nn.Module):
    """A decoder that `train_decoder` makes. It reads the direction of an embedding from the mean, not its length.

    Args:
        config: the shape of the network; settings of training are kept with it.
        reads: the embeddings that it reads.
        metadata: JSON object about how it was made.

    Raises:
        ConfigError: more directions than the embeddings have.
        MissingDependencyError: network="unet" without diffusers.
    """

    def __init__(
        self, config: DecoderConfig, reads: EmbeddingSpec, *, metadata: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        if config.directions > reads.width:
            raise ConfigError(
                f"directions={config.directions} is more than the {reads.width} numbers of an embedding of "
                f"{reads.encoder}; set directions to at most that"
            )
        self.config, self._reads = config, reads
        self.metadata: dict[str, Any] = dict(metadata or {})
        self.frame = Whitening(config.whitening, reads.width, config.directions)
        self.basis: ImageBasis | PixelBasis
        self.network: nn.Module
        if config.network == "mlp":
            self.basis = ImageBasis(config.size, config.latents)
            self.network = ResidualMLP(config.latents, config.directions, width=config.width, depth=config.depth)
        else:
            self.basis = PixelBasis(config.size)
            self.network = make_unet(config.size, config.directions, width=config.width, depth=config.depth)
        # The condition that stands for none.
        self.none = nn.Parameter(torch.zeros(config.directions))

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.parameters()) / 1e6
        return (
            f"FlowDecoder({self.config.network}, {self.size} x {self.size} pixels, {weights:.1f} million weights; "
            f"reads {self._reads.width} numbers of {self._reads.encoder})"
        )

    @property
    def input_spec(self) -> EmbeddingSpec:
        """The embeddings it reads."""
        return self._reads

    @property
    def size(self) -> int:
        """S, pixels a side."""
        return self.config.size

    def condition(self, embeddings_NW: Tensor) -> Tensor:
        """What the network is given: the frame of the embeddings at length sqrt(D), so that a number is about 1."""
        framed_ND: Tensor = self.frame(embeddings_NW)
        return F.normalize(framed_ND, dim=1) * math.sqrt(self.config.directions)

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
            piece = slice(start, min(start + _CHUNK, len(x_NW)))
            noise = noise_rows(piece.stop - start, self.basis.numbers, seed=seed, first=start)
            out[piece] = self.decode(x_NW[piece], noise, steps=steps, guidance=guidance)
        return check_made(out)

    @torch.no_grad()
    def decode(self, embeddings_NW: Tensor, noise: Tensor, *, steps: int, guidance: float) -> Tensor:
        """Images from embeddings and given noise (N, numbers of a sample); trusts its input."""
        with torch.autocast(self.none.device.type, enabled=False):
            noise = noise.to(self.none).reshape(-1, *self.basis.shape)
            latents = sample(
                self.network,
                noise,
                self.condition(embeddings_NW.to(self.none)),
                steps=steps,
                guidance=guidance,
                unconditional_C=self.none,
            )
            return self.basis.decode(latents).float().cpu()

    # --- saving -------------------------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json`, `model.safetensors` and, unless there is one, a model card `README.md` into a folder.

        Raises:
            CheckpointError: the file system refuses; what was there before is intact.
        """
        metadata = json_object("decoder", self.metadata)
        save_folder(
            "decoder",
            directory,
            settings={"config": self.config.to_dict(), "reads": vars(self.input_spec)},
            metadata=metadata,
            tensors=self.state_dict(),
            card=_card(self),
        )

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str], *, revision: str | None = None) -> "FlowDecoder":
        """Load a decoder from a folder or a hub id. Only JSON and safetensors are read; nothing is executed.

        Raises:
            CheckpointError: nothing there, another version, a pickle, or a file that is truncated or altered.
            MissingDependencyError: `source` is no folder and `huggingface_hub` is not installed.
        """

        def check(settings: Any) -> bool:
            return isinstance(settings, dict) and all(
                isinstance(settings.get(key), dict) for key in ("config", "reads")
            )

        def build(settings: dict[str, Any], metadata: dict[str, Any]) -> "FlowDecoder":
            return cls(
                DecoderConfig.from_dict(settings["config"]), EmbeddingSpec(**settings["reads"]), metadata=metadata
            )

        # Weights may be kept in half precision, to be small; they compute in single.
        decoder = load_folder("decoder", source, build, check=check, revision=revision).float()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in decoder.state_dict().values()):
            raise CheckpointError(f"the decoder in {source} holds weights that are not finite; train it again")
        return decoder


def _card(decoder: FlowDecoder) -> str:
    config, reads = decoder.config, decoder.input_spec
    return f"""---
library_name: unialign
tags: [unclip, image-generation]
---

# A decoder of image embeddings

Images of {config.size} x {config.size} from embeddings of {reads.encoder} ({reads.width} numbers), by flow matching
(`{config.network}`, {sum(p.numel() for p in decoder.parameters()) / 1e6:.1f} million weights).

```python
import unialign as ua

decoder = ua.generation.load_decoder("path or owner/name of this folder")
images = decoder.generate(embeddings)  # (N, {reads.width}) -> (N, 3, {config.size}, {config.size}) in [0, 1]
```
"""
