"""Kandinsky 2.2 as a decoder, and its prior (text -> image embedding) for comparison, by diffusers.

Shapes: `N` images or texts, `B` of them at once, `W` dimension of the embeddings, `S` pixels a side.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unialign.errors import CheckpointError, ConfigError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._pipeline_folder import KANDINSKY, KANDINSKY_PRIOR, open_folder
from unialign.generation._pipelines import (
    ImageTower,
    PipelineDecoder,
    check_guidance,
    latent_side,
    load_pipeline,
    resolve_device,
    sample_rows,
)

__all__ = ["Kandinsky22"]

# Defaults of the prior's own call.
_PRIOR_STEPS, _PRIOR_GUIDANCE = 25, 4.0
_TOWER_PARTS = ("image_encoder", "image_processor")


class Kandinsky22(PipelineDecoder):
    """Decode embeddings of Kandinsky 2.2's image encoder.

    The published decoder lacks that encoder, which is part of the prior's folder. It is needed for guidance (away
    from the embedding of an empty image), for `embed`, and for the fingerprint in `input_spec`.

    Args:
        pipeline: a `KandinskyV22Pipeline`, on its device.
        tower: the image encoder, None without it.
        open_prior: loads the `KandinskyV22PriorPipeline` on first use, None without it.

    Raises:
        CheckpointError: image encoder and denoiser have different dims.
    """

    # Defaults of the pipeline's own call.
    default_steps, default_guidance = 100, 4.0

    def __init__(
        self, pipeline: Any, *, tower: ImageTower | None = None, open_prior: Callable[[], Any] | None = None
    ) -> None:
        self.tower = tower
        self._open_prior = open_prior
        dim = _input_dim(pipeline)
        if tower is not None and tower.dim != dim:
            raise CheckpointError(
                f"the prior's image encoder has dim {tower.dim}, the decoder needs {dim}: the two do not belong "
                f"together"
            )
        # The fingerprint is known only with the prior's folder.
        fingerprint = None if tower is None else tower.fingerprint
        spec = EmbeddingSpec("the image encoder of Kandinsky 2.2", dim, fingerprint)
        scale = int(pipeline.movq_scale_factor)
        # Rounded as in the pipeline: the side of the latents is a multiple of the scale.
        super().__init__(pipeline, spec, latent=-(-latent_side(pipeline) // scale) * scale, scale=scale)

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
        """Load a pipeline from a folder or the Hugging Face Hub. Only safetensors are read, never pickles.

        Args:
            source: a folder with a `KandinskyV22Pipeline`, or an `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.
            prior: the same for the `KandinskyV22PriorPipeline`. Its image encoder is loaded at once, the rest on the
                first call of `prior_embeddings`. None: only `generate` without guidance works.
            prior_revision: of the prior.
            device: device of the weights.
            dtype: of the weights; None is float32.

        Raises:
            MissingDependencyError: diffusers is not installed.
            ConfigError: a folder holds another pipeline; the device is not available.
            CheckpointError: no such folder; a component is missing, is a pickle, or does not fit the others.
        """
        target = resolve_device(device, dtype)
        folder = open_folder(source, KANDINSKY, revision=revision)
        if prior is None:
            return cls(load_pipeline(folder, KANDINSKY, device=target, dtype=dtype))
        beside = open_folder(prior, KANDINSKY_PRIOR, revision=prior_revision, parts=_TOWER_PARTS)
        tower = ImageTower.load(beside, processor="image_processor", device=target, dtype=dtype)

        def open_prior() -> Any:
            whole = open_folder(prior, KANDINSKY_PRIOR, revision=prior_revision)
            shared = {"image_encoder": tower.encoder, "image_processor": tower.processor}
            return load_pipeline(whole, KANDINSKY_PRIOR, device=target, dtype=dtype, **shared)

        return cls(load_pipeline(folder, KANDINSKY, device=target, dtype=dtype), tower=tower, open_prior=open_prior)

    def embed(self, images: Any, *, batch_size: int = 8) -> Tensor:
        """Compute raw image embeddings, as `generate` expects them; see `StableUnCLIP.embed`.

        Raises:
            ConfigError: loaded without `prior`, which holds the image encoder.
            ShapeError, NonFiniteError, DataError: as `StableUnCLIP.embed`.
        """
        return self._need_tower("embed").embed(images, batch_size=batch_size)

    def _arguments(self, weight: Tensor, guidance: float) -> Callable[[int], dict[str, Any]]:
        # Without guidance the pipeline requires a negative embedding but does not use it.
        negative = self._negative if guidance > 1 else torch.zeros(1, self.input_spec.dim)
        return lambda count: {
            "negative_image_embeds": negative.expand(count, -1).to(weight.device, weight.dtype),
            "height": self.size,
            "width": self.size,
        }

    def prior_embeddings(
        self,
        texts: Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 8,
    ) -> Tensor:
        """Generate image embeddings of texts with Kandinsky's own prior, a baseline for an aligned space.

        Args:
            texts: N strings.
            seed: seed of the noise; the noise of row i depends only on the seed and i.
            steps: number of sampler steps; None is the prior's default.
            guidance: weight of classifier-free guidance; 1 turns it off, None is the prior's default.
            batch_size: texts per forward pass.

        Returns:
            (N, W) float32 on the CPU.

        Raises:
            ConfigError: loaded without `prior`; an option is out of range; texts are not strings.
            CheckpointError: a component of the prior is missing or a pickle.
        """
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"texts must be a list of strings, got {texts!r}")
        steps = _PRIOR_STEPS if steps is None else steps
        guidance = _PRIOR_GUIDANCE if guidance is None else guidance
        self._need_tower("prior_embeddings")
        prior = self._prior
        # Its scheduler spaces the steps between the first and the last.
        check_guidance(seed, steps, guidance, batch_size, scheduler=prior.scheduler, min_steps=2)
        weight = next(prior.prior.parameters())

        def draw(rows: slice, noise: Tensor, generators: list[torch.Generator]) -> Any:
            return prior(
                list(texts[rows]),
                latents=noise.to(weight.device, weight.dtype),
                generator=generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
            ).image_embeds

        dim = self.input_spec.dim
        drawn = sample_rows(len(texts), (dim,), seed=seed, batch_size=batch_size, device=weight.device, draw=draw)
        return torch.cat([torch.empty(0, dim, dtype=torch.float32), *drawn])

    @cached_property
    def _prior(self) -> Any:
        if self._open_prior is None:
            raise ConfigError("Kandinsky22 was loaded without a prior; load it with prior=FOLDER")
        prior = self._open_prior()
        dim = prior.prior.config.embedding_dim
        if dim != self.input_spec.dim:
            raise CheckpointError(
                f"the prior has dim {dim}, the decoder needs {self.input_spec.dim}; the two do not match"
            )
        return prior

    @cached_property
    def _negative(self) -> Tensor:
        """(1, W): embedding of pixel values 0 (the mean color), like `get_zero_embed` of the prior's pipeline."""
        tower = self._need_tower("guidance above 1")
        side = int(tower.encoder.config.image_size)
        return tower.project(torch.zeros(1, 3, side, side))

    def _need_tower(self, what: str) -> ImageTower:
        if self.tower is None:
            hint = ", or generate with guidance=1" if what.startswith("guidance") else ""
            raise ConfigError(
                f"{what} needs the image encoder of Kandinsky 2.2, which is in the prior's folder; load it with "
                f"prior=FOLDER (on the Hub: kandinsky-community/kandinsky-2-2-prior){hint}"
            )
        return self.tower


def _input_dim(pipeline: Any) -> int:
    config = pipeline.unet.config
    if config.encoder_hid_dim_type != "image_proj" or not isinstance(config.encoder_hid_dim, int):
        raise CheckpointError(
            f"the denoiser (unet) is not conditioned on image embeddings: its encoder_hid_dim_type is "
            f"{config.encoder_hid_dim_type!r}, expected 'image_proj'"
        )
    return config.encoder_hid_dim
