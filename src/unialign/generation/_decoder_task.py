"""Train a decoder by flow matching, with an exponential moving average of its weights.

Shapes: `N` training images, `S` x `S` pixels of an image, `W` dimension of the embeddings.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unialign.config import DecoderConfig
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.errors import DataError, NonFiniteError, ShapeError
from unialign.generation._decoder import EmbeddingSpec
from unialign.generation._flow import draw_times, flow_loss
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._images import grid, write_png
from unialign.generation._thumbnails import read_thumbnails
from unialign.train import (
    StepReport,
    TrainingTask,
    derived_seed,
    learning_rate,
    load_optimizer_tensors,
    make_adamw,
    optimizer_tensors,
)

_GRID_COLUMNS = 16
_GRID_SCALE = 2
# Largest number of held-out images in the sample grids of a run.
_SHOWN = 32


@dataclass(frozen=True)
class TrainingImages:
    """Embeddings (N, W) and uint8 images (N, 3, S, S). The sample grids show held-out rows, or training rows if there
    are none.
    """

    spec: EmbeddingSpec
    embeddings: Tensor
    images: Tensor
    shown_embeddings: Tensor
    shown_images: Tensor


def load_training_images(
    store: EmbeddingStore, config: DecoderConfig, image: str, images: Tensor | None
) -> TrainingImages:
    if not isinstance(store, EmbeddingStore):
        raise DataError(
            f"store must be an EmbeddingStore, got {type(store).__name__}; see `unialign.data.load_dataset`"
        )
    dim, present = store.dim(image), store.present(image)
    train = store.rows("train")
    train = train[present[train]]
    if len(train) < 2:
        raise DataError(f"{image!r} of {store.name!r} has {len(train)} training rows; a decoder needs at least 2")
    held_out = np.concatenate([store.rows(split)[present[store.rows(split)]] for split in ("val", "test")])
    source = held_out if len(held_out) else train
    shown = source[np.linspace(0, len(source) - 1, min(len(source), _SHOWN)).round().astype(int)]
    rows = np.concatenate([train, shown])
    if images is None:
        pixels = read_thumbnails(store, image, rows, config.size)
    else:
        pixels = _select_images(images, rows, (store.items, 3, config.size, config.size))
    if not bool(torch.isfinite(pixels).all()) or float(pixels.min()) < 0 or float(pixels.max()) > 1:
        raise NonFiniteError("images must be uint8, or finite numbers in [0, 1]; scale them")
    pixels = (pixels * 255).round().to(torch.uint8)
    embeddings = torch.from_numpy(store.array(image)[rows].astype(np.float32))
    if len(bad := (~torch.isfinite(embeddings).all(1)).nonzero()):
        raise NonFiniteError(
            f"{image!r}, row {int(rows[int(bad[0])])} of the store, is not finite in float32; mark it as absent"
        )
    provenance = store.provenance.get("columns", {}).get(image)
    encoder = provenance.get("encoder") if isinstance(provenance, dict) else None
    count = len(train)
    spec = EmbeddingSpec(
        encoder=str(encoder or f"the column {image!r} of {store.name!r}"),
        dim=dim,
        fingerprint=encoder_fingerprint(store, image),
        norm=float(embeddings[:count].norm(dim=1).mean()),
        scale_invariant=True,
    )
    return TrainingImages(spec, embeddings[:count], pixels[:count], embeddings[count:], pixels[count:])


def _select_images(images: Any, rows: NDArray[np.int64], shape: tuple[int, ...]) -> Tensor:
    if not isinstance(images, Tensor) or images.shape != shape:
        found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ShapeError(f"images are {found}; expected a tensor of shape {shape}, one image for each item")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ShapeError(f"images have dtype {images.dtype}; expected uint8 in [0, 255], or float in [0, 1]")
    chosen = images[torch.from_numpy(rows)]
    return chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen


class DecoderTask(TrainingTask):
    model_type = FlowDecoder

    def __init__(
        self, config: DecoderConfig, data: TrainingImages, facts: dict[str, Any], device: torch.device
    ) -> None:
        self.label, self.steps, self.device = "decoder", config.steps, device
        self.config, self.data, self.facts = config, data, facts

    def setup(self) -> None:
        config, data, device = self.config, self.data, self.device
        torch.default_generator.manual_seed(derived_seed("init", config.seed))
        self.decoder, self.average = (FlowDecoder(config, data.spec, metadata=self.facts) for _ in range(2))
        self.model = self.average
        images = data.images.float() / 255
        self.decoder.whitening.fit(data.embeddings.numpy(), np.arange(len(data.embeddings)), name="image embeddings")
        self.decoder.basis.fit(images)
        self.average.load_state_dict(self.decoder.state_dict())
        self.decoder.to(device).train()
        self.average.to(device).eval()
        with torch.no_grad():
            self.conditions = self.decoder.condition(data.embeddings.to(device))
            self.samples = self.decoder.basis.encode(images.to(device))
            self.mirrored = None
            if config.flips != "none":
                self.mirrored = self.decoder.basis.encode(images.flip(-1).to(device))
        self.parameters = dict(self.decoder.named_parameters())
        self.optimizer = make_adamw(self.parameters, lr=config.lr, weight_decay=config.weight_decay)

    def step(self, step: int) -> StepReport:
        config = self.config
        x, condition, times, noise = self._draw(step)
        lr = learning_rate(
            step, steps=config.steps, warmup=config.warmup_ratio * config.steps, highest=config.lr, cosine_from="start"
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss = flow_loss(self.decoder.network, x, condition, times_N=times, noise=noise)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.decoder.parameters(), config.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise NonFiniteError(
                f"the gradient of step {step + 1} is not finite (loss {loss.item()}), so nothing was updated; lower "
                f"lr, now {config.lr}, or continue from an earlier checkpoint"
            )
        self.optimizer.step()
        self._update_average(step)
        values = {"loss": loss.item(), "grad_norm": float(norm)}
        return StepReport({"loss": values["loss"]}, lambda: values)

    def _draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        config, count, device = self.config, self.config.batch_size, self.device
        # Draw on the CPU, so that the numbers do not depend on the device.
        generator = torch.Generator().manual_seed(derived_seed(f"step {step}", config.seed))
        rows = torch.randint(len(self.samples), (count,), generator=generator).to(device)
        x = self.samples[rows]
        if self.mirrored is not None:
            flipped = (torch.rand(count, generator=generator, dtype=torch.float32) < 0.5).to(device)
            x = torch.where(flipped.reshape(-1, *(1 for _ in x.shape[1:])), self.mirrored[rows], x)
        times, noise = draw_times(count, generator), torch.randn(x.shape, generator=generator, dtype=torch.float32)
        shift = torch.randn(count, config.directions, generator=generator, dtype=torch.float32)
        shift = shift * torch.rand(count, 1, generator=generator, dtype=torch.float32)
        dropped = torch.rand(count, generator=generator, dtype=torch.float32) < config.condition_dropout
        condition = self.conditions[rows] + config.condition_noise * shift.to(device)
        condition = nn.functional.normalize(condition, dim=1) * math.sqrt(config.directions)
        condition = torch.where(dropped.to(device)[:, None], self.decoder.null_condition, condition)
        return x, condition, times.to(device), noise.to(device)

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        # Average over fewer steps early in training, when the weights change quickly.
        decay = min(self.config.average, (1 + step) / (10 + step))
        for mean, current in zip(self.average.parameters(), self.decoder.parameters(), strict=True):
            mean.lerp_(current, 1 - decay)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {
            "decoder": dict(self.decoder.state_dict()),
            "average": dict(self.average.state_dict()),
            "optimizer": optimizer_tensors(self.optimizer, self.parameters),
        }

    def load_tensors(self, tensors: Mapping[str, dict[str, Tensor]]) -> None:
        self.decoder.load_state_dict(tensors["decoder"])
        self.average.load_state_dict(tensors["average"])
        load_optimizer_tensors(self.optimizer, self.parameters, tensors["optimizer"])

    def before_checkpoint(self, step: int) -> None:
        # Raise before a diverged state replaces an earlier checkpoint.
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.average.state_dict().values()):
            raise NonFiniteError(
                f"training has diverged, since the weights of step {step} are not finite; lower lr, now "
                f"{self.config.lr}, or weight_decay, now {self.config.weight_decay}. Earlier checkpoints are kept"
            )
        generated = self.average.generate(self.data.shown_embeddings)
        images = self.data.shown_images.float() / 255
        rows: list[list[Tensor]] = []
        for start in range(0, len(images), _GRID_COLUMNS):
            rows += [list(images[start : start + _GRID_COLUMNS]), list(generated[start : start + _GRID_COLUMNS])]
        self._samples = grid(rows, scale=_GRID_SCALE)

    def after_checkpoint(self, step: int, folder: Path) -> None:
        write_png(folder / f"samples-{step:08d}.png", self._samples)
