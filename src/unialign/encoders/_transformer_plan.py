"""Determine how a transformers model is used, from its files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unialign.encoders._frames import EachFrame
from unialign.encoders._model_files import read_object, reject_remote_code
from unialign.encoders._model_inputs import (
    Inputs,
    ast_inputs,
    clap_inputs,
    image_inputs,
    text_inputs,
    whisper_bands,
)
from unialign.encoders._names import EncoderName
from unialign.encoders._options import Option, choice, integer, number, read_options, text
from unialign.encoders._speech import WhisperWindows
from unialign.encoders._towers import Tower, find_tower
from unialign.errors import ConfigError, DataError
from unialign.media import Decoding, Kind

__all__ = ["TransformerPlan", "plan_transformer"]

CONFIG = "config.json"
# Entries of a configuration that do not affect the features.
_IRRELEVANT = (
    "_name_or_path", "architectures", "dtype", "gradient_checkpointing", "id2label", "label2id", "problem_type",
    "torch_dtype", "transformers_version", "use_cache", "initializer_range", "initializer_factor", "torchscript",
)  # fmt: skip
# The position ids of these models start at 2.
_SHIFTED = ("roberta", "xlm-roberta", "camembert", "clap", "clap_text_model", "mpnet")


@dataclass(frozen=True)
class TransformerPlan:
    """Settings that determine how a model is used.

    Attributes:
        tower: part of the model.
        config: configuration of the part.
        pooling: one of `tower.poolings`.
        inputs: how inputs are prepared.
        decoding: options for the decoder.
        options: the values of all options.
        architecture: the entry of the reference.
    """

    tower: Tower
    config: Mapping[str, Any]
    pooling: str
    inputs: Inputs
    decoding: Decoding
    options: Mapping[str, Any]
    architecture: Mapping[str, Any]

    @property
    def projection_dim(self) -> int | None:
        found = self.architecture.get("projection_dim")
        return None if found is None else int(found)


def plan_transformer(
    spec: EncoderName,
    folder: Path,
    media: Kind | None,
    *,
    pooling: str | None = None,
    max_length: int | None = None,
    lowercase: bool = False,
    prefix: str = "",
) -> TransformerPlan:
    """Plan the use of a model; the arguments replace the defaults of the options."""
    whole = read_object(folder, CONFIG)
    reject_remote_code(whole, str(folder / CONFIG))
    tower = find_tower(spec, whole, media, spec.options.get("tower"))
    model_type = str(whole["model_type"])
    part = whole.get(tower.part, {}) if tower.part is not None else whole
    if not isinstance(part, Mapping):
        raise DataError(f"{folder / CONFIG} must have an object {tower.part!r}, got {part!r}")
    known: dict[str, Option] = {
        "tower": text(None),
        "pool": choice(pooling or tower.poolings[0], tower.poolings),
    }
    if tower.media == "text":
        known |= {"max_length": integer(max_length, low=2, high=1 << 20), "prefix": text(prefix)}
    if model_type == "whisper":
        known |= {"seconds": number(30.0, low=0.1, high=3600), "window": number(None, low=0.1, high=30)}
    options = read_options(spec, known)
    inputs, decoding = _inputs(folder, tower, model_type, whole, part, options, lowercase)
    architecture = {
        "model_type": model_type,
        "class": tower.model,
        "pooling": options["pool"],
        "config": {key: value for key, value in part.items() if key not in _IRRELEVANT},
    }
    if tower.part is not None and options["pool"] == "projection":
        architecture["projection_dim"] = whole.get("projection_dim")
    kept = {key: value for key, value in options.items() if value is not None}
    return TransformerPlan(tower, part, options["pool"], inputs, decoding, kept, architecture)


def _inputs(
    folder: Path,
    tower: Tower,
    model_type: str,
    whole: Mapping[str, Any],
    part: Mapping[str, Any],
    options: dict[str, Any],
    lowercase: bool,
) -> tuple[Inputs, Decoding]:
    if tower.media == "image":
        return image_inputs(folder), Decoding()
    if tower.media == "video":
        found = image_inputs(folder)
        frames = int(part.get("num_frames", 16))
        return replace(found, prepare=EachFrame(found.prepare, frames)), Decoding(frames=frames)
    if tower.media == "text":
        return _text(folder, model_type, part, options, lowercase), Decoding()
    if model_type == "whisper":
        return _whisper(folder, part, options)
    if model_type == "audio-spectrogram-transformer":
        found = ast_inputs(folder)
        _check_equal(folder, "num_mel_bins", found.prepare.bands, part.get("num_mel_bins", 128))
        _check_equal(folder, "max_length", found.prepare.length, part.get("max_length", 1024))
        samples = 160 * (found.prepare.length - 1) + 400
        return found, Decoding(rate=found.prepare.rate, seconds=samples / found.prepare.rate)
    found = clap_inputs(folder, fusion=bool(part.get("enable_fusion", False)))
    return found, Decoding(rate=found.prepare.rate, seconds=found.prepare.samples / found.prepare.rate)


def _text(folder: Path, model_type: str, part: Mapping[str, Any], options: dict[str, Any], lowercase: bool) -> Inputs:
    siglip = model_type.startswith("siglip")
    positions = int(part.get("max_position_embeddings", 77 if model_type.startswith("clip") else 64 if siglip else 512))
    inputs = text_inputs(
        folder,
        positions=positions - 2 if model_type in _SHIFTED else positions,
        max_length=options["max_length"],
        prefix=options["prefix"],
        # SigLIP was trained with texts of one length and no mask.
        fill=siglip,
        lowercase=lowercase,
        pad_id=int(part.get("pad_token_id") or 0),
    )
    options["max_length"] = inputs.prepare.max_length
    return inputs


def _whisper(folder: Path, part: Mapping[str, Any], options: dict[str, Any]) -> tuple[Inputs, Decoding]:
    bands, files = whisper_bands(folder)
    _check_equal(folder, "feature_size", bands, part.get("num_mel_bins", 80))
    longest = int(part.get("max_source_positions", 1500)) * 2 * WhisperWindows.hop / WhisperWindows.rate
    window = min(longest, options["seconds"]) if options["window"] is None else options["window"]
    if window > longest:
        raise ConfigError(f"window {window:g} exceeds the {longest:g} seconds of the model in {folder}")
    prepare = WhisperWindows(window, bands)
    options["window"] = window
    return Inputs(prepare, files), Decoding(rate=prepare.rate, seconds=options["seconds"])


def _check_equal(folder: Path, name: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise DataError(f"{folder} has {name} {found} in the settings of its processor, but {expected} in {CONFIG}")
