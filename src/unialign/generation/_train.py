"""`train_decoder`: train a decoder on images and their embeddings."""

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

# Smallest number of steps between checkpoints; writing a checkpoint takes about as long as this many steps.
_FEWEST_STEPS_BETWEEN_CHECKPOINTS = 5


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
    """Train a decoder on the training rows of a store: a column of image embeddings, and the images.

    The same store, configuration, torch version and number of threads give the same weights bit by bit on a CPU,
    whether or not the run was interrupted and resumed. The caller's random state is not changed.
    Trainings in several threads of a process run one after another.

    Args:
        config: settings; None is the recipe for a CPU.
        image: column of the image embeddings that the decoder will accept, as the encoder returned them.
        images: (items of the store, 3, size, size) in [0, 1], float or uint8 in [0, 255]; None reads the store's
            asset `thumbnails.zip`, a file `<modality>/<row>.webp` or `.png` for each item (needs `unialign[images]`).
        out: folder for `config.yaml`, `log.jsonl`, `checkpoints/`, a `samples-*.png` for each checkpoint (held-out
            images above those generated from their embeddings) and, at the end, `decoder/`. None: write nothing.
        resume: as for `fit`: `never`, `auto` or `required`.
        device: `auto` (CUDA if there is one), `cpu`, `cuda`, `cuda:1`.
        on_step: called after every step with `step`, `steps` and `loss`; may raise KeyboardInterrupt to stop.
        progress: `bar`, `lines`, `none`; `auto` is `bar` on a terminal, else `lines`.

    Raises:
        ConfigError: settings that do not fit the store; `out` holds a run and `resume` is "never".
        DataError: no training rows, no images, or a checkpoint of other data.
        ShapeError: wrong number or size of images.
        NonFiniteError: an embedding, an image or the loss is not finite.
        CheckpointError: a checkpoint cannot be written or read.
        MissingDependencyError: network="unet" or thumbnails without the extra that they need.
        KeyboardInterrupt, SystemExit(143): Ctrl-C, SIGTERM; the running step and a checkpoint are completed first.
    """
    config = DecoderConfig() if config is None else config
    if not isinstance(config, DecoderConfig):
        raise ConfigError(f"config must be a DecoderConfig, got {config!r}; make one with `DecoderConfig.from_dict`")
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
            # In short runs, an interruption loses at most a tenth of the steps.
            often = max(_FEWEST_STEPS_BETWEEN_CHECKPOINTS, config.steps // 10)
            saving = config.replace(save_steps=min(config.save_steps, often))
        trainer = Trainer(task, saving, folder=folder, resume=resume, on_step=on_step, progress=progress)
        trainer.run()
    return DecoderFit(task.average.cpu(), trainer.log.history)
