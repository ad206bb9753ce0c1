"""Kandinsky 2.2 as a decoder, implemented with diffusers.

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
    """Decode embeddings of Kandinsky 2.2's image encoder.

    The published decoder lacks that encoder, which is part of the prior's folder. It is needed for guidance (away
    from the embedding of an empty image), for `embed`, and for the fingerprint in `input_spec`.

    Args:
        pipeline: a `KandinskyV22Pipeline`, on its device.
        tower: the image encoder, or None.

    Raises:
        CheckpointError: image encoder and denoiser have different dims.
    """

    # Defaults of the pipeline's own call.
    default_steps, default_guidance = 100, 4.0

    def __init__(self, pipeline: Any, *, tower: ImageTower | None = None) -> None:
        self.tower = tower
        dim = _read_input_dim(pipeline)
        if tower is not None and tower.dim != dim:
            raise CheckpointError(f"the prior's image encoder has dim {tower.dim}, the decoder needs {dim}")
        # The fingerprint is known only with the prior's folder.
        fingerprint = None if tower is None else tower.fingerprint
        spec = EmbeddingSpec("the image encoder of Kandinsky 2.2", dim, fingerprint)
        scale = int(pipeline.movq_scale_factor)
        # Rounded as in the pipeline: the side length of the latents is a multiple of the scale.
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
                None: only `generate` without guidance works.
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
        """See `StableUnCLIP.embed`; raises ConfigError if loaded without `prior`, which holds the image encoder."""
        return self._require_tower().embed(images, batch_size=batch_size)

    def _pipeline_arguments(self, count: int, guidance: float) -> dict[str, Any]:
        # Without guidance, the pipeline requires a negative embedding but does not use it.
        negative = self._negative if guidance > 1 else torch.zeros(1, self.input_spec.dim)
        negative = negative.expand(count, -1).to(next(self.pipeline.unet.parameters()))
        return {"negative_image_embeds": negative, "height": self.size, "width": self.size}

    @cached_property
    def _negative(self) -> Tensor:
        """(1, W) embedding of pixel values 0 (the mean color), as from `get_zero_embed` of the prior's pipeline."""
        tower = self._require_tower()
        side = int(tower.encoder.config.image_size)
        return tower.project(torch.zeros(1, 3, side, side))

    def _require_tower(self) -> ImageTower:
        if self.tower is None:
            raise ConfigError(
                "embed, and generate with guidance above 1, need the image encoder in the prior's folder; load it with "
                "prior=FOLDER (on the Hub: kandinsky-community/kandinsky-2-2-prior)"
            )
        return self.tower


def _read_input_dim(pipeline: Any) -> int:
    config = pipeline.unet.config
    kind = config.encoder_hid_dim_type
    if kind != "image_proj" or not isinstance(config.encoder_hid_dim, int):
        raise CheckpointError(
            f"the denoiser is not conditioned on image embeddings: its encoder_hid_dim_type is {kind!r}"
        )
    return config.encoder_hid_dim
