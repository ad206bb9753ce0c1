"""Test sampling, saving, and errors of a decoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from decoder_cases import DIM, tiny_decoder_config, tiny_image_store, tiny_images

from unialign.errors import CheckpointError, ConfigError, NonFiniteError, ShapeError
from unialign.generation import Decoder, DecoderConfig, EmbeddingSpec, FlowDecoder, load_decoder, train_decoder


@pytest.fixture(scope="module")
def decoder() -> FlowDecoder:
    config = tiny_decoder_config(steps=60)
    return train_decoder(tiny_image_store(), config, images=tiny_images(), progress="none").decoder


def embeddings() -> torch.Tensor:
    return torch.tensor(tiny_image_store().array("image")[40:]).float()


def test_it_is_a_decoder(decoder: FlowDecoder) -> None:
    assert isinstance(decoder, Decoder)
    assert decoder.input_spec.encoder == "a random map"
    assert decoder.input_spec.dim == DIM
    assert decoder.input_spec.scale_invariant


def test_images_are_numbers_between_0_and_1_and_repeat(decoder: FlowDecoder) -> None:
    made = decoder.generate(embeddings(), seed=3)
    assert made.shape == (8, 3, 8, 8)
    assert made.dtype == torch.float32
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert torch.equal(made, decoder.generate(embeddings(), seed=3))
    assert not torch.equal(made, decoder.generate(embeddings(), seed=4))
    assert torch.equal(made, decoder.generate(embeddings().numpy(), seed=3))


def test_noise_of_a_row_does_not_depend_on_the_other_rows(decoder: FlowDecoder) -> None:
    x = embeddings()
    torch.testing.assert_close(decoder.generate(x[:3]), decoder.generate(x)[:3])
    # Two rows with the same embedding get different noise.
    twice = decoder.generate(torch.stack([x[0], x[0]]))
    assert not torch.allclose(twice[0], twice[1], atol=1e-3)


def test_the_length_of_an_embedding_is_ignored(decoder: FlowDecoder) -> None:
    mean, x = decoder.whitening.mean, embeddings()
    torch.testing.assert_close(decoder.generate(x), decoder.generate(mean + 3 * (x - mean)), atol=1e-4, rtol=0)


def test_guidance_and_steps_change_the_image(decoder: FlowDecoder) -> None:
    plain = decoder.generate(embeddings(), guidance=1.0)
    for options in ({"guidance": 3.0}, {"guidance": 0.0}, {"steps": 1}, {"steps": 9}):
        assert not torch.allclose(decoder.generate(embeddings(), **options), plain, atol=1e-3), options
    unconditional = decoder.generate(embeddings(), guidance=0.0)
    torch.testing.assert_close(unconditional, decoder.generate(embeddings().flip(0), guidance=0.0))


def test_no_row_is_no_image(decoder: FlowDecoder) -> None:
    assert decoder.generate(torch.zeros(0, DIM)).shape == (0, 3, 8, 8)


def test_invalid_input_raises(decoder: FlowDecoder) -> None:
    for given, options, error, message in (
        (
            torch.ones(2, DIM + 1),
            {},
            ShapeError,
            r"shape \(2, 11\) .*this decoder expects .*\(N, 10\), embeddings of a",
        ),
        (torch.ones(DIM), {}, ShapeError, r"shape \(10,\)"),
        (np.array([["a"] * DIM]), {}, ShapeError, "embeddings"),
        (torch.ones(1, DIM, dtype=torch.bool), {}, ShapeError, "dtype torch.bool"),
        (torch.full((1, DIM), float("nan")), {}, NonFiniteError, "row 0, holds nan at column 0"),
        (torch.zeros(2, DIM), {}, NonFiniteError, "row 0, has norm zero"),
        (torch.ones(1, DIM), {"steps": 0}, ConfigError, "steps"),
        (torch.ones(1, DIM), {"guidance": -1}, ConfigError, "guidance"),
        (torch.ones(1, DIM), {"guidance": float("inf")}, ConfigError, "guidance"),
        (torch.ones(1, DIM), {"seed": -1}, ConfigError, "seed"),
    ):
        with pytest.raises(error, match=message):
            decoder.generate(given, **options)


def test_saving_and_loading(decoder: FlowDecoder, tmp_path: Path) -> None:
    decoder.save_pretrained(tmp_path / "decoder")
    loaded = FlowDecoder.from_pretrained(tmp_path / "decoder")
    assert loaded.config == decoder.config
    assert loaded.input_spec == decoder.input_spec
    assert loaded.metadata == decoder.metadata
    assert torch.equal(loaded.generate(embeddings()), decoder.generate(embeddings()))
    (tmp_path / "decoder" / "model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError):
        FlowDecoder.from_pretrained(tmp_path / "decoder")
    with pytest.raises(CheckpointError, match="not a folder with a saved decoder"):
        FlowDecoder.from_pretrained(tmp_path / "nothing")


def test_a_space_is_not_a_decoder(tmp_path: Path) -> None:
    from unialign.space import Space

    Space({"image": 4}, dim=2).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="unknown or missing entries: decoder, space"):
        FlowDecoder.from_pretrained(tmp_path)


def test_settings_out_of_range_raise() -> None:
    for changes, message in (
        ({"network": "gan"}, "network"),
        ({"size": 3}, "size"),
        ({"size": 36, "network": "unet"}, "multiple of 8"),
        ({"latents": 200}, "latents must be at most 192"),
        ({"condition_dropout": 1.0}, "condition_dropout"),
        ({"average": 1.0}, "average"),
        ({"condition_noise": -1}, "condition_noise"),
        ({"lr": 0}, "lr"),
        ({"steps": 0}, "steps"),
        ({"save_steps": 0}, "save_steps"),
        ({"flips": True}, "flips"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny_decoder_config(**changes)


def test_settings_come_back_from_a_file() -> None:
    config = tiny_decoder_config()
    assert DecoderConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown decoder setting 'color'"):
        DecoderConfig.from_dict({"color": 1})


def test_more_directions_than_numbers_raise() -> None:
    with pytest.raises(ConfigError, match="directions=8 exceeds the dim 4"):
        FlowDecoder(tiny_decoder_config(), EmbeddingSpec("x", 4))


def test_the_convolutional_network_trains_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    config = tiny_decoder_config(network="unet", width=8, depth=1, steps=3, batch_size=4)
    fit = train_decoder(tiny_image_store(), config, images=tiny_images(), out=tmp_path, progress="none")
    made = fit.decoder.generate(embeddings(), steps=2, guidance=1.5)
    assert made.shape == (8, 3, 8, 8)
    loaded = FlowDecoder.from_pretrained(tmp_path / "decoder")
    torch.testing.assert_close(loaded.generate(embeddings(), steps=2, guidance=1.5), made)


def test_images_do_not_depend_on_the_callers_dtype_or_autocast() -> None:
    decoder = load_decoder("emoji")
    embeddings = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    plain = decoder.generate(embeddings, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decoder.generate(embeddings, seed=1), plain)
    torch.set_default_dtype(torch.float64)
    try:
        made = decoder.generate(embeddings, seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.dtype == torch.float32
    assert torch.equal(made, plain)
    with pytest.raises(ConfigError, match="from 0 to 1000"):
        decoder.generate(embeddings, guidance=1e38)
