"""Encoders of the library transformers, from the Hugging Face Hub or a folder. Importing this module imports no torch.

The architecture must be one of `_towers.TOWERS`, the weights must be safetensors, and no code of a repository is run.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.encoders._encoder import Encoder
from unialign.encoders._hub_folder import model_folder
from unialign.encoders._kinds import EncoderKind
from unialign.encoders._names import EncoderName
from unialign.encoders._request import Request
from unialign.encoders._transformer_plan import plan_transformer
from unialign.media import Kind

if TYPE_CHECKING:
    import torch

__all__ = ["TRANSFORMERS"]

# The files that are downloaded: no pickles and no Python code.
_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "README.md")


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
    from unialign.encoders._transformer_encoder import transformer_encoder  # imports torch

    request = Request(spec, media, device, dtype, offline, folder, weights)
    place, commit = model_folder(request, patterns=_PATTERNS)
    request = replace(request, spec=replace(spec, revision=commit))
    return transformer_encoder(request, place, plan_transformer(spec, place, media))


TRANSFORMERS = EncoderKind("transformers", _create)
