"""Encoders that need only NumPy and torch. Importing this module does not import torch.

`conv`, `bag` and `logmel-conv` have seeded random weights and are meant to be trained; the others cannot be trained.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unialign._checks import check_choice
from unialign.encoders._characters import CharacterNgrams
from unialign.encoders._color import ColorFeatures
from unialign.encoders._encoder import Encoder, Prepared
from unialign.encoders._frames import EachFrame
from unialign.encoders._kinds import EncoderInfo, EncoderKind, find_kind
from unialign.encoders._log_mel import LogMelFrames, LogMelStatistics
from unialign.encoders._names import EncoderName, parse_name
from unialign.encoders._options import Option, check_media, integer, number, read_options
from unialign.encoders._pixels import SquarePixels
from unialign.encoders._reference import make_reference
from unialign.encoders._request import Request
from unialign.encoders._vectors import VectorFeatures
from unialign.errors import ConfigError
from unialign.media import Decoding, Kind

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["BUILTIN"]

_LICENSE = "Apache-2.0"
_SEED = integer(0, low=0)
_SECONDS = number(30.0, low=0.1, high=3600)


def _color(request: Request) -> Encoder:
    _options(request, "image")
    prepare = ColorFeatures()
    return _from_features(request, "image", prepare.dim, prepare, Decoding())


def _vector(request: Request, *, log: bool) -> Encoder:
    options = _options(request, "array", dim=integer(None))
    if options["dim"] is None:
        raise ConfigError(
            f"the encoder {str(request.spec)!r} needs the length of the vectors; write {request.spec}?dim=LENGTH"
        )
    return _from_features(
        request, "array", options["dim"], VectorFeatures(log), Decoding(dim=options["dim"]), options=options
    )


def _logmel(request: Request) -> Encoder:
    options = _options(request, "audio", seconds=_SECONDS)
    prepare = LogMelStatistics()
    decoding = Decoding(rate=prepare.frames.rate, seconds=options["seconds"])
    return _from_features(request, "audio", 2 * prepare.frames.bands, prepare, decoding, options=options)


def _characters(request: Request, *, trainable: bool) -> Encoder:
    from unialign.encoders._builtin_modules import BucketProjection, dense_counts  # imports torch

    options = _options(request, "text", seed=_SEED, dim=integer(256, high=65536))
    prepare = CharacterNgrams()
    buckets = 1 << prepare.bits
    return _from_module(
        request,
        "text",
        options["dim"],
        BucketProjection(buckets, options["dim"], options["seed"]),
        prepare,
        Decoding(),
        options=options,
        collate=partial(dense_counts, buckets=buckets),
        trainable=trainable,
    )


def _conv(request: Request) -> Encoder:
    from unialign.encoders._builtin_modules import ImageConvolutions  # imports torch

    options = _options(request, "image", seed=_SEED, size=integer(64, low=16, high=1024))
    module = ImageConvolutions(options["seed"])
    prepare = SquarePixels(options["size"])
    return _from_module(request, "image", module.dim, module, prepare, Decoding(), options=options)


def _logmel_conv(request: Request) -> Encoder:
    from unialign.encoders._built import pad
    from unialign.encoders._builtin_modules import SoundConvolutions  # imports torch

    options = _options(request, "audio", seed=_SEED, seconds=_SECONDS)
    prepare = LogMelFrames()
    decoding = Decoding(rate=prepare.rate, seconds=options["seconds"])
    module = SoundConvolutions(prepare.bands, options["seed"])
    return _from_module(request, "audio", module.dim, module, prepare, decoding, options=options, collate=pad)


def _frames(request: Request) -> Encoder:
    from unialign.encoders._video import mean_over_frames  # imports torch

    inner_name = request.spec.name.partition(":")[2]
    if not inner_name:
        raise ConfigError(
            f"the encoder {str(request.spec)!r} needs an image encoder, such as builtin:frames:builtin:color"
        )
    spec = parse_name(inner_name)
    own = {key: value for key, value in request.spec.options.items() if key == "frames"}
    inner_options = {key: value for key, value in request.spec.options.items() if key != "frames"}
    media = check_media(request.spec, request.media, ("video",))
    options = read_options(
        EncoderName("builtin", request.spec.name, None, own), {"frames": integer(8, low=1, high=4096)}
    )
    image_encoder = find_kind(spec.kind).factory(
        EncoderName(spec.kind, spec.name, request.spec.revision, inner_options),
        media="image",
        device=request.device,
        dtype=request.dtype,
        offline=request.offline,
        folder=request.folder,
        weights=request.weights,
    )
    return mean_over_frames(request.spec, image_encoder, options["frames"], media, EachFrame(image_encoder.prepare))


_FACTORIES: Mapping[str, Callable[[Request], Encoder]] = {
    "color": _color,
    "conv": _conv,
    "chars": partial(_characters, trainable=False),
    "bag": partial(_characters, trainable=True),
    "logmel": _logmel,
    "logmel-conv": _logmel_conv,
    "frames": _frames,
    "identity": partial(_vector, log=False),
    "log1p": partial(_vector, log=True),
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
    name = spec.name.partition(":")[0]
    check_choice("name", name, _FACTORIES, owner="the encoders 'builtin'")
    if name != "frames" and (":" in spec.name or spec.revision is not None):
        raise ConfigError(f"{str(spec)!r} is not the name of an encoder; only options may follow {name!r}")
    return _FACTORIES[name](Request(spec, media, device, dtype, offline, folder, weights))


def _options(request: Request, media: Kind, **known: Option) -> dict[str, Any]:
    check_media(request.spec, request.media, (media,))
    return read_options(request.spec, known)


def _from_features(
    request: Request,
    media: Kind,
    dim: int,
    prepare: Any,
    decoding: Decoding,
    *,
    options: Mapping[str, Any] | None = None,
) -> Encoder:
    """Build an encoder without a module, whose `prepare` computes the features."""
    from unialign.encoders._built import BuiltEncoder  # imports torch

    reference = make_reference(
        request.spec,
        media=media,
        dim=dim,
        architecture={"name": request.spec.name},
        options=options,
        prepare=prepare.to_json(),
        decoding=decoding,
        license=_LICENSE,
        packages=("numpy", "pillow") if media == "image" else ("numpy",),
    )
    return BuiltEncoder(
        reference, decoding=decoding, prepare=prepare, forward=lambda batch: batch["features"], write=lambda _: {}
    )


def _from_module(
    request: Request,
    media: Kind,
    dim: int,
    module: "nn.Module",
    prepare: Any,
    decoding: Decoding,
    *,
    options: Mapping[str, Any],
    collate: Callable[[Sequence[Prepared]], "dict[str, torch.Tensor]"] | None = None,
    trainable: bool = True,
) -> Encoder:
    from unialign.encoders._built import BuiltEncoder  # imports torch
    from unialign.encoders._state import check_weights, read_state, state_digest, write_state

    if request.folder is not None and trainable:
        read_state(module, request.folder, request.weights)
    weights = {"state": state_digest(module)}
    check_weights(weights, request.weights, f"the encoder {str(request.spec)!r}")
    reference = make_reference(
        request.spec,
        media=media,
        dim=dim,
        architecture={"name": request.spec.name},
        options=options,
        prepare=prepare.to_json(),
        decoding=decoding,
        weights=weights,
        license=_LICENSE,
        packages=("torch", "numpy", "pillow") if media == "image" else ("torch", "numpy"),
    )
    module.to(request.device).eval().requires_grad_(trainable)
    return BuiltEncoder(
        reference,
        decoding=decoding,
        prepare=prepare,
        collate=collate,
        forward=lambda batch: module(**batch),
        module=module if trainable else None,
        device=request.device,
        write=(lambda folder: write_state(module, folder)) if trainable else (lambda _: {}),
    )


def _info(name: str, media: Kind, dim: int | None, trainable: bool, summary: str) -> EncoderInfo:
    requires = ("PIL",) if media == "image" else ()
    return EncoderInfo(f"builtin:{name}", media, dim, _LICENSE, 0.0, trainable, summary, requires, "media")


BUILTIN = EncoderKind(
    "builtin",
    _create,
    (
        _info("color", "image", 384, False, "Histogram of colors, coarse pixels and directions of edges."),
        _info("conv", "image", 320, True, "Five convolutions at 64 pixels, to be trained."),
        _info("chars", "text", 256, False, "Hashed character 2- to 5-grams and a random projection."),
        _info("bag", "text", 256, True, "The n-grams of chars and a projection to be trained."),
        _info("logmel", "audio", 128, False, "Mean and standard deviation of 64 log-mel bands."),
        _info("logmel-conv", "audio", 320, True, "Three convolutions of log-mel frames, to be trained."),
        _info("identity", "array", None, False, "The vector itself."),
        _info("log1p", "array", None, False, "The logarithm of 1 + |x|, with the sign of x."),
    ),
)
