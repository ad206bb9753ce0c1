"""Encoders that the library sentence-transformers computes.

Shapes: `n` items, `D` length of the features.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unialign._optional import optional_module
from unialign.encoders._built import Batch, BuiltEncoder
from unialign.encoders._encoder import Encoder
from unialign.encoders._lora import ADAPTER_FILE, plain_state
from unialign.encoders._lora_targets import adapter_layers
from unialign.encoders._model_files import check_files, copy_files, license_of, reject_adapters
from unialign.encoders._pixels import pillow
from unialign.encoders._raw_batches import images_of, join_raw, sounds_of, texts_of
from unialign.encoders._raw_media import RawMedia
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request, torch_dtype
from unialign.encoders._text_encoder import quiet_loading
from unialign.errors import ConfigError, DataError
from unialign.media import Decoding, Kind

_SUFFIXES = (".json", ".txt", ".model", ".safetensors")


def sentence_encoder(request: Request, folder: Path, media: Kind, prefix: str) -> Encoder:
    reject_adapters(folder)
    sha256 = check_files(folder, _files(folder), request.weights)
    model = _load(folder, request)
    if media not in model.modalities:
        raise ConfigError(
            f"the encoder {str(request.spec)!r} encodes {', '.join(map(str, model.modalities))}, not {media}"
        )
    decoding = Decoding(rate=_rate(model)) if media == "audio" else Decoding()
    prepare = RawMedia(prefix)
    reference = make_reference(
        request.spec,
        media=media,
        dim=int(model.get_embedding_dimension()),
        architecture={"modules": [type(module).__name__ for module in model], "processor": _processor(model, media)},
        options={"prefix": prefix},
        prepare=prepare.to_json(),
        decoding=decoding,
        weights=sha256,
        dtype=request.dtype,
        license=license_of(folder),
        packages=("torch", "transformers", "sentence-transformers", *(("pillow",) if media == "image" else ())),
    )
    model.to(request.device, torch_dtype(request.dtype))
    inputs = _inputs(media)

    def forward(batch: Batch) -> Tensor:
        features = model.preprocess(inputs(batch))
        moved = {name: _moved(value, model) for name, value in features.items()}
        embedding: Tensor = model(moved)["sentence_embedding"]
        return embedding

    def write(target: Path) -> dict[str, Any]:
        original = _load(folder, request).state_dict()
        current = plain_state(model)
        if all(torch.equal(tensor.to(current[name]), current[name]) for name, tensor in original.items()):
            return {"files": copy_files(folder, target, tuple(sha256))}
        if adapter_layers(model):
            raise ConfigError(
                f"the encoder {str(request.spec)!r} has an adapter above weights that were trained, which cannot be "
                f"saved; train the adapter from a saved encoder"
            )
        with quiet_loading():
            model.save_pretrained(str(target), create_model_card=False)
        written = check_files(target, _files(target), None)
        return {"weights": written, "files": written}

    return BuiltEncoder(
        reference,
        decoding=decoding,
        prepare=prepare,
        collate=join_raw,
        forward=forward,
        module=model,
        write=write,
    )


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix in _SUFFIXES)
    return sorted(str(path.relative_to(folder)) for path in found if path.name != ADAPTER_FILE)


def _load(folder: Path, request: Request) -> Any:
    library = optional_module("sentence_transformers", f"the encoder {str(request.spec)!r}", "sentence-transformers")
    try:
        with quiet_loading():
            return library.SentenceTransformer(
                str(folder),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
            ).eval()
    except Exception as error:  # sentence-transformers raises many exceptions
        raise DataError(f"the model in {folder} cannot be loaded: {' '.join(str(error).split())}") from error


def _inputs(media: Kind) -> Callable[[Batch], list[Any]]:
    if media == "text":
        return texts_of
    if media == "image":
        return lambda batch: [pillow().fromarray(image) for image in images_of(batch)]
    return lambda batch: [{"array": sound.samples, "sampling_rate": sound.rate} for sound in sounds_of(batch)]


def _processor(model: Any, media: Kind) -> str | None:
    """Return the class of the image processor, since transformers has one for Pillow and one for torchvision."""
    processor = getattr(model[0], "processor", None)
    part = getattr(processor, "image_processor", processor) if media == "image" else None
    return None if part is None else type(part).__name__


def _rate(model: Any) -> int:
    processor = getattr(model[0], "processor", None)
    extractor = getattr(processor, "feature_extractor", processor)
    return int(getattr(extractor, "sampling_rate", 16000))


def _moved(value: Any, model: Any) -> Any:
    return value.to(model.device) if isinstance(value, Tensor) else value
