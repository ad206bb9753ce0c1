"""Supported architectures of transformers, and the part of each that encodes a kind of media."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unialign.encoders._names import EncoderName
from unialign.errors import ConfigError
from unialign.media import Kind

__all__ = ["TOWERS", "Tower", "find_tower"]


@dataclass(frozen=True)
class Tower:
    """Encoder of one kind of media.

    Attributes:
        media: kind of media.
        model: name of the model class in the transformers library.
        poolings: the poolings to choose from; the first is the default.
        part: entry of the configuration that describes this tower, or None.
        pooler: whether the model has a pooling layer that is not used.
    """

    media: Kind
    model: str
    poolings: tuple[str, ...]
    part: str | None = None
    pooler: bool = False


_TEXT = ("mean", "cls")
_PATCHES = ("cls", "mean")


def _text(model: str, *, pooler: bool = True) -> tuple[Tower, ...]:
    return (Tower("text", model, _TEXT, pooler=pooler),)


# By the entry `model_type` of config.json.
TOWERS: Mapping[str, tuple[Tower, ...]] = {
    "clip": (
        Tower("image", "CLIPVisionModelWithProjection", ("projection",), "vision_config"),
        Tower("text", "CLIPTextModelWithProjection", ("projection",), "text_config"),
    ),
    "clip_vision_model": (Tower("image", "CLIPVisionModelWithProjection", ("projection",)),),
    "clip_text_model": (Tower("text", "CLIPTextModelWithProjection", ("projection",)),),
    "siglip": (
        Tower("image", "SiglipVisionModel", ("pooler",), "vision_config"),
        Tower("text", "SiglipTextModel", ("pooler",), "text_config"),
    ),
    "siglip_vision_model": (Tower("image", "SiglipVisionModel", ("pooler",)),),
    "siglip_text_model": (Tower("text", "SiglipTextModel", ("pooler",)),),
    "clap": (
        Tower("audio", "ClapAudioModelWithProjection", ("projection",), "audio_config"),
        Tower("text", "ClapTextModelWithProjection", ("projection",), "text_config"),
    ),
    "clap_audio_model": (Tower("audio", "ClapAudioModelWithProjection", ("projection",)),),
    "clap_text_model": (Tower("text", "ClapTextModelWithProjection", ("projection",)),),
    "dinov2": (Tower("image", "Dinov2Model", _PATCHES),),
    "dinov2_with_registers": (Tower("image", "Dinov2WithRegistersModel", _PATCHES),),
    "vit": (Tower("image", "ViTModel", _PATCHES, pooler=True),),
    "deit": (Tower("image", "DeiTModel", _PATCHES, pooler=True),),
    "audio-spectrogram-transformer": (Tower("audio", "ASTModel", ("pooler", "mean")),),
    "whisper": (Tower("audio", "WhisperModel", ("mean",)),),
    "videomae": (Tower("video", "VideoMAEModel", ("mean",)),),
    "bert": _text("BertModel"),
    "roberta": _text("RobertaModel"),
    "xlm-roberta": _text("XLMRobertaModel"),
    "camembert": _text("CamembertModel"),
    "mpnet": _text("MPNetModel"),
    "albert": _text("AlbertModel"),
    "distilbert": _text("DistilBertModel", pooler=False),
    "electra": _text("ElectraModel", pooler=False),
    "modernbert": _text("ModernBertModel", pooler=False),
}

# Values of the option `tower`.
_NAMES: Mapping[Kind, str] = {"image": "vision", "text": "text", "audio": "audio", "video": "video", "array": "array"}


def find_tower(spec: EncoderName, config: Mapping[str, Any], media: Kind | None, name: str | None) -> Tower:
    model_type = str(config.get("model_type"))
    if model_type not in TOWERS:
        raise ConfigError(
            f"the architecture {model_type!r} of the encoder {str(spec)!r} is not supported; expected one of "
            f"{', '.join(TOWERS)}; other models can be passed as modules: unialign.encoders.wrap"
        )
    towers = TOWERS[model_type]
    if name is not None:
        towers = tuple(tower for tower in towers if _NAMES[tower.media] == name)
    if media is not None:
        towers = tuple(tower for tower in towers if tower.media == media)
    if len(towers) == 1:
        return towers[0]
    names = " or ".join(f"tower={_NAMES[tower.media]} ({tower.media})" for tower in TOWERS[model_type])
    wanted = "" if towers else f", not {' '.join(str(value) for value in (name, media) if value is not None)}"
    raise ConfigError(f"the encoder {str(spec)!r} has {names}{wanted}; choose one of these")
