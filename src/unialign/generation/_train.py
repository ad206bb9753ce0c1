"""Train a decoder on images and their embeddings."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unialign.config import DecoderConfig, ProgressMode, Resume
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.generation._decoder_task import DecoderTask, load_training_images
from unialign.generation._flow_decoder import FlowDecoder
from unialign.train import (
    OnStep,
    RunDir,
    Trainer,
    check_run_arguments,
    chosen_device,
)

# Minimum number of steps between checkpoints, which take about as long to write as the same number of training steps.
_FEWEST_STEPS_BETWEEN_CHECKPOINTS = 5


@dataclass(frozen=True)
class DecoderFit:
    """Trained decoder (averaged weights, in eval mode), and its training log, one entry per `logging_steps` steps."""

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
    """Train a decoder on the images and image embeddings of the training items of a store.

    On a CPU, the same store, configuration, PyTorch version and number of threads give bitwise equal weights, even if
    the run was interrupted and resumed. The caller's random state is not changed. Concurrent calls from several threads
    of a process run one after another.

    Args:
        config: settings; None: the settings for a CPU.
        image: column of the raw image embeddings that the decoder will accept.
        images: one image per item of the store, of shape (items, 3, size, size), float in [0, 1] or uint8. None: read
            `<modality>/<row>.webp` or `.png` from the store's asset `thumbnails.zip` (requires `unialign[images]`).
        out: folder for `config.yaml`, `log.jsonl`, `checkpoints/`, one `samples-*.png` per checkpoint (held-out images
            above images generated from their embeddings) and, after training, `decoder/`. None: write nothing.
        resume: `never`, `auto` or `required`, as in `fit`.
        device: `auto` (CUDA if available), or a device such as `cpu`, `cuda` or `cuda:1`.
        on_step: called after every step with `step`, `steps` and `loss`; may raise KeyboardInterrupt to stop.
        progress: `bar`, `lines`, `none`, or `auto` (`bar` on a terminal, else `lines`).

    Raises:
        ConfigError: settings do not match the store, or `out` contains a run and `resume` is "never".
        DataError: there are fewer than two training rows or no images, or a checkpoint is from other data.
        ShapeError: the number or size of the images is wrong.
        NonFiniteError: an embedding, an image or the loss is not finite.
        CheckpointError: a checkpoint cannot be written or read.
        MissingDependencyError: the extra required by network="unet" or by thumbnails is not installed.
        KeyboardInterrupt, SystemExit(143): Ctrl-C or SIGTERM was received; the current step and a checkpoint are
            completed first.
    """
    config = DecoderConfig() if config is None else config
    if not isinstance(config, DecoderConfig):
        raise ConfigError(f"config must be a DecoderConfig, got {config!r}; see `DecoderConfig.from_dict`")
    check_run_arguments(out, resume, progress, on_step)
    target = chosen_device(device)
    data = load_training_images(store, config, image, images)
    source = {"name": store.name, "fingerprint": store.fingerprint, "training_items": len(data.images), "image": image}
    facts: dict[str, Any] = {"training": config.to_dict(), "data": source}
    folder = None
    if out is not None:
        path = {} if store.path is None else {"path": str(store.path)}
        settings = {"decoder": facts["training"], "data": source | path}
        folder = RunDir(out, config, facts=facts, settings=settings, result="decoder")
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(target.type, enabled=False):
        task = DecoderTask(config, data, facts, target)
        saving = config
        if config.save_steps is not None:
            # Save more often in short runs, so that an interruption loses at most a tenth of the steps.
            often = max(_FEWEST_STEPS_BETWEEN_CHECKPOINTS, config.steps // 10)
            saving = config.replace(save_steps=min(config.save_steps, often))
        trainer = Trainer(task, saving, folder=folder, resume=resume, on_step=on_step, progress=progress)
        trainer.run()
    return DecoderFit(task.average.cpu(), trainer.log.history)
