"""Stable unCLIP decoder (Stable Diffusion conditioned on an image embedding), based on diffusers.

Shapes: `N` images, `W` dimension of the embeddings, `S` x `S` pixels of an image.
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
    """Decoder for embeddings of the image encoder of a `StableUnCLIPImg2ImgPipeline`.

    Embeddings of any modality can replace image embeddings (arXiv 2602.09507, section 5). The prompt is empty. The
    noise level of the embedding is 0, the pipeline's default, which adds a small amount of noise that depends only on
    the seed and the row.

    Args:
        pipeline: the pipeline, already on the target device.
        fingerprint: SHA-256 of the image encoder of the pipeline; None if unknown.

    Raises:
        CheckpointError: the dims of the image encoder and the denoiser differ.
    """

    # Defaults of the diffusers pipeline.
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
        """Load a pipeline from a folder or the Hugging Face Hub. Weights must be safetensors, not pickles.

        Args:
            source: folder, or `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.
            device, dtype: device and dtype of the weights; the default dtype is float32.

        Raises:
            MissingDependencyError: diffusers is not installed.
            ConfigError: the folder contains another pipeline, or the device is not available.
            CheckpointError: the folder does not exist, or a component is missing, is a pickle, or does not match the
                others.
        """
        target = resolve_device(device, dtype)
        folder = open_folder(source, STABLE_UNCLIP, revision=revision)
        pipeline = load_pipeline(folder, STABLE_UNCLIP, device=target, dtype=dtype)
        return cls(pipeline, fingerprint=encoder_weights_fingerprint(folder))

    def embed(self, images: Any, *, batch_size: int = 8) -> Tensor:
        """Compute the raw image embeddings that `generate` expects, for the anchor column of a store.

        Args:
            images: float images (N, 3, height, width) in [0, 1], which the pipeline's processor resizes.
            batch_size: number of images per forward pass.

        Returns:
            Embeddings (N, W), float32 on the CPU, neither centered nor normalized.

        Raises:
            ShapeError: `images` is not a float array of shape (N, 3, height, width).
            NonFiniteError: an image contains NaN or infinity.
            DataError: a number is outside [0, 1].
        """
        return self.tower.embed(images, batch_size=batch_size)

    def _pipeline_arguments(self, count: int, guidance: float) -> dict[str, Any]:
        return {"prompt": [""] * count}

    def _initial_latents(self, noise: Tensor, steps: int) -> Tensor:
        # The pipeline does not scale latents that are passed as an argument.
        self.pipeline.scheduler.set_timesteps(steps, device=noise.device)
        scaled: Tensor = noise * self.pipeline.scheduler.init_noise_sigma
        return scaled


def _check_dims(pipeline: Any, dim: int) -> None:
    config = pipeline.unet.config
    # The class embedding is the image embedding, concatenated with a noise-level embedding of the same dim.
    if config.class_embed_type != "projection" or config.projection_class_embeddings_input_dim != 2 * dim:
        raise CheckpointError(
            f"the denoiser (unet) has a class embedding of type {config.class_embed_type!r} and dim "
            f"{config.projection_class_embeddings_input_dim}; the image encoder needs 'projection' and {2 * dim}"
        )
    found = pipeline.image_normalizer.config.embedding_dim
    if found != dim:
        raise CheckpointError(
            f"the image encoder has dim {dim}, but the image normalizer has statistics of dim {found}"
        )


def _compute_typical_norm(normalizer: Any) -> float | None:
    """Return the RMS norm from the normalizer's mean and deviation; None if these were never set."""
    mean, deviation = normalizer.mean.detach().double(), normalizer.std.detach().double()
    if not bool(mean.any()) and bool((deviation == 1).all()):
        return None
    return float((mean.square() + deviation.square()).sum().sqrt())
