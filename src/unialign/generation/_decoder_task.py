"""Training task of a decoder: one step of flow matching, with a moving average of the weights.

Shapes: `N` training images, `S` pixels a side, `W` dimension of the embeddings.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign.config import DecoderConfig
from unialign.errors import NonFiniteError
from unialign.generation._flow import draw_times, flow_loss
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._images import grid, write_png
from unialign.generation._training_images import TrainingImages
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


class DecoderTask(TrainingTask):
    """A decoder, the moving average of its weights, and the optimizer."""

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
        self.decoder.frame.fit(data.embeddings.numpy(), np.arange(len(data.embeddings)), name="image embeddings")
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
                f"the gradient of step {step + 1} is not finite (loss {loss.item()}); nothing was updated: lower lr, "
                f"now {config.lr}, or continue from an earlier checkpoint"
            )
        self.optimizer.step()
        self._update_average(step)
        values = {"loss": loss.item(), "grad_norm": float(norm)}
        return StepReport({"loss": values["loss"]}, lambda: values)

    def _draw(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw samples, conditions, times and noise of a step, on the device."""
        config, count, device = self.config, self.config.batch_size, self.device
        # Drawn on the CPU, so that all devices use the same numbers.
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
        condition = torch.where(dropped.to(device)[:, None], self.decoder.none, condition)
        return x, condition, times.to(device), noise.to(device)

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        # Use a shorter average early in training, when weights change quickly.
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
        # Raise for a diverged state here, before it replaces an earlier checkpoint.
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.average.state_dict().values()):
            raise NonFiniteError(
                f"the weights of step {step} are not finite: training has diverged; lower lr, now {self.config.lr}, or "
                f"weight_decay, now {self.config.weight_decay}; earlier checkpoints are kept"
            )
        generated = self.average.generate(self.data.shown_embeddings)
        images = self.data.shown_images.float() / 255
        rows: list[list[Tensor]] = []
        for start in range(0, len(images), _GRID_COLUMNS):
            rows += [list(images[start : start + _GRID_COLUMNS]), list(generated[start : start + _GRID_COLUMNS])]
        self._samples = grid(rows, scale=_GRID_SCALE)

    def after_checkpoint(self, step: int, folder: Path) -> None:
        write_png(folder / f"samples-{step:08d}.png", self._samples)
