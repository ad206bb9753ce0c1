"""Load the models of transformers and compute pooled features.

Shapes: `n` items, `T` tokens, `H` hidden size, `D` length of the features, `K` windows of all sounds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign._optional import optional_module
from unialign.encoders._built import Batch, not_half
from unialign.encoders._encoder import Prepared
from unialign.encoders._model_files import reject_adapters
from unialign.encoders._processor import ImageSettings
from unialign.encoders._text_encoder import quiet_loading
from unialign.encoders._towers import Tower
from unialign.errors import DataError

# Entry of a batch with the item number of each window.
_OWNER = "owner"


def load_tower(tower: Tower, folder: Path, *, projection_dim: int | None = None) -> Any:
    """Load a tower. `projection_dim` is the dimension that the towers of a model share; their own configurations may
    differ.
    """
    reject_adapters(folder)
    library = optional_module("transformers", f"the model in {folder}", "transformers")
    options: dict[str, Any] = {"add_pooling_layer": False} if tower.pooler else {}
    if projection_dim is not None:
        options["projection_dim"] = projection_dim
    logging = library.utils.logging
    level = logging.get_verbosity()
    try:
        # The library reports unused tensors, such as those of another tower.
        logging.set_verbosity_error()
        with quiet_loading():
            model, found = getattr(library, tower.model).from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                # Reported below.
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                **options,
            )
    except Exception as error:  # transformers raises many exceptions
        raise DataError(f"the model in {folder} cannot be loaded: {' '.join(str(error).split())}") from error
    finally:
        logging.set_verbosity(level)
    missing = [name for name in sorted(found["missing_keys"]) if not name.startswith("decoder.")]
    if missing or found.get("mismatched_keys"):
        named = missing or sorted(map(str, found["mismatched_keys"]))
        raise DataError(
            f"the weights in {folder} do not fit {tower.model}: {len(named)} tensors are missing or have another "
            f"shape, such as {named[0]!r}"
        )
    return model.eval()


def normalized(pixels: Tensor, settings: ImageSettings) -> Tensor:
    """Round as the processor of the library for Pillow does."""
    values = pixels.float() if settings.scale is None else (pixels.double() * settings.scale).float()
    if settings.mean is None or settings.std is None:
        return values
    mean, std = (torch.tensor(value, device=values.device)[:, None, None] for value in (settings.mean, settings.std))
    return (values - mean) / std


def image_forward(model: Any, settings: ImageSettings, pooling: str) -> Callable[[Batch], Tensor]:
    def forward(batch: Batch) -> Tensor:
        pixels = normalized(batch["pixels"], settings).to(model.dtype)
        return pooled(model(pixel_values=pixels), pooling)

    return forward


def text_forward(model: Any, pooling: str, *, masked: bool = True) -> Callable[[Batch], Tensor]:
    """Return the forward pass of a text model; if `masked`, the model receives a mask of the padding tokens."""

    def forward(batch: Batch) -> Tensor:
        mask = batch["attention_mask"]
        output = model(input_ids=batch["input_ids"], attention_mask=mask if masked else None)
        return pooled(output, pooling, mask)

    return forward


def ast_forward(model: Any, pooling: str) -> Callable[[Batch], Tensor]:
    return lambda batch: pooled(model(input_values=batch["frames"].to(model.dtype)), pooling)


def clap_forward(model: Any, pooling: str) -> Callable[[Batch], Tensor]:
    def forward(batch: Batch) -> Tensor:
        frames = batch["frames"].to(model.dtype)
        # No sound is longer than the window, since only its start is used.
        longer = torch.zeros(len(frames), 1, dtype=torch.bool, device=frames.device)
        return pooled(model(input_features=frames, is_longer=longer), pooling)

    return forward


def whisper_forward(encoder: Any) -> Callable[[Batch], Tensor]:
    def forward(batch: Batch) -> Tensor:
        hidden = encoder(batch["frames"].to(encoder.dtype)).last_hidden_state
        return mean_of_windows(hidden, batch)

    return forward


def shorten_whisper(encoder: Any, positions: int) -> None:
    """Shorten the position embeddings, so that the encoder accepts windows with fewer positions than in training."""
    encoder.config.max_source_positions = positions
    encoder.max_source_positions = positions
    kept = encoder.embed_positions.weight[:positions].detach().clone()
    encoder.embed_positions = nn.Embedding(kept.shape[0], kept.shape[1], _weight=kept, _freeze=True)


def pooled(output: Any, pooling: str, mask: Tensor | None = None) -> Tensor:
    if pooling == "projection":
        for name in ("image_embeds", "text_embeds", "audio_embeds"):
            found: Tensor | None = getattr(output, name, None)
            if found is not None:
                return found
    if pooling == "pooler":
        whole: Tensor = output.pooler_output
        return whole
    hidden_nTH: Tensor = output.last_hidden_state
    if pooling == "cls":
        return hidden_nTH[:, 0]
    return masked_mean(hidden_nTH, mask)


def masked_mean(hidden_nTH: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return not_half(hidden_nTH).mean(1)
    kept = mask[..., None].float()
    return (not_half(hidden_nTH) * kept).sum(1) / kept.sum(1).clamp(min=1)


def collate_tokens(prepared: Sequence[Prepared], pad_id: int) -> Batch:
    """Pad texts to the longest text of the batch."""
    texts = [item["input_ids"] for item in prepared]
    longest = max(map(len, texts))
    ids = np.full((len(texts), longest), pad_id, np.int64)
    mask = np.zeros((len(texts), longest), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def collate_windows(prepared: Sequence[Prepared]) -> Batch:
    counts = torch.tensor([len(item["length"]) for item in prepared])
    return {
        "frames": torch.from_numpy(np.concatenate([item["frames"] for item in prepared])),
        "length": torch.from_numpy(np.concatenate([item["length"] for item in prepared])),
        _OWNER: torch.repeat_interleave(torch.arange(len(prepared)), counts),
    }


def mean_of_windows(hidden_KTH: Tensor, batch: Batch) -> Tensor:
    """Average the outputs of all windows that belong to the sound."""
    places = torch.arange(hidden_KTH.shape[1], device=hidden_KTH.device)
    mask = (places < batch["length"][:, None]).to(hidden_KTH.device).float()
    sums_KH = (not_half(hidden_KTH) * mask[..., None]).sum(1)
    owner = batch[_OWNER].to(hidden_KTH.device)
    items = int(owner[-1]) + 1
    totals = sums_KH.new_zeros(items, sums_KH.shape[1]).index_add(0, owner, sums_KH)
    return totals / sums_KH.new_zeros(items).index_add(0, owner, mask.sum(1).to(sums_KH))[:, None]
