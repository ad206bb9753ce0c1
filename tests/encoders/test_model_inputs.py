"""Compare the inputs of pretrained models with those that transformers prepares."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import encoder_models as models
from unialign.encoders import _model_inputs, create
from unialign.encoders._processor import ImageSettings
from unialign.encoders._speech import WhisperWindows
from unialign.encoders._transformer_model import normalized
from unialign.errors import ConfigError, DataError
from unialign.media import Audio


def pixel_values(settings: ImageSettings, image: np.ndarray) -> torch.Tensor:
    return normalized(torch.from_numpy(settings(image)["pixels"])[None], settings)[0]


def pictures() -> list[np.ndarray]:
    """Return images with odd and even sides, of which some are smaller than the crop."""
    rng = np.random.default_rng(0)
    sizes = [(40, 50), (41, 57), (17, 90), (90, 17), (5, 7), (16, 16), (1, 3)]
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CLIP", {}),
        ("CLIP", {"size": {"shortest_edge": 24}, "crop_size": {"height": 20, "width": 15}, "resample": 2}),
        ("CLIP", {"size": 20, "crop_size": 33}),
        ("CLIP", {"do_resize": False, "crop_size": 30}),
        ("Bit", {"size": {"shortest_edge": 30}, "do_rescale": False}),
        ("Siglip", {"size": {"height": 20, "width": 28}}),
        ("ViT", {"size": {"height": 16, "width": 16}, "do_normalize": False}),
        ("ViT", {"size": 19}),
        ("DeiT", {"size": {"height": 25, "width": 24}, "crop_size": {"height": 20, "width": 20}}),
        ("VideoMAE", {"size": {"shortest_edge": 18}, "crop_size": {"height": 16, "width": 16}}),
    ],
)
def test_pixels_equal_those_of_the_library_with_pillow(name: str, options: Any, tmp_path: Path) -> None:
    processor = models.image_processor(name, **options)
    processor.save_pretrained(tmp_path)
    settings = _model_inputs.image_inputs(tmp_path).prepare
    for image in pictures():
        given = [[Image.fromarray(image)]] if name == "VideoMAE" else Image.fromarray(image)
        expected = torch.from_numpy(np.asarray(processor(given, return_tensors="np")["pixel_values"]))
        assert torch.equal(pixel_values(settings, image), expected.reshape(expected.shape[-3:]).float())


def test_settings_of_older_and_combined_files_are_read(tmp_path: Path) -> None:
    older = {"feature_extractor_type": "ViTFeatureExtractor", "size": 19, "image_mean": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    settings = _model_inputs.image_inputs(tmp_path).prepare
    assert (settings.size, settings.mean, settings.std) == ((19, 19), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    (tmp_path / "preprocessor_config.json").unlink()
    part = {"image_processor": {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 9}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(part))
    inputs = _model_inputs.image_inputs(tmp_path)
    assert (inputs.prepare.shortest, inputs.files) == (9, ("processor_config.json",))


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ({"image_processor_type": "SamImageProcessor"}, ConfigError, "'SamImageProcessor' .* is not supported"),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, ConfigError, "do_pad"),
        ({"image_processor_type": "ViTImageProcessor", "auto_map": {}}, ConfigError, "auto_map"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"side": 3}}, DataError, "invalid setting: KeyError"),
        ({"image_processor_type": "ViTImageProcessor", "resample": "x"}, DataError, "invalid setting: ValueError"),
        ({"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}, ConfigError, "of different sizes"),
        (None, DataError, "has no preprocessor_config.json"),
        ([], DataError, "expected an object, got list"),
    ],
)
def test_settings_that_are_not_supported_raise(body: Any, error: type, message: str, tmp_path: Path) -> None:
    if body is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(body))
    with pytest.raises(error, match=message):
        _model_inputs.image_inputs(tmp_path)


def test_a_very_long_image_needs_little_memory() -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (2, 60_000, 3), dtype=np.uint8)
    settings = ImageSettings(64, None, 3, (64, 64), None, None, None)
    found = settings(wide)["pixels"]
    assert found.shape == (3, 64, 64)
    # The ends do not affect the center.
    assert np.array_equal(found, settings(wide[:, 29_900:30_100])["pixels"])


def test_sounds_of_ast_equal_those_of_the_library(tmp_path: Path) -> None:
    from transformers import ASTFeatureExtractor

    for options in ({}, {"num_mel_bins": 32, "max_length": 50, "mean": -3.0, "std": 2.0}, {"do_normalize": False}):
        extractor = ASTFeatureExtractor(**options)
        extractor.save_pretrained(tmp_path)
        prepare = _model_inputs.ast_inputs(tmp_path).prepare
        for sound in models.sounds():
            expected = extractor(sound.samples, sampling_rate=16000, return_tensors="np")["input_values"][0]
            np.testing.assert_allclose(prepare(sound)["frames"], expected, atol=2e-5)


def test_sounds_of_clap_equal_those_of_the_library(tmp_path: Path) -> None:
    from transformers import ClapFeatureExtractor

    common = {"feature_size": 32, "sampling_rate": 16000, "max_length_s": 1, "hop_length": 160, "fft_window_size": 512}
    for truncation in ("rand_trunc", "fusion"):
        for padding in ("repeatpad", "repeat", "pad"):
            extractor = ClapFeatureExtractor(**common, truncation=truncation, padding=padding, frequency_max=8000)
            extractor.save_pretrained(tmp_path)
            prepare = _model_inputs.clap_inputs(tmp_path, fusion=truncation == "fusion").prepare
            for sound in models.sounds()[:2]:
                expected = extractor(sound.samples, sampling_rate=16000, return_tensors="np")["input_features"][0]
                found = prepare(sound)["frames"]
                assert found.shape == expected.shape
                np.testing.assert_allclose(found, expected, atol=2e-3)


def test_sounds_of_whisper_equal_those_of_the_library() -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(chunk_length=1)
    prepare = WhisperWindows(1.0)
    short, long = models.sounds()[1:]
    expected = extractor(short.samples, sampling_rate=16000, return_tensors="np")["input_features"]
    prepared = prepare(short)
    np.testing.assert_allclose(prepared["frames"], expected, atol=2e-5)
    assert prepared["length"].tolist() == [35]
    # A longer sound has several windows, each prepared alone.
    prepared = prepare(long)
    assert prepared["length"].tolist() == [50, 15]
    for place, window in enumerate(prepared["frames"]):
        part = long.samples[16000 * place : 16000 * (place + 1)]
        expected = extractor(part, sampling_rate=16000, return_tensors="np")["input_features"][0]
        np.testing.assert_allclose(window, expected, atol=2e-5)


def test_a_sound_of_few_samples_has_one_window() -> None:
    for samples in (1, 100, 401):
        sound = Audio(np.full(samples, 0.1, np.float32), 16000)
        prepared = WhisperWindows(1.0)(sound)
        assert prepared["frames"].shape == (1, 80, 100)
        assert prepared["length"].tolist() == [max(1, -(-samples // 320))]


def test_tokens_equal_those_of_the_library(tmp_path: Path) -> None:
    tokenizer = models.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    texts = ["Cat", "two  dogs, run!", "é 1 " + "long " * 40, "[SEP] x"]
    prepare = _model_inputs.text_inputs(tmp_path, positions=48).prepare
    for text in texts:
        assert prepare(text)["input_ids"].tolist() == tokenizer(text, truncation=True, max_length=48)["input_ids"]
    filled = _model_inputs.text_inputs(tmp_path, positions=48, max_length=20, fill=True).prepare
    for text in texts:
        expected = tokenizer(text, truncation=True, max_length=20, padding="max_length")["input_ids"]
        assert filled(text)["input_ids"].tolist() == expected
    # Without tokenizer.json, the tokenizer is made from the vocabulary.
    (tmp_path / "tokenizer.json").unlink()
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    made = _model_inputs.text_inputs(tmp_path, positions=48)
    assert made.files == ("tokenizer_config.json", "vocab.txt")
    assert [made.prepare(text)["input_ids"].tolist() for text in texts] == [
        prepare(text)["input_ids"].tolist() for text in texts
    ]
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(DataError, match="has no tokenizer"):
        _model_inputs.text_inputs(tmp_path, positions=48)


def test_a_prefix_and_a_maximum_length_are_options(tmp_path: Path) -> None:
    folder = models.save_model("bert", tmp_path)
    plain, prefixed = (create(f"transformers:{folder}{options}") for options in ("", "?prefix=query: &max_length=5"))
    assert prefixed.prepare("cat")["input_ids"].tolist() == [*plain.prepare("query: cat")["input_ids"].tolist()[:4], 3]
    assert plain.fingerprint != prefixed.fingerprint
    with pytest.raises(ConfigError, match="max_length 500 exceeds the 48 tokens"):
        create(f"transformers:{folder}?max_length=500")
