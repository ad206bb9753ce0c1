"""`train_decoder`: a decoder from images and the embeddings of the same images.

Shapes: `N` training images, `S` pixels a side, `W` width of the embeddings.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign.config import DecoderConfig
from unialign.data import EmbeddingStore
from unialign.errors import CheckpointError, ConfigError, NonFiniteError
from unialign.generation._flow import draw_times, flow_loss
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._images import grid, write_png
from unialign.generation._training_images import TrainingImages, load_training_images
from unialign.io import checked_path
from unialign.train import (
    Progress,
    ProgressMode,
    Resume,
    RunFolder,
    RunLog,
    Snapshot,
    StopRequest,
    check_progress,
    check_resume,
    chosen_device,
    derived_seed,
    read_log,
    save_checkpoint,
)

__all__ = ["DecoderFit", "train_decoder"]

# Steps between checkpoints are not fewer: writing one takes about as long.
_FEWEST = 5
# Columns of the grid of a checkpoint.
_GRID = 16
_SCALE = 2

OnStep = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class DecoderFit:
    """The trained decoder (averaged weights, eval mode) and a record every `logging_steps` steps."""

    decoder: FlowDecoder
    history: list[dict[str, Any]] = field(repr=False)


def train_decoder(
    store: EmbeddingStore,
    config: DecoderConfig | None = None,
    *,
    image: str = "image",
    images: Tensor | None = None,
    out: str | os.PathLike[str] | None = None,
    resume: Resume = "never",
    device: str | torch.device = "auto",
    on_step: OnStep | None = None,
    progress: ProgressMode = "auto",
) -> DecoderFit:
    """Train a decoder on the training rows of a store: its column of image embeddings, and their images.

    The same store, configuration, torch version and number of threads give the same weights bit by bit on a CPU,
    whether or not the run was interrupted and resumed. The caller's random numbers are not touched.

    Args:
        config: None is the recipe for a CPU.
        image: the column of image embeddings that the decoder will read; its rows must be raw, as the encoder gave
            them.
        images: (items of the store, 3, size, size) in [0, 1], float or uint8 in [0, 255]; None reads the store's
            asset `thumbnails.zip`, a file `<modality>/<row>.webp` or `.png` for each item (needs `unialign[images]`).
        out: folder for `config.yaml`, `log.jsonl`, `checkpoints/`, a `samples-*.png` for each (held-out
            images over what is made of their embeddings) and, at the end, `decoder/`. None: nothing on disk.
        resume: as for `fit`: `never`, `auto` or `must`.
        device: `auto` (CUDA if there is one), `cpu`, `cuda`, `cuda:1`.
        on_step: called after every step with `step`, `steps` and `loss`; may raise KeyboardInterrupt to stop.
        progress: `bar`, `lines`, `none`; `auto` is `bar` on a terminal, else `lines`.

    Raises:
        ConfigError: settings that do not fit the store; `out` holds a run and `resume` is "never".
        DataError: no training rows, no images, or a checkpoint of other data.
        ShapeError: images of another number or size.
        NonFiniteError: an embedding, an image or the loss is not finite.
        CheckpointError: a checkpoint cannot be written or read.
        MissingDependencyError: network="unet", or thumbnails, without their extra.
        KeyboardInterrupt, SystemExit(143): Ctrl-C, SIGTERM; the running step and a checkpoint are completed first.
    """
    config = DecoderConfig() if config is None else config
    if not isinstance(config, DecoderConfig):
        raise ConfigError(f"config must be a DecoderConfig, got {config!r}; make one with `DecoderConfig.from_dict`")
    check_resume(resume, out)
    check_progress(progress)
    target = chosen_device(device)
    data = load_training_images(store, config, image, images)
    source = {"name": store.name, "fingerprint": store.fingerprint, "training_items": len(data.train), "image": image}
    facts: dict[str, Any] = {"training": config.to_dict(), "data": source}
    folder = None
    if out is not None:
        path = checked_path(out, "out", error=ConfigError)
        folder = RunFolder(
            path, result="decoder", defaults=DecoderConfig().to_dict(), bookkeeping=DecoderConfig.bookkeeping()
        )
    with (
        torch.random.fork_rng(devices=[target] if target.type == "cuda" else []),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(target.type, enabled=False),
        nullcontext() if folder is None else closing(folder),
    ):
        snapshot = None if folder is None else folder.begin(resume, facts)
        run = _Run(config, data, facts, target, folder)
        if snapshot is not None:
            run.restore(snapshot)
        finished = folder is not None and run.done == config.steps and _loads(folder)
        if folder is not None and not finished:
            place = {} if store.path is None else {"path": str(store.path)}
            folder.prepare({"decoder": config.to_dict(), "data": source | place})
        log = RunLog(None if folder is None or finished else folder.log, keep_steps=run.done, log_to=("jsonl",))
        if folder is not None and finished:
            log.records = read_log(folder.log)
        try:
            if run.done == 0:
                log.write("start", 0, facts)
            run.train(log, on_step, progress)
        finally:
            log.close()
        if folder is not None and not finished:
            run.average.save_pretrained(folder.result)
    return DecoderFit(run.average.cpu().eval(), log.history)


def _loads(folder: RunFolder) -> bool:
    """Whether the decoder of a run is there and whole; else it is written again."""
    try:
        FlowDecoder.from_pretrained(folder.result)
    except CheckpointError:
        return False
    return True


class _Run:
    """Weights, their average, the optimiser, and the step they are at. Batches depend on the seed and the step only."""

    def __init__(
        self,
        config: DecoderConfig,
        data: TrainingImages,
        facts: dict[str, Any],
        device: torch.device,
        folder: RunFolder | None,
    ) -> None:
        self.config, self.data, self.facts, self.device, self.folder = config, data, facts, device, folder
        torch.default_generator.manual_seed(derived_seed("init", config.seed))
        self.decoder, self.average = (FlowDecoder(config, data.spec, metadata=facts) for _ in range(2))
        images = data.images.float() / 255
        self.decoder.frame.fit(data.embeddings.numpy(), np.arange(len(data.embeddings)), name="image embeddings")
        self.decoder.basis.fit(images)
        self.average.load_state_dict(self.decoder.state_dict())
        self.decoder.to(device).train()
        self.average.to(device).eval()
        with torch.no_grad():
            self.conditions = self.decoder.condition(data.embeddings.to(device))
            self.samples = self.decoder.basis.encode(images.to(device))
            self.mirrored = self.decoder.basis.encode(images.flip(-1).to(device)) if config.flips != "none" else None
        decayed = [p for p in self.decoder.parameters() if p.ndim > 1]
        others = [p for p in self.decoder.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)
        self.done, self.seconds_before = 0, 0.0

    def restore(self, snapshot: Snapshot) -> None:
        try:
            for name, model in (("decoder", self.decoder), ("average", self.average)):
                prefix = f"{name}."
                found = {k.removeprefix(prefix): v for k, v in snapshot.space.items() if k.startswith(prefix)}
                model.load_state_dict(found)
            for name, value in snapshot.optimizer.items():
                parameter_name, _, key = name.rpartition("/")
                parameter = self.decoder.get_parameter(parameter_name)
                self.optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
        except (RuntimeError, KeyError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint of step {snapshot.step} does not fit this configuration: {error}"
            ) from None
        self.done = snapshot.step
        self.seconds_before = float(snapshot.facts.get("seconds", 0.0))

    def train(self, log: RunLog, on_step: OnStep | None, progress: ProgressMode) -> None:
        config, started = self.config, time.perf_counter()
        bar = Progress(progress, steps=config.steps, done=self.done, label="decoder")
        try:
            with StopRequest() as stop:
                for step in range(self.done, config.steps):
                    loss, norm = self._step(step)
                    self.done = step + 1
                    seconds = self.seconds_before + time.perf_counter() - started
                    info = {"step": self.done, "steps": config.steps, "loss": loss}
                    if self.done % config.logging_steps == 0 or self.done in (1, config.steps):
                        log.write("step", self.done, {"loss": loss, "grad_norm": norm, "seconds": round(seconds, 3)})
                    bar.step(info)
                    asked = _call(on_step, info, stop)
                    if asked or self.done == config.steps or self._is_due():
                        self._checkpoint(seconds)
                    if asked:
                        stop.leave(self._farewell(), asked)
        finally:
            bar.close()

    def _step(self, step: int) -> tuple[float, float]:
        config = self.config
        generator = torch.Generator().manual_seed(derived_seed(f"step {step}", config.seed))
        count, directions = config.batch_size, config.directions
        rows = torch.randint(len(self.samples), (count,), generator=generator)
        x = self.samples[rows.to(self.device)]
        if self.mirrored is not None:
            turned = torch.rand(count, generator=generator, dtype=torch.float32) < 0.5
            turned = turned.to(self.device).reshape(-1, *(1 for _ in x.shape[1:]))
            x = torch.where(turned, self.mirrored[rows.to(self.device)], x)
        times, noise = draw_times(count, generator), torch.randn(x.shape, generator=generator, dtype=torch.float32)
        doubt = torch.randn(count, directions, generator=generator, dtype=torch.float32)
        doubt = doubt * torch.rand(count, 1, generator=generator, dtype=torch.float32)
        dropped = torch.rand(count, generator=generator, dtype=torch.float32) < config.condition_dropout
        # On the CPU first, so that every device sees the same numbers.
        times, noise, doubt, dropped = (tensor.to(self.device) for tensor in (times, noise, doubt, dropped))
        condition = self.conditions[rows.to(self.device)] + config.condition_noise * doubt
        condition = nn.functional.normalize(condition, dim=1) * math.sqrt(directions)
        condition = torch.where(dropped[:, None], self.decoder.none, condition)
        for group in self.optimizer.param_groups:
            group["lr"] = _rate(config, step)
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
        with torch.no_grad():
            # Early on the weights move too fast for a long memory.
            decay = min(config.average, (1 + step) / (10 + step))
            for mean, now in zip(self.average.parameters(), self.decoder.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return loss.item(), float(norm)

    def _is_due(self) -> bool:
        """Short runs, too, lose a tenth of their steps at most, or 5."""
        every = self.config.save_steps
        return every is not None and self.done % min(every, max(_FEWEST, self.config.steps // 10)) == 0

    def _checkpoint(self, seconds: float) -> None:
        if self.folder is None:
            return
        shown = self._grid()  # first: what has diverged must not take the place of a checkpoint from before
        weights = {f"decoder.{name}": tensor for name, tensor in self.decoder.state_dict().items()}
        weights |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        snapshot = Snapshot(
            step=self.done,
            space=weights,
            objective={},
            optimizer={
                f"{name}/{key}": value
                for name, parameter in self.decoder.named_parameters()
                for key, value in self.optimizer.state.get(parameter, {}).items()
            },
            facts=self.facts | {"seconds": seconds},
        )
        save_checkpoint(self.folder.checkpoints, snapshot, keep=self.config.save_total_limit)
        write_png(self.folder.path / f"samples-{self.done:08d}.png", shown)

    def _grid(self) -> Tensor:
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.average.state_dict().values()):
            raise NonFiniteError(
                f"the weights of step {self.done} are not finite: training has diverged; lower lr, now "
                f"{self.config.lr}, or weight_decay, now {self.config.weight_decay}; earlier checkpoints are kept"
            )
        made = self.average.generate(self.data.shown_embeddings)
        images = self.data.shown_images.float() / 255
        rows = []
        for start in range(0, len(images), _GRID):
            rows += [list(images[start : start + _GRID]), list(made[start : start + _GRID])]
        return grid(rows, scale=_SCALE)

    def _farewell(self) -> str:
        where = "without out= nothing was kept"
        if self.folder is not None:
            where = f"a checkpoint is in {self.folder.checkpoints}: continue with resume='auto'"
        return f"training was interrupted after step {self.done} of {self.config.steps}; {where}"


def _call(on_step: OnStep | None, info: Mapping[str, Any], stop: StopRequest) -> int | None:
    """Tell the caller of a step; the signal to stop for, if somebody wants that."""
    if on_step is not None:
        try:
            on_step(info)
        except KeyboardInterrupt:
            return signal.SIGINT
    return stop.received


def _rate(config: DecoderConfig, step: int) -> float:
    warm = config.warmup_ratio * config.steps
    rising = min(1.0, (step + 1) / warm) if warm > 0 else 1.0
    return config.lr * rising * float(0.5 + 0.5 * np.cos(np.pi * step / config.steps))
