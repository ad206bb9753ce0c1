"""Kandinsky 2.2 as a decoder, by diffusers, and its prior (text -> image embedding) to compare with.

Shapes: `N` images or texts, `B` of them at once, `W` width of the embeddings, `S` pixels a side.
"""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from unialign.errors import CheckpointError, ConfigError
from unialign.generation._decoder import EmbeddingSpec, check_embeddings
from unialign.generation._pipeline_folder import KANDINSKY, KANDINSKY_PRIOR, open_folder
from unialign.generation._pipelines import (
    ImageTower,
    check_guided,
    images_of,
    latent_side,
    load_pipeline,
    place,
    sample_rows,
)

__all__ = ["Kandinsky22"]

# Of the pipelines' own calls.
_STEPS, _PRIOR_STEPS, _GUIDANCE = 100, 25, 4.0
_TOWER_PARTS = ("image_encoder", "image_processor")


class Kandinsky22:
    """A decoder of the embeddings of Kandinsky 2.2's image encoder.

    The published decoder comes without that encoder; it lies beside the prior. Guidance needs it (the embedding of an
    empty image is what guidance leads away from), and so do `embed` and the identity in `reads`.

    Args:
        pipeline: a `KandinskyV22Pipeline`, on its device.
        tower: the image encoder, None if there is none.
        open_prior: gives the `KandinskyV22PriorPipeline` when it is first asked for, None if there is none.

    Raises:
        CheckpointError: the image encoder and the denoiser are of different widths.
    """

    def __init__(
        self, pipeline: Any, *, tower: ImageTower | None = None, open_prior: Callable[[], Any] | None = None
    ) -> None:
        self.pipeline = pipeline
        self.tower = tower
        self._open_prior = open_prior
        width = _read_width(pipeline)
        if tower is not None and tower.width != width:
            raise CheckpointError(
                f"the prior's image encoder gives {tower.width} numbers, the decoder reads {width}: the two do not "
                f"belong together"
            )
        identity = None if tower is None else tower.identity
        self._reads = EmbeddingSpec("the image encoder of Kandinsky 2.2", width, identity)
        self._scale = int(pipeline.movq_scale_factor)
        # As the pipeline rounds: a side of the latents is a multiple of the scale.
        self._latent = -(-latent_side(pipeline) // self._scale) * self._scale

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
        """Load a pipeline from a folder, or from the Hugging Face Hub. Only safetensors are read, never pickles.

        Args:
            source: a folder with a `KandinskyV22Pipeline`, or an `owner/name` on the Hub.
            revision: branch, tag or commit on the Hub.
            prior: the same for the `KandinskyV22PriorPipeline`. Its image encoder is loaded at once, the rest when
                `prior_embeddings` first asks. None: only `generate` without guidance is there.
            prior_revision: of the prior.
            device: where the weights go.
            dtype: of the weights; None is float32.

        Raises:
            MissingDependencyError: diffusers is not installed.
            ConfigError: a folder holds another pipeline; the device is not there.
            CheckpointError: no such folder; a component is missing, or a pickle, or does not fit the others.
        """
        target = place(device, dtype)
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

    @property
    def input_spec(self) -> EmbeddingSpec:
        """The embeddings it reads; the identity is known if the prior's folder is."""
        return self._reads

    @property
    def size(self) -> int:
        """S, pixels a side."""
        return self._latent * self._scale

    def embed(self, images: Any, *, batch_size: int = 8) -> Tensor:
        """Raw image embeddings, as `generate` reads them: the anchor column of a store.

        Args:
            images: (N, 3, height, width) floating numbers in [0, 1], of any size: the pipeline's own processor
                resizes them.
            batch_size: images at once.

        Returns:
            (N, W) float32 on the CPU.

        Raises:
            ConfigError: loaded without `prior`, where the image encoder is.
            ShapeError: not (N, 3, height, width) floating numbers.
            NonFiniteError: an image holds NaN or infinity.
            DataError: an image leaves [0, 1].
        """
        return self._need_tower("embed").embed(images, batch_size=batch_size)

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
        # Without guidance the pipeline takes the embedding of nothing, and leaves it aside.
        nothing = self._nothing if guidance > 1 else torch.zeros(1, self._reads.width)
        weight = next(self.pipeline.unet.parameters())

        def draw(rows: slice, noise: Tensor, generators: list[torch.Generator]) -> Any:
            return self.pipeline(
                image_embeds=x_NW[rows].to(weight.device, weight.dtype),
                negative_image_embeds=nothing.expand(len(noise), -1).to(weight.device, weight.dtype),
                height=self.size,
                width=self.size,
                latents=noise.to(weight.device, weight.dtype),
                generator=generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
            ).images

        shape = (int(self.pipeline.unet.config.in_channels), self._latent, self._latent)
        made = sample_rows(len(x_NW), shape, seed=seed, batch_size=batch_size, device=weight.device, draw=draw)
        return images_of(made, self.size)

    def prior_embeddings(
        self,
        texts: Sequence[str],
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 8,
    ) -> Tensor:
        """Image embeddings that Kandinsky's own prior makes of texts, to compare an aligned space with.

        Args:
            texts: N of them.
            seed: decides the noise; row i gets the same noise whatever else is asked for with it.
            steps: of the sampler; None is the prior's own number.
            guidance: weight of classifier-free guidance, 1 for none; None is the prior's own number.
            batch_size: texts at once.

        Returns:
            (N, W) float32 on the CPU.

        Raises:
            ConfigError: loaded without `prior`; an option is out of range; texts are not a list of strings.
            CheckpointError: the prior's folder lacks a component, or holds a pickle.
        """
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ConfigError(f"texts must be a list of strings, got {texts!r}")
        steps, guidance = _PRIOR_STEPS if steps is None else steps, _GUIDANCE if guidance is None else guidance
        self._need_tower("prior_embeddings")
        prior = self._prior
        # Its scheduler spreads them between the first and the last.
        check_guided(seed, steps, guidance, batch_size, scheduler=prior.scheduler, fewest_steps=2)
        weight = next(prior.prior.parameters())

        def draw(rows: slice, noise: Tensor, generators: list[torch.Generator]) -> Any:
            return prior(
                list(texts[rows]),
                latents=noise.to(weight.device, weight.dtype),
                generator=generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
            ).image_embeds

        width = self._reads.width
        made = sample_rows(len(texts), (width,), seed=seed, batch_size=batch_size, device=weight.device, draw=draw)
        return torch.cat([torch.empty(0, width, dtype=torch.float32), *made])

    @cached_property
    def _prior(self) -> Any:
        if self._open_prior is None:
            raise ConfigError("there is no prior to ask; load Kandinsky22 with prior=FOLDER")
        prior = self._open_prior()
        if prior.prior.config.embedding_dim != self._reads.width:
            raise CheckpointError(
                f"the prior makes {prior.prior.config.embedding_dim} numbers, the decoder reads {self._reads.width}: "
                f"the two do not belong together"
            )
        return prior

    @cached_property
    def _nothing(self) -> Tensor:
        """(1, W): the embedding of pixels that are all 0 (the mean colour), as the prior's pipeline has it."""
        tower = self._need_tower("guidance above 1")
        side = int(tower.encoder.config.image_size)
        return tower.project(torch.zeros(1, 3, side, side))

    def _need_tower(self, what: str) -> ImageTower:
        if self.tower is None:
            hint = ", or generate with guidance=1" if what.startswith("guidance") else ""
            raise ConfigError(
                f"{what} needs the image encoder of Kandinsky 2.2, which lies in the prior's folder; load it with "
                f"prior=FOLDER (on the Hub: kandinsky-community/kandinsky-2-2-prior){hint}"
            )
        return self.tower


def _read_width(pipeline: Any) -> int:
    config = pipeline.unet.config
    if config.encoder_hid_dim_type != "image_proj" or not isinstance(config.encoder_hid_dim, int):
        raise CheckpointError(
            f"the denoiser (unet) is not conditioned on image embeddings: its encoder_hid_dim_type is "
            f"{config.encoder_hid_dim_type!r}, expected 'image_proj'"
        )
    return config.encoder_hid_dim
