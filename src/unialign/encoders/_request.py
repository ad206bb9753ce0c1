"""The arguments of a factory as one value."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unialign.encoders._names import EncoderName
from unialign.media import Kind

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Request:
    """See `EncoderFactory`."""

    spec: EncoderName
    media: Kind | None
    device: "torch.device"
    dtype: str
    offline: bool | None
    folder: Path | None
    weights: Mapping[str, str] | None
