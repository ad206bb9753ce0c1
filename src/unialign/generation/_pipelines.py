"""What the pipelines of diffusers share: a folder is checked before anything is loaded, and images become embeddings.

Shapes: `N` images, `B` of them at once, `W` width of the embeddings, `H` and `S` pixels a side.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_integer
from unialign.batch import as_dense
from unialign.errors import CheckpointError, ConfigError, DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import check_made, check_sampling, noise_rows
from unialign.generation._pipeline_folder import (
    INDEX,
    KANDINSKY,
    STABLE_UNCLIP,
    Layout,
    class_name,
    extra,
    fetch,
    is_pipeline,
    read_object,
    refusal,
    tower_identity,
)

if TYPE_CHECKING:
    from unialign.generation._kandinsky import Kandinsky22
    from unialign.generation._stable_unclip import StableUnCLIP

__all__ = [
    "ImageTower",
    "check_guided",
    "images_of",
    "is_pipeline",
    "latent_side",
    "load_pipeline",
    "load_pipeline_decoder",
    "place",
    "row_generator",
    "sample_rows",
]


def load_pipeline_decoder(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    prior: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> "StableUnCLIP | Kandinsky22":
    """The decoder of a pipeline of diffusers, of the class that its `model_index.json` names.

    Args:
        source: a folder, or an `owner/name` on the Hugging Face Hub.
        revision: branch, tag or commit on the Hub.
        prior: for Kandinsky 2.2, see `Kandinsky22.from_pretrained`.
        device: where the weights go.
        dtype: of the weights; None is float32.

    Raises:
        MissingDependencyError: diffusers is not installed.
        ConfigError: a pipeline that is not conditioned on image embeddings alone, or is deprecated.
        CheckpointError: no such folder; a component is missing, or a pickle.
    """
    from unialign.generation._kandinsky import Kandinsky22
    from unialign.generation._stable_unclip import StableUnCLIP

    folder = fetch(source, revision, [INDEX])
    name = class_name(folder)
    if name == KANDINSKY.pipeline:
        return Kandinsky22.from_pretrained(source, revision=revision, prior=prior, device=device, dtype=dtype)
    if name != STABLE_UNCLIP.pipeline:
        raise refusal(folder, name)
    if prior is not None:
        raise ConfigError(f"prior={os.fspath(prior)!r} is for Kandinsky 2.2; {folder} holds Stable unCLIP, without one")
    return StableUnCLIP.from_pretrained(source, revision=revision, device=device, dtype=dtype)


def load_pipeline(
    folder: Path, layout: Layout, *, device: torch.device, dtype: torch.dtype | None, **components: Any
) -> Any:
    """The pipeline of a folder that `open_folder` gave, silent, its weights in place; `components` are not loaded."""
    diffusers = extra("diffusers")
    index = read_object(folder / INDEX)
    # Component by component: whole pipelines load with weights missing, and say so in a log at best.
    with _loading(device):
        for part in layout.models + layout.rest:
            if part not in components:
                load = _load_model if part in layout.models else _load_rest
                components[part] = load(folder / part, *index[part], dtype=dtype)
        with _explained(folder, layout.pipeline):
            pipeline = getattr(diffusers, layout.pipeline)(**components)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(device)


def _load_model(part: Path, library: str, name: str, *, dtype: torch.dtype | None) -> Any:
    """One component with weights; refused if one is missing, which diffusers and transformers would draw at random."""
    # The one model that diffusers keeps among its pipelines.
    module = extra("diffusers").pipelines.stable_diffusion if library == "stable_diffusion" else extra(library)
    with _explained(part, name):
        model, found = getattr(module, name).from_pretrained(
            part, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError(
            f"{part} lacks {len(missing)} of the weights of a {name}, such as {missing[0]}; download or save it again"
        )
    wanted = dtype or torch.float32
    return model.eval() if next(model.parameters()).dtype == wanted else model.to(wanted).eval()


def _load_rest(part: Path, library: str, name: str, *, dtype: torch.dtype | None = None) -> Any:
    """A scheduler, a tokenizer, or what prepares images."""
    module = extra(library)
    if part.name in ("feature_extractor", "image_processor"):
        # By Pillow, as when the towers were published: embeddings would else depend on whether torchvision is there.
        pillow = "CLIPImageProcessorPil"
        name = pillow if hasattr(module, pillow) else "CLIPImageProcessor"
    with _explained(part, name):
        return getattr(module, name).from_pretrained(part, local_files_only=True)


@contextmanager
def _explained(folder: Path, name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what a folder may hold is without end, and so are the exceptions
        raise CheckpointError(f"{folder} does not load as {name} ({type(error).__name__}: {error})") from error


def place(device: str | torch.device, dtype: torch.dtype | None) -> torch.device:
    """The device that is meant; ConfigError for what is no device here, or no dtype of weights."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ConfigError(f"dtype must be a floating one such as torch.float16, or None, got {dtype!r}")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ConfigError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try 'cpu'") from None
    return found


def latent_side(pipeline: Any) -> int:
    """Side of the latents that the denoiser was made for."""
    side = pipeline.unet.config.sample_size
    if not isinstance(side, int):
        raise CheckpointError(f"the denoiser (unet) has sample_size {side!r}; expected one integer, of a square")
    return side


def check_guided(
    seed: int, steps: int, guidance: float, batch_size: int, *, scheduler: Any, fewest_steps: int = 1
) -> None:
    """`check_sampling`, with what a scheduler and these pipelines can do: no guidance away from a condition."""
    check_integer("steps", steps, low=fewest_steps, high=int(scheduler.config.num_train_timesteps))
    check_sampling(seed, steps, guidance)
    check_integer("batch_size", batch_size, low=1)
    if guidance < 1:
        raise ConfigError(f"guidance must be at least 1 for a pipeline of diffusers (1 is without), got {guidance!r}")


def sample_rows(
    rows: int,
    shape: tuple[int, ...],
    *,
    seed: int,
    batch_size: int,
    device: torch.device,
    draw: Callable[[slice, Tensor, list[torch.Generator]], Any],
) -> list[Tensor]:
    """What `draw` makes of each batch, float32 on the CPU; the global random numbers stay as they were.

    Args:
        shape: of one row's first noise.
        draw: (rows, noise (B, *shape), a generator a row for what a scheduler draws on its way) -> (B, ...).
    """
    out = []
    with torch.no_grad(), torch.autocast(device.type, enabled=False), _own_random(device):
        for start in range(0, rows, batch_size):
            part = slice(start, min(start + batch_size, rows))
            numbers = range(part.start, part.stop)
            noise = noise_rows(len(numbers), int(np.prod(shape)), seed=seed, first=start).view(-1, *shape)
            made = draw(part, noise, [row_generator(seed, i) for i in numbers])
            out.append(torch.as_tensor(made).detach().float().cpu())
    return out


def images_of(batches: list[Tensor], size: int) -> Tensor:
    """(N, 3, S, S) of batches as pipelines give them, (B, S, S, 3)."""
    empty = torch.empty(0, size, size, 3, dtype=torch.float32)
    return check_made(torch.cat([empty, *batches]).permute(0, 3, 1, 2).contiguous())


@dataclass(frozen=True)
class ImageTower:
    """The image encoder of a pipeline with what prepares its images.

    Attributes:
        encoder: a `CLIPVisionModelWithProjection`.
        processor: its `CLIPImageProcessor`.
        identity: sha256 of its weights and configuration, None if unknown.
    """

    encoder: Any
    processor: Any
    identity: str | None = None

    @property
    def width(self) -> int:
        """W."""
        return int(self.encoder.config.projection_dim)

    def embed(self, images: Any, *, batch_size: int) -> Tensor:
        """(N, 3, H, S) images in [0, 1] -> (N, W) float32 on the CPU, neither centred nor normalised."""
        check_integer("batch_size", batch_size, low=1)
        x = _check_images(images)
        # In bytes, since that is how the processor would get them from a file.
        bytes_NHSC = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        pil = extra("PIL.Image")
        out = [torch.empty(0, self.width, dtype=torch.float32)]
        for start in range(0, len(x), batch_size):
            batch = [pil.fromarray(image) for image in bytes_NHSC[start : start + batch_size]]
            out.append(self.project(self.processor(images=batch, return_tensors="pt").pixel_values))
        return torch.cat(out)

    @torch.no_grad()
    def project(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) pixels as the processor gives them -> (B, W) float32 on the CPU."""
        weight = next(self.encoder.parameters())
        with torch.autocast(weight.device.type, enabled=False):
            embeds: Tensor = self.encoder(pixels.to(weight.device, weight.dtype)).image_embeds
        return embeds.float().cpu()

    @classmethod
    def load(cls, folder: Path, *, processor: str, device: torch.device, dtype: torch.dtype | None) -> "ImageTower":
        """The tower alone, of a folder that `open_folder` gave."""
        part = folder / "image_encoder"
        with _loading(device):
            encoder = _load_model(part, "transformers", "CLIPVisionModelWithProjection", dtype=dtype).to(device)
            prepare = _load_rest(folder / processor, "transformers", "CLIPImageProcessor")
        return cls(encoder, prepare, tower_identity(folder))


def _check_images(images: Any) -> Tensor:
    expected = "(N, 3, height, width) floating numbers in [0, 1]"
    x = as_dense(images, "images", expected)
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:] or not x.is_floating_point():
        raise ShapeError(f"images have shape {tuple(x.shape)} and dtype {x.dtype}; expected {expected}")
    x = x.detach().float().cpu()
    for i, image in enumerate(x):
        if not bool(torch.isfinite(image).all()):
            raise NonFiniteError(f"image {i} holds NaN or infinity; expected {expected}")
        if float(image.min()) < 0 or float(image.max()) > 1:
            raise DataError(
                f"image {i} has values from {float(image.min()):.4g} to {float(image.max()):.4g}; expected "
                f"[0, 1] (divide bytes by 255)"
            )
    return x


def row_generator(seed: int, row: int) -> torch.Generator:
    """For the noise that comes after the first: of the seed and the row too, and independent of `noise_rows`."""
    state = np.random.SeedSequence([seed, row], spawn_key=(1,)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))


def _own_random(device: torch.device) -> AbstractContextManager[None]:
    """The global random numbers stay as they were, whatever diffusers draws."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def _loading(device: torch.device) -> Iterator[None]:
    """No bars on the screen while a pipeline loads, and no global random numbers drawn."""
    logs = [extra(name).utils.logging for name in ("diffusers", "transformers")]
    shown = [log.is_progress_bar_enabled() for log in logs]
    hub = extra("huggingface_hub").utils
    # What transformers switches, it switches for the hub too.
    hub_hidden = hub.are_progress_bars_disabled()
    for log in logs:
        log.disable_progress_bar()
    try:
        with _own_random(device):
            yield
    finally:
        for log, was in zip(logs, shown, strict=True):
            if was:
                log.enable_progress_bar()
        if hub_hidden:
            hub.disable_progress_bars()
        else:
            hub.enable_progress_bars()
