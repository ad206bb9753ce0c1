"""Image encoders of timm, from the Hugging Face Hub or a folder. Importing this module does not import torch.

`timm:vit_small_patch16_224.augreg_in1k` is the repository `timm/vit_small_patch16_224.augreg_in1k`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.encoders._encoder import Encoder
from unialign.encoders._hub_folder import model_folder
from unialign.encoders._kinds import EncoderKind
from unialign.encoders._names import EncoderName
from unialign.encoders._options import check_media, read_options, text
from unialign.encoders._request import Request
from unialign.media import Kind

if TYPE_CHECKING:
    import torch

__all__ = ["TIMM"]

_PATTERNS = ("config.json", "model.safetensors", "README.md")


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
    from unialign.encoders._timm_encoder import timm_encoder  # imports torch

    check_media(spec, media, ("image",))
    options = read_options(spec, {"pool": text(None)})
    request = Request(spec, media, device, dtype, offline, folder, weights)
    hub_id = None if spec.folder is not None or "/" in spec.name else f"timm/{spec.name}"
    place, commit = model_folder(request, patterns=_PATTERNS, hub_id=hub_id)
    return timm_encoder(replace(request, spec=replace(spec, revision=commit)), place, options)


TIMM = EncoderKind("timm", _create)
