"""Kandinsky 2.2 decoder, based on diffusers.

Shapes: `W` dimension of the embeddings, `S` x `S` pixels of an image.
"""

import os
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unialign.errors import CheckpointError, ConfigError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._pipeline_folder import (
    KANDINSKY,
    KANDINSKY_PRIOR,
    encoder_weights_fingerprint,
    open_folder,
)
from unialign.generation._pipelines import (
    ImageTower,
    PipelineDecoder,
    load_components,
    load_pipeline,
    read_latent_side,
    resolve_device,
)


class Kandinsky22(PipelineDecoder):
    """Decoder for embeddings of the image encoder of Kandinsky 2.2.

    The image encoder is not published with the decoder but with the prior. It is required for guidance (away from the
    embedding of an empty image), for `embed`, and for the fingerprint in `input_spec`.

    Args:
        pipeline: a `KandinskyV22Pipeline`, already on the target device.
        tower: the image encoder, or None.

    Raises:
        CheckpointError: the dims of the image encoder and the denoiser differ.
    """

    # Defaults of the diffusers pipeline.
    default_steps, default_guidance = 100, 4.0

    def __init__(self, pipeline: Any, *, tower: ImageTower | None = None) -> None:
        self.tower = tower
        dim = _read_input_dim(pipeline)
        if tower is not None and tower.dim != dim:
            raise CheckpointError(f"the prior's image encoder has dim {tower.dim}, but the decoder needs dim {dim}")
        # The fingerprint describes the image encoder, so it is unknown without the prior.
        fingerprint = None if tower is None else tower.fingerprint
        spec = EmbeddingSpec("the image encoder of Kandinsky 2.2", dim, fingerprint)
        scale = int(pipeline.movq_scale_factor)
        # Round up as in the pipeline, where the side length of the latents is a multiple of the scale.
        super().__init__(pipeline, spec, latent=-(-read_latent_side(pipeline) // scale) * scale, scale=scale)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        prior: str | os.PathLike[str] | None = None,
        prior_revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "Kandinsky22":
        """Load a `KandinskyV22Pipeline`; other arguments and errors as in `StableUnCLIP.from_pretrained`.

        Args:
            prior: folder or `owner/name` of the `KandinskyV22PriorPipeline`, from which the image encoder is loaded.
                None: `embed` and guidance are not available.
            prior_revision: branch, tag or commit of the prior on the Hub.
        """
        target = resolve_device(device, dtype)
        folder = open_folder(source, KANDINSKY, revision=revision)
        tower = None
        if prior is not None:
            prior_folder = open_folder(prior, KANDINSKY_PRIOR, revision=prior_revision)
            parts = load_components(prior_folder, KANDINSKY_PRIOR, dtype=dtype)
            fingerprint = encoder_weights_fingerprint(prior_folder)
            tower = ImageTower(parts["image_encoder"].to(target), parts["image_processor"], fingerprint)
        return cls(load_pipeline(folder, KANDINSKY, device=target, dtype=dtype), tower=tower)

    def embed(self, images: Any, *, batch_size: int = 8) -> Tensor:
        """See `StableUnCLIP.embed`; raises ConfigError if the image encoder was not loaded from `prior`."""
        return self._require_tower().embed(images, batch_size=batch_size)

    def _pipeline_arguments(self, count: int, guidance: float) -> dict[str, Any]:
        # Without guidance, the pipeline requires a negative embedding but does not use it.
        negative = self._negative if guidance > 1 else torch.zeros(1, self.input_spec.dim)
        negative = negative.expand(count, -1).to(next(self.pipeline.unet.parameters()))
        return {"negative_image_embeds": negative, "height": self.size, "width": self.size}

    @cached_property
    def _negative(self) -> Tensor:
        """Embedding of an image of zeros (the mean color), like `get_zero_embed` of the prior's pipeline."""
        tower = self._require_tower()
        side = int(tower.encoder.config.image_size)
        return tower.project(torch.zeros(1, 3, side, side))

    def _require_tower(self) -> ImageTower:
        if self.tower is None:
            raise ConfigError(
                "`embed` and guidance above 1 require the prior's image encoder; load the decoder with prior=FOLDER "
                "(on the Hub: kandinsky-community/kandinsky-2-2-prior)"
            )
        return self.tower


def _read_input_dim(pipeline: Any) -> int:
    config = pipeline.unet.config
    kind = config.encoder_hid_dim_type
    if kind != "image_proj" or not isinstance(config.encoder_hid_dim, int):
        raise CheckpointError(
            f"the denoiser is not conditioned on image embeddings, since its encoder_hid_dim_type is {kind!r}"
        )
    return config.encoder_hid_dim
