"""Image encoders of timm.

Shapes: `n` images, `S` side of an image, `D` length of the features.
"""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unialign.encoders._built import Batch, BuiltEncoder
from unialign.encoders._encoder import Encoder
from unialign.encoders._library_model import import_library, torchvision_settings, write_weights
from unialign.encoders._model_files import check_files, license_of, read_object, weight_files
from unialign.encoders._processor import ImageSettings
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request, torch_dtype
from unialign.encoders._transformer_model import normalized
from unialign.errors import ConfigError, DataError
from unialign.media import Decoding

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


def timm_encoder(request: Request, folder: Path, options: Mapping[str, Any]) -> Encoder:
    what = str(request.spec)
    library = import_library("timm", what, "timm")
    config = read_object(folder, _CONFIG)
    names = weight_files(folder)
    if names != (_WEIGHTS,):
        raise DataError(f"{folder} must contain the weights as one file {_WEIGHTS}")
    sha256 = check_files(folder, names, request.weights)
    try:
        # With the classifier, all weights must be in the file.
        with torch.random.fork_rng(devices=[]):
            model = library.create_model(f"local-dir:{folder}", pretrained=True)
        data = library.data.resolve_model_data_config(model)
        model.reset_classifier(0, **({} if options["pool"] is None else {"global_pool": options["pool"]}))
    except Exception as error:  # timm raises many exceptions
        raise DataError(f"timm cannot load the model in {folder}: {' '.join(str(error).split())}") from error
    model.eval()
    prepare = _settings(data, what)
    features = _forward(model, prepare)({"pixels": torch.zeros(1, 3, *data["input_size"][1:], dtype=torch.uint8)})
    if features.ndim != 2:
        raise ConfigError(
            f"the features of {what!r} have shape {tuple(features.shape)}; choose another pool, such as avg"
        )
    reference = make_reference(
        request.spec,
        media="image",
        dim=features.shape[1],
        architecture={
            "name": config.get("architecture"),
            "pool": options["pool"],
            "args": config.get("model_args", {}),
        },
        options={key: value for key, value in options.items() if value is not None},
        prepare=prepare.to_json(),
        decoding=Decoding(),
        weights=sha256,
        dtype=request.dtype,
        license=license_of(folder),
        packages=("torch", "timm", "pillow"),
    )
    model.to(request.device, torch_dtype(request.dtype))
    return BuiltEncoder(
        reference,
        decoding=Decoding(),
        prepare=prepare,
        forward=_forward(model, prepare),
        module=model,
        write=partial(write_weights, model, folder, weights=_WEIGHTS, others=(_CONFIG,)),
    )


def _forward(model: Any, settings: ImageSettings) -> Any:
    def forward(batch: Batch) -> Tensor:
        dtype = next(model.parameters()).dtype
        features: Tensor = model(normalized(batch["pixels"], settings).to(dtype))
        return features

    return forward


def _settings(data: Mapping[str, Any], what: str) -> ImageSettings:
    height, width = data["input_size"][1:]
    resized = math.floor(height / data["crop_pct"]), math.floor(width / data["crop_pct"])
    mode = {"center": "shortest", None: "shortest"}.get(data["crop_mode"], data["crop_mode"])
    return torchvision_settings(
        mode=mode,
        resized=resized,
        size=(height, width),
        interpolation=data["interpolation"],
        mean=tuple(map(float, data["mean"])),
        std=tuple(map(float, data["std"])),
        what=what,
    )
