"""Test the values that callers may pass instead of files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from media.media_files import PIXELS, RATE, TONE, image_bytes, sound_bytes, video_bytes
from unialign.errors import ConfigError, MediaError
from unialign.media import Audio, Decoding, MediaLimits, Video, as_media

GREY = PIXELS[..., 0]


def test_images(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(image_bytes(PIXELS, "PNG"))
    (tmp_path / "link.png").symlink_to(file)
    closed = Image.open(file)
    for value in (
        str(file), file, tmp_path / "link.png", file.read_bytes(), bytearray(file.read_bytes()),
        Image.fromarray(PIXELS), Image.open(file), closed, PIXELS, torch.from_numpy(PIXELS), np.asfortranarray(PIXELS),
        {"bytes": file.read_bytes(), "path": None}, {"bytes": None, "path": str(file)},
    ):  # fmt: skip
        found = as_media(value, "image")
        assert isinstance(found, np.ndarray)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, PIXELS)
    grey = np.repeat(GREY[..., None], 3, axis=2)
    for value in (GREY, GREY[..., None], Image.fromarray(GREY)):
        np.testing.assert_array_equal(as_media(value, "image"), grey)
    clear = np.concatenate([PIXELS, np.zeros_like(GREY)[..., None]], axis=2)
    found = as_media(clear, "image", decoding=Decoding(background=(1, 2, 3)))
    np.testing.assert_array_equal(found, np.broadcast_to(np.array([1, 2, 3]), PIXELS.shape))
    assert as_media(None, "image") is None


def test_changing_the_result_does_not_change_the_input() -> None:
    pixels = PIXELS.copy()
    found = as_media(pixels, "image")
    assert isinstance(found, np.ndarray)
    found[:] = 0
    np.testing.assert_array_equal(pixels, PIXELS)
    image = Image.fromarray(PIXELS)
    found = as_media(image, "image")
    assert isinstance(found, np.ndarray)
    found[:] = 0
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


def test_sounds(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(sound_bytes(TONE))
    stereo = np.stack([TONE, TONE], axis=1)
    for value in (
        str(file), file, file.read_bytes(), (TONE, RATE), (TONE.tolist(), RATE), (torch.from_numpy(TONE), RATE),
        (stereo, RATE), {"array": TONE, "sampling_rate": RATE}, {"array": TONE, "sampling_rate": RATE, "path": None},
        Audio(TONE, RATE), ((TONE * 32768).astype(np.int16), np.int64(RATE)), (TONE.astype(np.float64), float(RATE)),
    ):  # fmt: skip
        found = as_media(value, "audio")
        assert isinstance(found, Audio)
        assert (found.samples.dtype, found.rate) == (np.float32, RATE)
        np.testing.assert_array_equal(found.samples, TONE)
    found = as_media((np.array([0, 128, 192], np.uint8), 8_000), "audio")
    assert isinstance(found, Audio)
    assert found.samples.tolist() == [-1, 0, 0.5]
    found = as_media((TONE, RATE), "audio", decoding=Decoding(rate=8_000, seconds=0.5))
    assert isinstance(found, Audio)
    assert (len(found.samples), found.rate) == (4_000, 8_000)


def test_videos(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(video_bytes([0, 100, 200]))
    frames = np.zeros((3, 48, 64, 3), np.uint8) + np.array([0, 100, 200], np.uint8)[:, None, None, None]
    for value in (str(file), file, file.read_bytes(), frames, torch.from_numpy(frames), Video(frames)):
        found = as_media(value, "video", decoding=Decoding(frames=2))
        assert isinstance(found, Video)
        np.testing.assert_allclose(found.frames, frames[[0, 2]], atol=6)


def test_texts_and_vectors(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa cat\n")
    for value in ("a cat", " a cat ", tmp_path / "a.txt", b"a cat"):
        assert as_media(value, "text") == "a cat"
    # A string is never a path.
    assert as_media(str(tmp_path / "a.txt"), "text") == str(tmp_path / "a.txt")
    assert as_media("https://example.org", "text") == "https://example.org"
    assert as_media(" ", "text") is None
    np.save(tmp_path / "a.npy", np.arange(3.0))
    for value in (
        [0, 1, 2], (0.0, 1.0, 2.0), np.arange(3), torch.arange(3), torch.arange(3.0, dtype=torch.bfloat16),
        torch.arange(3.0, requires_grad=True), tmp_path / "a.npy", str(tmp_path / "a.npy"), np.arange(3)[None],
    ):  # fmt: skip
        found = as_media(value, "array")
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.tolist()) == (np.float32, [0, 1, 2])


def test_broken_values_have_a_code(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    image = Image.open(io.BytesIO(image_bytes(PIXELS, "PNG")[:-500]))
    cases: list[tuple[Any, Any, str]] = [
        ("nothing.png", "image", "missing-file"),
        ("a\0.png", "image", "missing-file"),
        (tmp_path, "image", "not-a-file"),
        ("https://example.org/a.png", "image", "not-a-file"),
        ("s3://bucket/a.png", "image", "not-a-file"),
        ("data:image/png;base64,iVBORw0KGgo=", "image", "not-a-file"),
        (tmp_path / "a.wav", "audio", "undecodable"),
        (b"", "image", "empty"),
        (b"no image", "image", "undecodable"),
        (image, "image", "truncated"),
        (PIXELS.astype(np.float32) / 255, "image", "wrong-shape"),
        (PIXELS.transpose(2, 0, 1), "image", "wrong-shape"),
        (PIXELS[:0], "image", "wrong-shape"),
        (Image.new("F", (2, 2)), "image", "undecodable"),
        (TONE[None], "audio", "wrong-shape"),
        ((TONE[None], RATE), "audio", "wrong-shape"),
        ((TONE * np.nan, RATE), "audio", "not-finite"),
        ((TONE[:0], RATE), "audio", "empty"),
        ((TONE, 0), "audio", "undecodable"),
        (PIXELS, "video", "wrong-shape"),
        ([1.0, float("nan")], "array", "not-finite"),
        ([1.0, "a"], "array", "wrong-shape"),
        ([[1.0], [2.0, 3.0]], "array", "wrong-shape"),
        (np.zeros((2, 2)), "array", "wrong-shape"),
        ([], "array", "wrong-shape"),
    ]
    for value, kind, code in cases:
        if kind == "audio" and isinstance(value, np.ndarray):
            continue
        with pytest.raises(MediaError) as caught:
            as_media(value, kind)
        assert caught.value.code == code, (value, kind)
    with pytest.raises(MediaError, match="channels must be last"):
        as_media(PIXELS.transpose(2, 0, 1), "image")
    with pytest.raises(MediaError, match="pass the transpose"):
        as_media((np.stack([TONE, TONE]), RATE), "audio")
    with pytest.raises(MediaError, match="expected at most 700 in total"):
        as_media(PIXELS, "image", limits=MediaLimits(pixels=700))


def test_values_of_other_types_are_errors_of_the_caller() -> None:
    cases: list[tuple[Any, Any]] = [
        (3, "image"),
        ([1, 2], "image"), (3, "text"), (["a"], "text"), (TONE, "audio"), ((RATE, TONE), "audio"),
        (3, "array"), ({"array": TONE}, "audio"), ((TONE, 8000.5), "audio"), (3, "video"), ({}, "array"),
        (object(), "array"),
    ]  # fmt: skip
    for value, kind in cases:
        with pytest.raises(ConfigError, match=f"a value of kind '{kind}' must be"):
            as_media(value, kind)
    with pytest.raises(ConfigError, match="unknown kind 'picture'"):
        as_media("a.png", "picture")  # type: ignore[arg-type]
