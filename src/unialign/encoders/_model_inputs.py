"""Read from the files of a pretrained model how its inputs are prepared. Does not import torch.

The settings are those of the image processors, feature extractors and tokenizers of transformers. They are applied by
code of this package, so that the result does not depend on the installed libraries.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unialign._optional import optional_module
from unialign.encoders._model_files import file_sha256, has_file, read_object, reject_remote_code
from unialign.encoders._processor import ImageSettings
from unialign.encoders._speech import AstFrames, ClapFrames
from unialign.encoders._tokens import Tokens
from unialign.errors import ConfigError, DataError
from unialign.io import canonical_json, digest

__all__ = ["Inputs", "ast_inputs", "clap_inputs", "image_inputs", "text_inputs", "whisper_bands"]

_PROCESSOR, _COMBINED, _VIDEO = "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"
_TOKENIZER_FILES = (
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt",
    "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
)  # fmt: skip
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Inputs:
    """Settings that prepare the inputs of a model, and the files with these settings."""

    prepare: Any
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Defaults:
    """The settings that a file may leave out. A size of one number is the shorter side, or both sides if `square`."""

    size: Mapping[str, int]
    crop: Mapping[str, int] | None
    resample: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    square: bool = False


_BILINEAR, _BICUBIC = 2, 3
_SHORTEST, _SQUARE = {"shortest_edge": 224}, {"height": 224, "width": 224}
_IMAGE_PROCESSORS: Mapping[str, _Defaults] = {
    "CLIP": _Defaults(_SHORTEST, _SQUARE, _BICUBIC, _CLIP_MEAN, _CLIP_STD),
    "Bit": _Defaults(_SHORTEST, _SQUARE, _BICUBIC, _CLIP_MEAN, _CLIP_STD),
    "Siglip": _Defaults(_SQUARE, None, _BICUBIC, _HALF, _HALF),
    "ViT": _Defaults(_SQUARE, None, _BILINEAR, _HALF, _HALF, square=True),
    "DeiT": _Defaults({"height": 256, "width": 256}, _SQUARE, _BICUBIC, _HALF, _HALF, square=True),
    "VideoMAE": _Defaults(_SHORTEST, _SQUARE, _BILINEAR, _HALF, _HALF),
}
_SUFFIXES = ("Pil", "Fast", "ImageProcessor", "FeatureExtractor", "VideoProcessor")


def image_inputs(folder: Path) -> Inputs:
    """Read the settings of an image processor.

    Raises:
        ConfigError: the processor is of another type, or uses a setting that is not supported.
        DataError: the folder has no such file, or a setting is invalid.
    """
    name, body = _processor(folder, ("image_processor", "video_processor"))
    where = str(folder / name)
    kind = str(
        body.get("image_processor_type") or body.get("video_processor_type") or body.get("feature_extractor_type")
    )
    plain = kind
    for suffix in _SUFFIXES:
        plain = plain.removesuffix(suffix)
    if plain not in _IMAGE_PROCESSORS:
        expected = ", ".join(f"{known}ImageProcessor" for known in _IMAGE_PROCESSORS)
        raise ConfigError(f"the image processor {kind!r} in {where} is not supported; expected one of {expected}")
    if body.get("do_pad"):
        raise ConfigError(
            f"the setting do_pad of {where} is not supported; expected an image processor without padding"
        )
    defaults = _IMAGE_PROCESSORS[plain]
    try:
        settings = _image_settings(body, defaults)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{where} has an invalid setting: {type(error).__name__}: {error}") from None
    if settings.size is None and settings.crop is None:
        raise ConfigError(
            f"the settings of {where} give images of different sizes, which cannot be in one batch; expected a size "
            f"with height and width, or do_center_crop"
        )
    return Inputs(settings, (name,))


def _image_settings(body: Mapping[str, Any], defaults: _Defaults) -> ImageSettings:
    shortest, size, crop = None, None, None
    if body.get("do_resize", True):
        wanted = _size(body.get("size", defaults.size), square=defaults.square)
        if "shortest_edge" in wanted and "longest_edge" not in wanted:
            shortest = int(wanted["shortest_edge"])
        else:
            size = int(wanted["height"]), int(wanted["width"])
    if body.get("do_center_crop", defaults.crop is not None):
        cropped = _size(body.get("crop_size", defaults.crop or {}), square=True)
        crop = int(cropped["height"]), int(cropped["width"])
    normalize = body.get("do_normalize", True)
    return ImageSettings(
        shortest=shortest,
        size=size,
        resample=int(body.get("resample", defaults.resample)),
        crop=crop,
        scale=float(body.get("rescale_factor", 1 / 255)) if body.get("do_rescale", True) else None,
        mean=tuple(map(float, body.get("image_mean") or defaults.mean)) if normalize else None,
        std=tuple(map(float, body.get("image_std") or defaults.std)) if normalize else None,
    )


def _size(value: Any, *, square: bool) -> Mapping[str, Any]:
    if isinstance(value, int):
        return {"height": value, "width": value} if square else {"shortest_edge": value}
    if isinstance(value, list | tuple):
        return dict(zip(("height", "width"), value, strict=True))
    found: Mapping[str, Any] = value
    return found


def ast_inputs(folder: Path) -> Inputs:
    """Read the settings of ASTFeatureExtractor."""
    name, body = _feature_extractor(folder, "AST")
    normalize = body.get("do_normalize", True)
    prepare = AstFrames(
        rate=int(body.get("sampling_rate", 16000)),
        bands=int(body.get("num_mel_bins", 128)),
        length=int(body.get("max_length", 1024)),
        mean=float(body.get("mean", -4.2677393)) if normalize else None,
        std=float(body.get("std", 4.5689974)) if normalize else None,
    )
    return Inputs(prepare, (name,))


def clap_inputs(folder: Path, *, fusion: bool) -> Inputs:
    """Read the settings of ClapFeatureExtractor; `fusion` is a setting of the model."""
    name, body = _feature_extractor(folder, "Clap")
    rate = int(body.get("sampling_rate", 48000))
    padding = str(body.get("padding", "repeatpad"))
    if padding not in ("repeatpad", "repeat", "pad"):
        raise DataError(f"{folder / name} has the padding {padding!r}; expected 'repeatpad', 'repeat' or 'pad'")
    prepare = ClapFrames(
        rate=rate,
        samples=rate * int(body.get("max_length_s", 10)),
        window=int(body.get("fft_window_size", 1024)),
        hop=int(body.get("hop_length", 480)),
        bands=int(body.get("feature_size", 64)),
        low=float(body.get("frequency_min", 0)),
        high=float(body.get("frequency_max", 14000)),
        padding=padding,
        fusion=fusion,
    )
    return Inputs(prepare, (name,))


def whisper_bands(folder: Path) -> tuple[int, tuple[str, ...]]:
    """Return the number of mel bands of WhisperFeatureExtractor, and the file with this setting."""
    name, body = _feature_extractor(folder, "Whisper")
    fixed = {"sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "dither": 0.0, "do_normalize": False}
    for key, value in fixed.items():
        if body.get(key, value) != value:
            raise ConfigError(f"{folder / name} has {key} {body[key]!r}, which is not supported; expected {value!r}")
    return int(body.get("feature_size", 80)), (name,)


def text_inputs(
    folder: Path,
    *,
    positions: int | None,
    max_length: int | None = None,
    prefix: str = "",
    fill: bool = False,
    lowercase: bool = False,
    pad_id: int = 0,
) -> Inputs:
    """Read the tokenizer of a model.

    Args:
        positions: maximum number of tokens of the model; None if it has no limit.
        max_length: maximum number of tokens. Default: that of the tokenizer and of the model.
        prefix: text before each text.
        fill: whether all texts are padded to the same length.
        lowercase: whether texts are converted to lower case.
        pad_id: id of the padding token, if the tokenizer has none.

    Raises:
        ConfigError: max_length exceeds the limit of the model, or the tokenizer is not supported.
        DataError: a file is missing or damaged.
    """
    settings = read_object(folder, "tokenizer_config.json") if has_file(folder, "tokenizer_config.json") else {}
    reject_remote_code(settings, str(folder / "tokenizer_config.json"))
    content, files, sha256 = _tokenizer(folder)
    limit = min((int(length) for length in (settings.get("model_max_length"), positions) if length), default=512)
    if max_length is not None and max_length > (positions or max_length):
        raise ConfigError(f"max_length {max_length} exceeds the {positions} tokens of the model in {folder}")
    length = limit if max_length is None else max_length
    found = _token_id(content, settings.get("pad_token"))
    prepare = Tokens(
        tokenizer=content,
        max_length=length,
        prefix=prefix,
        fill_to=length if fill else None,
        pad_id=pad_id if found is None else found,
        lowercase=lowercase,
        sha256=sha256,
    )
    return Inputs(prepare, files)


def _tokenizer(folder: Path) -> tuple[str, tuple[str, ...], str | None]:
    """Return the content of tokenizer.json, the files read, and a checksum if the content was made from other files."""
    if has_file(folder, "tokenizer.json"):
        extra = tuple(name for name in ("tokenizer_config.json",) if has_file(folder, name))
        try:
            return (folder / "tokenizer.json").read_bytes().decode("utf-8"), ("tokenizer.json", *extra), None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from None
    files = tuple(name for name in _TOKENIZER_FILES if has_file(folder, name))
    if not files:
        raise DataError(f"{folder} has no tokenizer; it must contain tokenizer.json")
    library = optional_module("transformers", f"the tokenizer in {folder}", "transformers")
    try:
        made = library.AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
        content = str(made.backend_tokenizer.to_str())
    except Exception as error:  # transformers raises many exceptions
        raise ConfigError(
            f"the tokenizer in {folder} has no tokenizer.json and cannot be converted to one ({error}); save it with "
            f"the library tokenizers"
        ) from error
    return content, files, digest(canonical_json({name: file_sha256(folder / name) for name in files}))


def _token_id(content: str, token: Any) -> int | None:
    text = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(text, str):
        return None
    body = json.loads(content)
    added = {entry["content"]: entry["id"] for entry in body.get("added_tokens", [])}
    if text in added:
        return int(added[text])
    vocabulary = body.get("model", {}).get("vocab", {})
    found = vocabulary.get(text) if isinstance(vocabulary, Mapping) else None
    return None if found is None else int(found)


def _feature_extractor(folder: Path, expected: str) -> tuple[str, dict[str, Any]]:
    name, body = _processor(folder, ("feature_extractor",))
    kind = str(body.get("feature_extractor_type"))
    if kind != f"{expected}FeatureExtractor":
        raise ConfigError(f"{folder / name} describes {kind!r}; expected {expected}FeatureExtractor")
    return name, body


def _processor(folder: Path, parts: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Read the settings of a processor, which newer versions of transformers save in one file for several kinds of
    media.
    """
    for name in (_PROCESSOR, _VIDEO, _COMBINED):
        if not has_file(folder, name):
            continue
        body = read_object(folder, name)
        reject_remote_code(body, str(folder / name))
        for part in parts:
            if isinstance(body.get(part), dict):
                return name, body[part]
        if name != _COMBINED:
            return name, body
    raise DataError(
        f"{folder} has no {_PROCESSOR}, which describes how inputs are prepared; save the processor of the model"
    )
