"""Common code of the diffusers adapters: loading components, sampling in batches, embedding images.

Shapes: `N` images, `B` of them at once, `W` dimension of the embeddings, `H` and `S` pixels a side.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_integer
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.generation._decoder import (
    EmbeddingSpec,
    check_embeddings,
    check_generated,
    check_sampling,
    noise_rows,
)
from unialign.generation._images import check_images
from unialign.generation._pipeline_folder import (
    INDEX,
    PipelineSpec,
    encoder_weights_fingerprint,
    import_extra,
    read_object,
)

__all__ = [
    "ImageTower",
    "PipelineDecoder",
    "check_guidance",
    "latent_side",
    "load_pipeline",
    "resolve_device",
    "row_generator",
    "sample_rows",
    "to_images",
]


def load_pipeline(
    folder: Path, spec: PipelineSpec, *, device: torch.device, dtype: torch.dtype | None, **components: Any
) -> Any:
    """Load the pipeline in a folder checked by `open_folder`, without progress bars; `components` are reused.

    Components are loaded one by one, since `DiffusionPipeline.from_pretrained` leaves missing weights at random values
    without an error.
    """
    diffusers = import_extra("diffusers")
    index = read_object(folder / INDEX)
    with _loading(device):
        for part in spec.components:
            if part not in components:
                load = _load_model if part in spec.models else _load_other
                components[part] = load(folder / part, *index[part], dtype=dtype)
        with _checkpoint_errors(folder, spec.pipeline):
            pipeline = getattr(diffusers, spec.pipeline)(**components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)


def _load_model(part: Path, library: str, name: str, *, dtype: torch.dtype | None) -> Any:
    """Load a component with weights; raise CheckpointError for missing weights."""
    # StableUnCLIPImageNormalizer is the only model that diffusers defines among its pipelines.
    diffusers = import_extra("diffusers")
    module = diffusers.pipelines.stable_diffusion if library == "stable_diffusion" else import_extra(library)
    with _checkpoint_errors(part, name):
        model, info = getattr(module, name).from_pretrained(
            part, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(
            f"{part} lacks {len(missing)} of the weights of a {name}, such as {missing[0]}; download or save it again"
        )
    wanted = dtype or torch.float32
    return model.eval() if next(model.parameters()).dtype == wanted else model.to(wanted).eval()


def _load_other(part: Path, library: str, name: str, *, dtype: torch.dtype | None = None) -> Any:
    """Load a scheduler, a tokenizer or an image processor."""
    module = import_extra(library)
    if part.name in ("feature_extractor", "image_processor"):
        # Use Pillow, as when the models were published; otherwise embeddings depend on an installed torchvision.
        pillow = "CLIPImageProcessorPil"
        name = pillow if hasattr(module, pillow) else "CLIPImageProcessor"
    with _checkpoint_errors(part, name):
        return getattr(module, name).from_pretrained(part, local_files_only=True)


@contextmanager
def _checkpoint_errors(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged folders can raise any exception
        raise CheckpointError(f"{folder} does not load as {name} ({type(error).__name__}: {error})") from error


def resolve_device(device: str | torch.device, dtype: torch.dtype | None) -> torch.device:
    """Return the device; raise ConfigError if it is unavailable, or if `dtype` is neither a floating dtype nor None."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype must be a floating dtype such as torch.float16, or None, got {dtype!r}")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try 'cpu'") from None
    return found


def latent_side(pipeline: Any) -> int:
    """Return the side of the latents that the denoiser was trained on."""
    side = pipeline.unet.config.sample_size
    if not isinstance(side, int):
        raise CheckpointError(f"the denoiser (unet) has sample_size {side!r}; expected an integer (square latents)")
    return side


def check_guidance(
    seed: int, steps: int, guidance: float, batch_size: int, *, scheduler: Any, min_steps: int = 1
) -> None:
    """Call `check_sampling` with the limits of the scheduler and of diffusers pipelines (guidance >= 1)."""
    check_integer("steps", steps, low=min_steps, high=int(scheduler.config.num_train_timesteps))
    check_sampling(seed, steps, guidance)
    check_integer("batch_size", batch_size, low=1)
    if guidance < 1:
        raise ConfigError(f"guidance must be at least 1 (off) for diffusers pipelines, got {guidance!r}")


def sample_rows(
    rows: int,
    shape: tuple[int, ...],
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    draw: Callable[[slice, Tensor, list[torch.Generator]], Any],
) -> list[Tensor]:
    """Call `draw` for each batch and return the results as float32 on the CPU; restore global random states.

    Args:
        shape: shape of one row's initial noise.
        draw: (rows, noise (B, *shape), one generator per row for the scheduler's noise) -> (B, ...).
    """
    out = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False), _fork_rng(device):
        for start in range(0, rows, batch_size):
            part = slice(start, min(start + batch_size, rows))
            noise = noise_rows(part.stop - start, int(np.prod(shape)), seed=seed, first=start).view(-1, *shape)
            drawn = draw(part, noise, [row_generator(seed, i) for i in range(start, part.stop)])
            out.append(torch.as_tensor(drawn).detach().float().cpu())
    return out


def to_images(batches: list[Tensor], size: int) -> Tensor:
    """Concatenate a pipeline's batches (B, S, S, 3) to (N, 3, S, S)."""
    empty = torch.empty(0, size, size, 3, dtype=torch.float32)
    return check_generated(torch.cat([empty, *batches]).permute(0, 3, 1, 2).contiguous())


class PipelineDecoder:
    """Base class of decoders that generate images with a diffusers pipeline in batches.

    Args:
        pipeline: the pipeline, on its device.
        input_spec: the embeddings that it decodes.
        latent: side of the latents.
        scale: image side in pixels per side of the latents.
    """

    default_steps: ClassVar[int]
    default_guidance: ClassVar[float]

    def __init__(self, pipeline: Any, input_spec: EmbeddingSpec, *, latent: int, scale: int) -> None:
        self.pipeline = pipeline
        self.input_spec = input_spec
        self.size = latent * scale
        self._latent = latent

    def generate(
        self,
        embeddings: Any,
        *,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        batch_size: int = 8,
    ) -> Tensor:
        """See `Decoder.generate`; `guidance` is at least 1, and `batch_size` rows are generated at once."""
        x_NW = check_embeddings(embeddings, self.input_spec)
        steps = self.default_steps if steps is None else steps
        guidance = self.default_guidance if guidance is None else guidance
        check_guidance(seed, steps, guidance, batch_size, scheduler=self.pipeline.scheduler)
        weight = next(self.pipeline.unet.parameters())
        arguments = self._arguments(weight, guidance)

        def draw(rows: slice, noise: Tensor, generators: list[torch.Generator]) -> Any:
            return self.pipeline(
                image_embeds=x_NW[rows].to(weight.device, weight.dtype),
                latents=self._latents(noise.to(weight.device), steps).to(weight.dtype),
                generator=generators,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
                **arguments(len(noise)),
            ).images

        shape = (int(self.pipeline.unet.config.in_channels), self._latent, self._latent)
        drawn = sample_rows(len(x_NW), shape, seed=seed, batch_size=batch_size, device=weight.device, draw=draw)
        return to_images(drawn, self.size)

    def _arguments(self, weight: Tensor, guidance: float) -> Callable[[int], dict[str, Any]]:
        """Return further pipeline arguments as a function of batch size; `weight` provides device and dtype."""
        raise NotImplementedError

    def _latents(self, noise: Tensor, steps: int) -> Tensor:
        """Scale unit noise to initial latents."""
        return noise


@dataclass(frozen=True)
class ImageTower:
    """The image encoder of a pipeline with its image processor.

    Attributes:
        encoder: a `CLIPVisionModelWithProjection`.
        processor: its `CLIPImageProcessor`.
        fingerprint: sha256 of its weights and configuration, None if unknown.
    """

    encoder: Any
    processor: Any
    fingerprint: str | None = None

    @property
    def dim(self) -> int:
        """W."""
        return int(self.encoder.config.projection_dim)

    def embed(self, images: Any, *, batch_size: int) -> Tensor:
        """Embed (N, 3, H, S) images in [0, 1] as (N, W) float32 on the CPU, neither centered nor normalized."""
        check_integer("batch_size", batch_size, low=1)
        x = check_images(images, square=False, min_count=0, range_error=DataError)
        # Convert to bytes, as the processor receives them from an image file.
        bytes_NHSC = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        pil = import_extra("PIL.Image")
        out = [torch.empty(0, self.dim, dtype=torch.float32)]
        for start in range(0, len(x), batch_size):
            batch = [pil.fromarray(image) for image in bytes_NHSC[start : start + batch_size]]
            out.append(self.project(self.processor(images=batch, return_tensors="pt").pixel_values))
        return torch.cat(out)

    @torch.no_grad()
    def project(self, pixels: Tensor) -> Tensor:
        """Project the processor's pixel values (B, 3, S, S) to (B, W) float32 on the CPU."""
        weight = next(self.encoder.parameters())
        with torch.autocast(weight.device.type, enabled=False):
            embeds: Tensor = self.encoder(pixels.to(weight.device, weight.dtype)).image_embeds
        return embeds.float().cpu()

    @classmethod
    def load(cls, folder: Path, *, processor: str, device: torch.device, dtype: torch.dtype | None) -> "ImageTower":
        """Load only the tower from a folder checked by `open_folder`."""
        with _loading(device):
            encoder = _load_model(
                folder / "image_encoder", "transformers", "CLIPVisionModelWithProjection", dtype=dtype
            ).to(device)
            prepare = _load_other(folder / processor, "transformers", "CLIPImageProcessor")
        return cls(encoder, prepare, encoder_weights_fingerprint(folder))


def row_generator(seed: int, row: int) -> torch.Generator:
    """Return a generator for the scheduler's noise that depends on seed and row and is independent of `noise_rows`."""
    state = np.random.SeedSequence([seed, row], spawn_key=(1,)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def _fork_rng(device: torch.device) -> AbstractContextManager[None]:
    """Restore the global random states afterwards."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _loading(device: torch.device) -> Iterator[None]:
    """Hide progress bars and restore the global random states."""
    logs = [import_extra(name).utils.logging for name in ("diffusers", "transformers")]
    enabled = [log.is_progress_bar_enabled() for log in logs]
    hub = import_extra("huggingface_hub").utils
    # transformers also toggles the progress bars of huggingface_hub.
    hub_disabled = hub.are_progress_bars_disabled()
    for log in logs:
        log.disable_progress_bar()
    try:
        with _fork_rng(device):
            yield
    finally:
        for log, was_enabled in zip(logs, enabled, strict=True):
            if was_enabled:
                log.enable_progress_bar()
        (hub.disable_progress_bars if hub_disabled else hub.enable_progress_bars)()
