"""Encoders of ONNX files, computed by onnxruntime. Importing this module does not import torch.

`onnx:./model.onnx?media=image&size=224` is a file, `onnx:owner/name?file=onnx/model.onnx` a file of a repository on the
Hugging Face Hub. Images are prepared with the settings in preprocessor_config.json beside the file, or with the options
`size`, `fit`, `mean` and `std`; texts need tokenizer.json beside the file; sounds are passed as samples, and vectors
unchanged.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unialign.encoders._encoder import Encoder
from unialign.encoders._hub_folder import model_folder
from unialign.encoders._kinds import EncoderKind
from unialign.encoders._model_files import has_file, license_of
from unialign.encoders._model_inputs import Inputs, image_inputs, text_inputs
from unialign.encoders._names import EncoderName
from unialign.encoders._onnx_inputs import NormalizedPixels, Samples, square_settings
from unialign.encoders._options import Option, choice, integer, number, numbers, read_options, text
from unialign.encoders._request import Request
from unialign.encoders._vectors import VectorFeatures
from unialign.errors import ConfigError, DataError
from unialign.media import KINDS, Decoding, Kind

if TYPE_CHECKING:
    import torch

__all__ = ["ONNX"]

_FILE = "model.onnx"
_KNOWN: Mapping[str, Option] = {
    "media": choice(None, KINDS),
    "file": text(_FILE),
    "output": text(None),
    "layer": choice("output", ("output", "penultimate")),
    "pool": choice("mean", ("mean", "cls")),
}
_OF_MEDIA: Mapping[Kind, Mapping[str, Option]] = {
    "image": {
        "size": integer(None, low=8, high=4096),
        "fit": choice("pad", ("pad", "crop", "stretch")),
        "mean": numbers((0.0, 0.0, 0.0)),
        "std": numbers((1.0, 1.0, 1.0)),
        "layout": choice("nchw", ("nchw", "nhwc")),
    },
    "text": {"max_length": integer(None, low=2, high=1 << 20), "prefix": text("")},
    "audio": {"rate": integer(16000, low=1000, high=192000), "seconds": number(10.0, low=0.1, high=3600)},
    "array": {"dim": integer(None)},
}


def _create(
    spec: EncoderName,
    *,
    media: Kind | None,
    device: "torch.device",
    dtype: str,
    offline: bool | None,
    folder: Path | None,
    weights: Mapping[str, str] | None,
) -> Encoder:
    from unialign.encoders._onnx_encoder import MODEL_FILE, onnx_encoder  # imports torch

    request = Request(spec, media, device, dtype, offline, folder, weights)
    kind = _media(spec, media)
    options = read_options(spec, {**_KNOWN, **_OF_MEDIA[kind]})
    place, commit, file = _place(request, options["file"])
    if folder is not None:
        file = MODEL_FILE
    if not has_file(place, file):
        raise DataError(f"the encoder {str(spec)!r} needs the file {place / file}, which does not exist")
    inputs, decoding = _inputs(spec, place, kind, options)
    collate = _text_collate(inputs) if kind == "text" else None
    shown = {key: value for key, value in options.items() if value is not None} | {"media": kind}
    return onnx_encoder(
        replace(request, spec=replace(spec, revision=commit)),
        place,
        file,
        kind,
        inputs.prepare,
        {key: ",".join(map(str, value)) if isinstance(value, tuple) else value for key, value in shown.items()},
        decoding=decoding,
        collate=collate,
        output=options["output"],
        penultimate=options["layer"] == "penultimate",
        pooling=options["pool"],
        license=license_of(place),
        others=inputs.files,
    )


def _media(spec: EncoderName, media: Kind | None) -> Kind:
    named = spec.options.get("media")
    found: Any = named if media is None else media
    if found is None:
        raise ConfigError(f"the kind of media of the encoder {str(spec)!r} is unknown; write {spec}?media=image")
    if named is not None and named != found:
        raise ConfigError(f"the encoder {str(spec)!r} encodes {named}, not {found}")
    if found not in _OF_MEDIA:
        raise ConfigError(
            f"encoders of ONNX files encode {', '.join(_OF_MEDIA)}, not {found}; for videos use builtin:frames"
        )
    kind: Kind = found
    return kind


def _place(request: Request, file: str) -> tuple[Path, str | None, str]:
    """Return the folder, the commit and the file within the folder."""
    if PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
        raise ConfigError(f"option file of the encoder {str(request.spec)!r} must be a path within the folder")
    path = request.spec.folder
    if request.folder is None and path is not None and path.suffix == ".onnx":
        return path.parent, None, path.name
    place, commit = model_folder(request, patterns=("*.json", file, "README.md"))
    return place, commit, file


def _inputs(spec: EncoderName, place: Path, kind: Kind, options: dict[str, Any]) -> tuple[Inputs, Decoding]:
    if kind == "image":
        channels_last = options["layout"] == "nhwc"
        if options["size"] is not None:
            settings = square_settings(options["size"], options["fit"], options["mean"], options["std"])
            return Inputs(NormalizedPixels(settings, channels_last), ()), Decoding()
        if not has_file(place, "preprocessor_config.json"):
            raise ConfigError(f"the encoder {str(spec)!r} needs the size of the images; write {spec}&size=224")
        found = image_inputs(place)
        return replace(found, prepare=NormalizedPixels(found.prepare, channels_last)), Decoding()
    if kind == "text":
        found = text_inputs(place, positions=None, max_length=options["max_length"], prefix=options["prefix"])
        options["max_length"] = found.prepare.max_length
        return found, Decoding()
    if kind == "audio":
        return Inputs(Samples(), ()), Decoding(rate=options["rate"], seconds=options["seconds"])
    return Inputs(VectorFeatures(), ()), Decoding(dim=options["dim"])


def _text_collate(inputs: Inputs) -> Any:
    from functools import partial

    from unialign.encoders._transformer_model import collate_tokens  # imports torch

    return partial(collate_tokens, pad_id=inputs.prepare.pad_id)


ONNX = EncoderKind("onnx", _create)
