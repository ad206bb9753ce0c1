"""Image and text encoders of open_clip.

Shapes: `n` items, `D` length of the features.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unialign.encoders._built import Batch, BuiltEncoder, stack
from unialign.encoders._encoder import Encoder
from unialign.encoders._library_model import import_library, torchvision_settings, write_weights
from unialign.encoders._model_files import check_files, license_of, read_object, weight_files
from unialign.encoders._processor import ImageSettings
from unialign.encoders._raw_batches import join_raw, texts_of
from unialign.encoders._raw_media import RawMedia
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request, torch_dtype
from unialign.encoders._transformer_model import normalized
from unialign.errors import ConfigError, DataError
from unialign.media import Decoding, Kind

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def open_clip_encoder(request: Request, folder: Path, media: Kind) -> Encoder:
    what = str(request.spec)
    config = read_object(folder, CONFIG)
    model_config: Any = config.get("model_cfg")
    if not isinstance(model_config, Mapping):
        raise DataError(f"{folder / CONFIG} must have an object 'model_cfg'")
    text_config = model_config.get("text_cfg", {})
    if media == "text" and any(name.startswith("hf_") for name in text_config):
        raise ConfigError(
            f"the text encoder of {what!r} is a model of the Hugging Face Hub; load it as transformers:NAME instead"
        )
    sha256 = check_files(folder, weight_files(folder, single=WEIGHTS), request.weights)
    library = import_library("open_clip", what, "open-clip")
    try:
        with torch.random.fork_rng(devices=[]):
            model = library.create_model(f"local-dir:{folder}", require_pretrained=True, pretrained_text=False).eval()
    except Exception as error:  # open_clip raises many exceptions
        raise DataError(f"open_clip cannot load the model in {folder}: {' '.join(str(error).split())}") from error
    prepare: Any
    module: nn.Module
    if media == "image":
        prepare = _settings(config.get("preprocess_cfg", {}), model_config, what)
        module, prefix, forward, collate = model.visual, "visual.", _image_forward(model.visual, prepare), stack
    else:
        prepare = RawMedia()
        # The text tower of a plain CLIP has no module of its own.
        model.visual = nn.Identity()
        module, prefix, forward, collate = model, "", _text_forward(model, library, text_config), join_raw
    reference = make_reference(
        request.spec,
        media=media,
        dim=int(model_config["embed_dim"]),
        architecture={"tower": media, "model": model_config},
        prepare=prepare.to_json(),
        decoding=Decoding(),
        weights=sha256,
        dtype=request.dtype,
        license=license_of(folder),
        packages=("torch", "open-clip-torch", *(("pillow",) if media == "image" else ())),
    )
    module.to(request.device, torch_dtype(request.dtype))
    return BuiltEncoder(
        reference,
        decoding=Decoding(),
        prepare=prepare,
        collate=collate,
        forward=forward,
        module=module,
        write=partial(write_weights, module, folder, weights=WEIGHTS, others=(CONFIG,), prefix=prefix),
    )


def _image_forward(visual: Any, settings: ImageSettings) -> Callable[[Batch], Tensor]:
    def forward(batch: Batch) -> Tensor:
        dtype = next(visual.parameters()).dtype
        found = visual(normalized(batch["pixels"], settings).to(dtype))
        features: Tensor = found[0] if isinstance(found, tuple) else found
        return features

    return forward


def _text_forward(model: Any, library: Any, config: Mapping[str, Any]) -> Callable[[Batch], Tensor]:
    tokenizer = library.tokenizer.SimpleTokenizer(context_length=int(config.get("context_length", 77)))

    def forward(batch: Batch) -> Tensor:
        tokens = tokenizer(texts_of(batch)).to(next(model.parameters()).device)
        features: Tensor = model.encode_text(tokens)
        return features

    return forward


def _settings(given: Mapping[str, Any], model_config: Mapping[str, Any], what: str) -> ImageSettings:
    size = given.get("size", model_config["vision_cfg"].get("image_size", 224))
    pair = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
    interpolation = given.get("interpolation", "bicubic")
    return torchvision_settings(
        mode=given.get("resize_mode", "shortest"),
        resized=pair,
        size=pair,
        interpolation="bicubic" if interpolation == "random" else interpolation,
        mean=tuple(map(float, given.get("mean", _CLIP_MEAN))),
        std=tuple(map(float, given.get("std", _CLIP_STD))),
        what=what,
    )
