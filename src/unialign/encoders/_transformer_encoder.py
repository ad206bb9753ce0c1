"""Build an encoder from a model of transformers.

Shapes: `n` items, `D` length of the features.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from unialign.encoders._built import Batch, BuiltEncoder, not_half, stack
from unialign.encoders._encoder import Encoder, Prepared
from unialign.encoders._lora import plain_state
from unialign.encoders._model_files import check_files, copy_files, file_sha256, license_of, weight_files
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request, torch_dtype
from unialign.encoders._transformer_model import (
    ast_forward,
    clap_forward,
    collate_tokens,
    collate_windows,
    image_forward,
    load_tower,
    shorten_whisper,
    text_forward,
    whisper_forward,
)
from unialign.encoders._transformer_plan import CONFIG, TransformerPlan

_WEIGHTS = "model.safetensors"


def transformer_encoder(
    request: Request,
    folder: Path,
    plan: TransformerPlan,
    *,
    unit_length: bool = False,
    license: str | None = None,
    packages: Sequence[str] = (),
    extra_files: Sequence[str] = (),
) -> Encoder:
    """Build the encoder. `extra_files` are additional files of the folder that `save` copies. By default, the license
    is that of the model card.
    """
    names = weight_files(folder)
    sha256 = check_files(folder, names, request.weights)
    model = load_tower(plan.tower, folder, projection_dim=plan.projection_dim)
    module, forward, collate, dim = _parts(model, plan)
    if unit_length:
        forward = _unit(forward)
    libraries = {"image": ("pillow",), "video": ("pillow",), "text": ("tokenizers",), "audio": ("numpy",)}
    reference = make_reference(
        request.spec,
        media=plan.tower.media,
        dim=dim,
        architecture={**plan.architecture, "unit_length": unit_length},
        options=plan.options,
        prepare=plan.inputs.prepare.to_json() if plan.tower.media != "video" else _video_json(plan),
        decoding=plan.decoding,
        weights=sha256,
        dtype=request.dtype,
        license=license_of(folder) if license is None else license,
        packages=("torch", "transformers", *libraries[plan.tower.media], *packages),
    )
    module.to(request.device, torch_dtype(request.dtype))
    others = (CONFIG, *plan.inputs.files, *extra_files)
    return BuiltEncoder(
        reference,
        decoding=plan.decoding,
        prepare=plan.inputs.prepare,
        collate=collate,
        forward=forward,
        module=module,
        write=partial(_write, module, plan, folder, names, others),
    )


def _parts(
    model: Any, plan: TransformerPlan
) -> tuple[nn.Module, Callable[[Batch], Tensor], Callable[[Sequence[Prepared]], Batch], int]:
    media, prepare, pooling = plan.tower.media, plan.inputs.prepare, plan.pooling
    projected = getattr(model.config, "projection_dim", None) if pooling == "projection" else None
    dim = int(projected or getattr(model.config, "projection_size", None) or model.config.hidden_size)
    if media == "image":
        return model, image_forward(model, prepare, pooling), stack, dim
    if media == "video":
        return model, image_forward(model, prepare.prepare, pooling), stack, dim
    if media == "text":
        masked = prepare.fill_to is None
        return model, text_forward(model, pooling, masked=masked), partial(collate_tokens, pad_id=prepare.pad_id), dim
    if plan.tower.model == "WhisperModel":
        encoder = model.encoder
        shorten_whisper(encoder, prepare.window_samples // (2 * prepare.hop))
        return encoder, whisper_forward(encoder), collate_windows, dim
    if plan.tower.model == "ASTModel":
        return model, ast_forward(model, pooling), stack, dim
    return model, clap_forward(model, pooling), stack, dim


def _unit(forward: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    return lambda batch: nn.functional.normalize(not_half(forward(batch)), dim=1)


def _video_json(plan: TransformerPlan) -> dict[str, Any]:
    return {"type": "each-frame", "count": plan.inputs.prepare.count, "image": plan.inputs.prepare.prepare.to_json()}


def _write(
    module: nn.Module, plan: TransformerPlan, source: Path, names: Sequence[str], others: Sequence[str], folder: Path
) -> dict[str, dict[str, str]]:
    files = copy_files(source, folder, others)
    fresh = load_tower(plan.tower, source, projection_dim=plan.projection_dim)
    whisper = plan.tower.model == "WhisperModel"
    original = fresh.encoder.state_dict() if whisper else fresh.state_dict()
    current = {name: tensor.detach().cpu().contiguous() for name, tensor in plain_state(module).items()}
    # The position embeddings of Whisper may have been shortened, and are not trained.
    positions = "embed_positions.weight"
    if whisper:
        current[positions] = original[positions]
    if all(torch.equal(tensor.to(current[name].dtype), current[name]) for name, tensor in original.items()):
        weights = copy_files(source, folder, names)
    else:
        prefix = "encoder." if whisper else ""
        save_file(
            {prefix + name: tensor.clone() for name, tensor in current.items()}, folder / _WEIGHTS, {"format": "pt"}
        )
        weights = {_WEIGHTS: file_sha256(folder / _WEIGHTS)}
    return {"weights": weights, "files": {**files, **weights}}
