"""Image and text encoders of open_clip, from the Hugging Face Hub or a folder. Does not import torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.encoders._encoder import Encoder
from unialign.encoders._hub_folder import model_folder
from unialign.encoders._kinds import EncoderKind
from unialign.encoders._names import EncoderName
from unialign.encoders._options import check_media, read_options
from unialign.encoders._request import Request
from unialign.errors import ConfigError
from unialign.media import Kind

if TYPE_CHECKING:
    import torch

__all__ = ["OPEN_CLIP"]

_PATTERNS = ("open_clip_config.json", "open_clip_model.safetensors", "README.md")


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
    from unialign.encoders._open_clip_encoder import open_clip_encoder  # imports torch

    if media is None:
        raise ConfigError(f"the encoder {str(spec)!r} encodes image and text; pass media='image' or media='text'")
    kind = check_media(spec, media, ("image", "text"))
    read_options(spec, {})
    request = Request(spec, media, device, dtype, offline, folder, weights)
    place, commit = model_folder(request, patterns=_PATTERNS)
    return open_clip_encoder(replace(request, spec=replace(spec, revision=commit)), place, kind)


OPEN_CLIP = EncoderKind("open_clip", _create)
