"""Encoders that need no package besides NumPy and torch, with seeded weights. Importing this module imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unialign._checks import check_choice
from unialign.encoders._characters import CharacterNgrams
from unialign.encoders._encoder import Encoder
from unialign.encoders._kinds import EncoderInfo, EncoderKind
from unialign.encoders._names import EncoderName
from unialign.encoders._options import check_media, integer, read_options
from unialign.encoders._reference import make_reference
from unialign.media import Decoding, Kind

if TYPE_CHECKING:
    import torch

__all__ = ["BUILTIN"]


@dataclass(frozen=True)
class Request:
    """The arguments of a factory."""

    spec: EncoderName
    media: Kind | None
    device: "torch.device"
    dtype: str
    folder: Path | None
    weights: Mapping[str, str] | None


def _chars(request: Request, *, trainable: bool) -> Encoder:
    from unialign.encoders._built import BuiltEncoder  # imports torch
    from unialign.encoders._builtin_text import BucketProjection, dense_counts

    media = check_media(request.spec, request.media, ("text",))
    options = read_options(request.spec, {"seed": integer(0, low=0), "dim": integer(256, high=65536)})
    prepare = CharacterNgrams()
    module = BucketProjection(1 << prepare.bits, options["dim"], options["seed"]).requires_grad_(trainable)
    reference = make_reference(
        request.spec,
        media=media,
        dim=options["dim"],
        architecture={"name": request.spec.name},
        options=options,
        prepare=prepare.to_json(),
        decoding=Decoding(),
        licence="Apache-2.0",
        packages=("torch", "numpy"),
    )
    module.to(request.device)
    return BuiltEncoder(
        reference,
        decoding=Decoding(),
        prepare=prepare,
        collate=partial(dense_counts, buckets=1 << prepare.bits),
        forward=lambda batch: module(**batch),
        module=module if trainable else None,
    )


_FACTORIES: Mapping[str, Callable[[Request], Encoder]] = {
    "chars": partial(_chars, trainable=False),
    "bag": partial(_chars, trainable=True),
}

_ENTRIES = (
    EncoderInfo("builtin:chars", "text", 256, "Apache-2.0", 0, False, "Hashed character 2- to 5-grams, projected."),
    EncoderInfo("builtin:bag", "text", 256, "Apache-2.0", 0, True, "As chars, with a trainable projection."),
)


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
    name = spec.name.partition(":")[0]
    check_choice("built-in encoder", name, _FACTORIES)
    return _FACTORIES[name](Request(spec, media, device, dtype, folder, weights))


BUILTIN = EncoderKind("builtin", _create, _ENTRIES)
