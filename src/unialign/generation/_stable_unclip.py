"""Stable unCLIP as a decoder: Stable Diffusion conditioned on an image embedding, implemented with diffusers.

Shapes: `N` images, `B` of them at once, `W` dimension of the embeddings, `S` x `S` pixels of an image.
"""

import os
from typing import Any

import torch
from torch import Tensor

from unialign.errors import CheckpointError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._pipeline_folder import STABLE_UNCLIP, encoder_weights_fingerprint, open_folder
from unialign.generation._pipelines import ImageTower, PipelineDecoder, load_pipeline, read_latent_side, resolve_device


class StableUnCLIP(PipelineDecoder):
    """Decode embeddings of the image encoder of a `StableUnCLIPImg2ImgPipeline`.

    The embedding of any modality replaces the image embedding (arXiv 2602.09507, section 5). The prompt is empty, and
    the embedding gets noise level 0, the pipeline's default: one small step of noise, drawn from the seed like all
    other noise.

    Args:
        pipeline: the pipeline, on its device.
        fingerprint: sha256 of its image encoder; None if unknown.

    Raises:
        CheckpointError: image encoder and denoiser have different dims.
    """

    # Defaults of the pipeline's own call.
    default_steps, default_guidance = 20, 10.0

    def __init__(self, pipeline: Any, *, fingerprint: str | None = None) -> None:
        self.tower = ImageTower(pipeline.image_encoder, pipeline.feature_extractor, fingerprint)
        _check_dims(pipeline, self.tower.dim)
        norm = _compute_typical_norm(pipeline.image_normalizer)
        spec = EmbeddingSpec("the image encoder of Stable unCLIP", self.tower.dim, fingerprint, norm)
        super().__init__(pipeline, spec, latent=read_latent_side(pipeline), scale=int(pipeline.vae_scale_factor))

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "StableUnCLIP":
        """Load a pipeline from a folder or the Hugging Face Hub. Only safetensors are read, never pickles.

        Args:
            source: a folder, or an `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.
            device, dtype: device and dtype of the weights; a dtype of None is float32.

        Raises:
            MissingDependencyError: diffusers is not installed.
            ConfigError: the folder holds another pipeline; the device is not available.
            CheckpointError: no such folder; a component is missing, is a pickle, or does not fit the others.
        """
        target = resolve_device(device, dtype)
        folder = open_folder(source, STABLE_UNCLIP, revision=revision)
        pipeline = load_pipeline(folder, STABLE_UNCLIP, device=target, dtype=dtype)
        return cls(pipeline, fingerprint=encoder_weights_fingerprint(folder))

    def embed(self, images: Any, *, batch_size: int = 8) -> Tensor:
        """Compute raw image embeddings, as `generate` expects them, for the anchor column of a store.

        Args:
            images: (N, 3, height, width) floating numbers in [0, 1], of any size; resized by the pipeline's processor.
            batch_size: images per forward pass.

        Returns:
            (N, W) float32 on the CPU.

        Raises:
            ShapeError: not (N, 3, height, width) floating numbers.
            NonFiniteError: an image holds NaN or infinity.
            DataError: a number is outside [0, 1].
        """
        return self.tower.embed(images, batch_size=batch_size)

    def _pipeline_arguments(self, count: int, guidance: float) -> dict[str, Any]:
        return {"prompt": [""] * count}

    def _initial_latents(self, noise: Tensor, steps: int) -> Tensor:
        # The pipeline scales the noise that it draws itself, but not latents passed in.
        self.pipeline.scheduler.set_timesteps(steps, device=noise.device)
        scaled: Tensor = noise * self.pipeline.scheduler.init_noise_sigma
        return scaled


def _check_dims(pipeline: Any, dim: int) -> None:
    config = pipeline.unet.config
    # The image embedding is concatenated with an embedding of the noise level of the same dim.
    if config.class_embed_type != "projection" or config.projection_class_embeddings_input_dim != 2 * dim:
        raise CheckpointError(
            f"the denoiser (unet) has a class embedding of type {config.class_embed_type!r} and dim "
            f"{config.projection_class_embeddings_input_dim}, the image encoder needs 'projection' and {2 * dim}"
        )
    found = pipeline.image_normalizer.config.embedding_dim
    if found != dim:
        raise CheckpointError(f"the image encoder has dim {dim}, the image normalizer has statistics of dim {found}")


def _compute_typical_norm(normalizer: Any) -> float | None:
    """Return the RMS norm of embeddings with the normalizer's mean and deviation; None if these are initial values."""
    mean, deviation = normalizer.mean.detach().double(), normalizer.std.detach().double()
    if not bool(mean.any()) and bool((deviation == 1).all()):
        return None
    return float((mean.square() + deviation.square()).sum().sqrt())
