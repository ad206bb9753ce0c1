"""Stable unCLIP as a decoder: Stable Diffusion that an image embedding conditions, by diffusers.

Shapes: `N` images, `B` of them at once, `W` width of the embeddings, `S` pixels a side.
"""

import os
from typing import Any

import torch
from torch import Tensor

from unialign._checks import check_text
from unialign.errors import CheckpointError
from unialign.generation._decoder import EmbeddingSpec, check_embeddings
from unialign.generation._pipeline_folder import STABLE_UNCLIP, open_folder, tower_identity
from unialign.generation._pipelines import (
    ImageTower,
    check_guided,
    images_of,
    latent_side,
    load_pipeline,
    place,
    sample_rows,
)

__all__ = ["StableUnCLIP"]

# Of the pipeline's own call.
_STEPS, _GUIDANCE = 20, 10.0


class StableUnCLIP:
    """A decoder of the embeddings of a `StableUnCLIPImg2ImgPipeline`'s own image encoder.

    The paper's reading: any modality's embedding takes the image embedding's place; the prompt is empty, nothing is
    asked to stay away (no negative prompt), and the embedding gets the least noise that the pipeline knows (its
    default, noise level 0: one small step, drawn from the seed like all other noise).

    Args:
        pipeline: the pipeline, on its device.
        identity: sha256 of its image encoder, None if unknown.
        prompt: goes to the text encoder with every embedding.

    Raises:
        CheckpointError: the image encoder and the denoiser are of different widths.
    """

    def __init__(self, pipeline: Any, *, identity: str | None = None, prompt: str = "") -> None:
        check_text("prompt", prompt)
        self.pipeline = pipeline
        self.prompt = prompt
        self.tower = ImageTower(pipeline.image_encoder, pipeline.feature_extractor, identity)
        _check_widths(pipeline, self.tower.width)
        self._latent = latent_side(pipeline)
        norm = _norm(pipeline.image_normalizer)
        self._reads = EmbeddingSpec("the image encoder of Stable unCLIP", self.tower.width, identity, norm)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        prompt: str = "",
    ) -> "StableUnCLIP":
        """Load a pipeline from a folder, or from the Hugging Face Hub. Only safetensors are read, never pickles.

        Args:
            source: a folder, or an `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.
            device: where the weights go.
            dtype: of the weights; None is float32.
            prompt: goes to the text encoder with every embedding.

        Raises:
            MissingDependencyError: diffusers is not installed.
            ConfigError: the folder holds another pipeline; the device is not there.
            CheckpointError: no such folder; a component is missing, or a pickle, or does not fit the others.
        """
        target = place(device, dtype)
        folder = open_folder(source, STABLE_UNCLIP, revision=revision)
        pipeline = load_pipeline(folder, STABLE_UNCLIP, device=target, dtype=dtype)
        return cls(pipeline, identity=tower_identity(folder), prompt=prompt)

    @property
    def input_spec(self) -> EmbeddingSpec:
        """The embeddings it reads; `norm` is of the normaliser's statistics, None where it has none."""
        return self._reads

    @property
    def size(self) -> int:
        """S, pixels a side."""
        return self._latent * int(self.pipeline.vae_scale_factor)

    def embed(self, images: Any, *, batch_size: int = 8) -> Tensor:
        """Raw image embeddings, as `generate` reads them: the anchor column of a store.

        Args:
            images: (N, 3, height, width) floating numbers in [0, 1], of any size: the pipeline's own processor
                resizes them.
            batch_size: images at once.

        Returns:
            (N, W) float32 on the CPU.

        Raises:
            ShapeError: not (N, 3, height, width) floating numbers.
            NonFiniteError: an image holds NaN or infinity.
            DataError: an image leaves [0, 1].
        """
        return self.tower.embed(images, batch_size=batch_size)

    def generate(
        self,
        embeddings: Any,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 8,
    ) -> Tensor:
        """See `Decoder.generate`; `guidance` is at least 1, and `batch_size` rows go through the pipeline at once."""
        x_NW = check_embeddings(embeddings, self._reads)
        steps, guidance = _STEPS if steps is None else steps, _GUIDANCE if guidance is None else guidance
        check_guided(seed, steps, guidance, batch_size, scheduler=self.pipeline.scheduler)
        pipeline = self.pipeline
        weight = next(pipeline.unet.parameters())

        def draw(rows: slice, noise: Tensor, generators: list[torch.Generator]) -> Any:
            # The pipeline scales the noise that it draws itself, and takes noise from outside as it is.
            pipeline.scheduler.set_timesteps(steps, device=weight.device)
            latents = noise.to(weight.device) * pipeline.scheduler.init_noise_sigma
            return pipeline(
                prompt=[self.prompt] * len(noise),
                image_embeds=x_NW[rows].to(weight.device, weight.dtype),
                latents=latents.to(weight.dtype),
                generator=generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
            ).images

        shape = (int(pipeline.unet.config.in_channels), self._latent, self._latent)
        made = sample_rows(len(x_NW), shape, seed=seed, batch_size=batch_size, device=weight.device, draw=draw)
        return images_of(made, self.size)


def _check_widths(pipeline: Any, width: int) -> None:
    config = pipeline.unet.config
    # The embedding of the noise level, as wide, stands beside the image embedding.
    if config.class_embed_type != "projection" or config.projection_class_embeddings_input_dim != 2 * width:
        raise CheckpointError(
            f"the image encoder gives {width} numbers, for which the denoiser (unet) would read a class embedding of "
            f"type 'projection' and width {2 * width}; it has type {config.class_embed_type!r} and width "
            f"{config.projection_class_embeddings_input_dim}: the two do not belong together"
        )
    if pipeline.image_normalizer.config.embedding_dim != width:
        raise CheckpointError(
            f"the image encoder gives {width} numbers, the image normaliser has statistics of "
            f"{pipeline.image_normalizer.config.embedding_dim}: the two do not belong together"
        )


def _norm(normalizer: Any) -> float | None:
    """Root mean square length of embeddings with the normaliser's mean and deviation."""
    mean, deviation = normalizer.mean.detach().double(), normalizer.std.detach().double()
    # As it is made, without statistics.
    if not bool(mean.any()) and bool((deviation == 1).all()):
        return None
    return float((mean.square() + deviation.square()).sum().sqrt())
