"""Common code of the diffusers decoders: load components, generate in batches, embed images.

Shapes: `N` images, `B` images of a batch, `W` dimension of the embeddings, `H` x `S` pixels of an image.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.generation._decoder import (
    EmbeddingSpec,
    check_embeddings,
    check_generated,
    check_sampling,
    draw_noise,
    make_row_generator,
)
from unialign.generation._images import check_images
from unialign.generation._pipeline_folder import (
    COMPONENTS,
    INDEX,
    import_extra,
    read_object,
)


def load_pipeline(folder: Path, name: str, *, device: torch.device, dtype: torch.dtype | None) -> Any:
    """Load a pipeline. Components are loaded one by one, since `DiffusionPipeline.from_pretrained` initializes missing
    weights at random without raising an error.
    """
    components = load_components(folder, name, dtype=dtype)
    with _checkpoint_errors(folder, name):
        pipeline = getattr(import_extra("diffusers"), name)(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def load_components(folder: Path, name: str, *, dtype: torch.dtype | None) -> dict[str, Any]:
    with _loading():
        index = read_object(folder / INDEX)
        return {part: _load_component(folder / part, *index[part], dtype=dtype) for part in COMPONENTS[name]}


def _load_component(part: Path, library: str, name: str, *, dtype: torch.dtype | None) -> Any:
    module = import_extra(library if library != "stable_diffusion" else "diffusers.pipelines.stable_diffusion")
    if part.name in ("feature_extractor", "image_processor"):
        # Use the Pillow backend, as when the models were published; otherwise, embeddings depend on whether torchvision
        # is installed.
        pillow = "CLIPImageProcessorPil"
        name = pillow if hasattr(module, pillow) else "CLIPImageProcessor"
    with _checkpoint_errors(part, name):
        kind = getattr(module, name)
        if not issubclass(kind, nn.Module):
            return kind.from_pretrained(part, local_files_only=True)
        model, info = kind.from_pretrained(part, use_safetensors=True, local_files_only=True, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{part} lacks {len(missing)} of the weights of a {name}, such as {missing[0]}; download or save it again"
        )
    dtype = dtype or torch.float32
    return (model if model.dtype == dtype else model.to(dtype)).eval()  # diffusers warns about needless conversions


@contextmanager
def _checkpoint_errors(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # A damaged folder can raise any exception.
        raise CheckpointError(f"{folder} cannot be loaded as {name} ({type(error).__name__}: {error})") from error


@contextmanager
def _loading() -> Iterator[None]:
    logs = [import_extra(name).utils.logging for name in ("diffusers", "transformers")]
    enabled = [log for log in logs if log.is_progress_bar_enabled()]
    hub = import_extra("huggingface_hub").utils
    # transformers also toggles the progress bars of huggingface_hub.
    hub_disabled = hub.are_progress_bars_disabled()
    for log in logs:
        log.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for log in enabled:
            log.enable_progress_bar()
        (hub.disable_progress_bars if hub_disabled else hub.enable_progress_bars)()


def resolve_device(device: str | torch.device, dtype: torch.dtype | None) -> torch.device:
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype must be a floating dtype such as torch.float16, or None, got {dtype!r}")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} is not available ({str(error).splitlines()[0]}); try 'cpu'") from None
    return found


def read_latent_side(pipeline: Any) -> int:
    side = pipeline.unet.config.sample_size
    if not isinstance(side, int):
        raise CheckpointError(f"the denoiser (unet) has sample_size {side!r}; expected an integer (square latents)")
    return side


class PipelineDecoder(ABC):
    """`scale` is the side length of an image in pixels, divided by the side length `latent` of the latents."""

    default_steps: ClassVar[int]
    default_guidance: ClassVar[float]

    def __init__(self, pipeline: Any, input_spec: EmbeddingSpec, *, latent: int, scale: int) -> None:
        self.pipeline, self.input_spec = pipeline, input_spec
        self.size, self._latent = latent * scale, latent

    def generate(
        self,
        embeddings: Any,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 8,
    ) -> Tensor:
        x_NW = check_embeddings(embeddings, self.input_spec)
        steps = self.default_steps if steps is None else steps
        guidance = self.default_guidance if guidance is None else guidance
        self._check_options(seed, steps, guidance, batch_size)
        weight = next(self.pipeline.unet.parameters())
        shape = (int(self.pipeline.unet.config.in_channels), self._latent, self._latent)
        images = [torch.empty(0, self.size, self.size, 3, dtype=torch.float32)]
        cuda = [weight.device] if weight.is_cuda else []
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False), torch.random.fork_rng(devices=cuda):
            for start in range(0, len(x_NW), batch_size):
                x_BW = x_NW[start : start + batch_size].to(weight)
                noise = draw_noise(len(x_BW), math.prod(shape), seed=seed, first=start).view(-1, *shape)
                drawn = self.pipeline(
                    image_embeds=x_BW,
                    latents=self._initial_latents(noise.to(weight.device), steps).to(weight.dtype),
                    # The noise of the scheduler must also depend only on the seed and the row.
                    generator=[make_row_generator(seed, start + i, stream=1) for i in range(len(x_BW))],
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    output_type="np",
                    **self._pipeline_arguments(len(x_BW), guidance),
                ).images
                images.append(torch.as_tensor(drawn).float())
        return check_generated(torch.cat(images).permute(0, 3, 1, 2).contiguous())

    def _check_options(self, seed: int, steps: int, guidance: float, batch_size: int) -> None:
        check_integer("steps", steps, low=1, high=int(self.pipeline.scheduler.config.num_train_timesteps))
        check_sampling(seed, steps, guidance)
        check_integer("batch_size", batch_size, low=1)
        if guidance < 1:
            raise ConfigError(
                f"guidance must be at least 1, which disables it, for diffusers pipelines; got {guidance!r}"
            )

    @abstractmethod
    def _pipeline_arguments(self, count: int, guidance: float) -> dict[str, Any]: ...

    def _initial_latents(self, noise: Tensor, steps: int) -> Tensor:
        """Return scaled standard normal noise."""
        return noise


@dataclass(frozen=True)
class ImageTower:
    encoder: Any  # CLIPVisionModelWithProjection
    processor: Any  # CLIPImageProcessor
    fingerprint: str | None = None  # SHA-256 of the encoder's weights and configuration

    @property
    def dim(self) -> int:
        return int(self.encoder.config.projection_dim)

    def embed(self, images: Any, *, batch_size: int) -> Tensor:
        """Embed images with values in [0, 1]."""
        check_integer("batch_size", batch_size, low=1)
        x = check_images(images, square=False, min_count=0, range_error=DataError)
        # Convert to uint8, as if the images were loaded from files.
        bytes_NHSC = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        pil = import_extra("PIL.Image")
        out = [torch.empty(0, self.dim, dtype=torch.float32)]
        for start in range(0, len(x), batch_size):
            batch = [pil.fromarray(image) for image in bytes_NHSC[start : start + batch_size]]
            out.append(self.project(self.processor(images=batch, return_tensors="pt").pixel_values))
        return torch.cat(out)

    @torch.no_grad()
    def project(self, pixels: Tensor) -> Tensor:
        weight = next(self.encoder.parameters())
        with torch.autocast(weight.device.type, enabled=False):
            embeds: Tensor = self.encoder(pixels.to(weight)).image_embeds
        return embeds.float().cpu()
