"""Test `StableUnCLIP` against the pipeline of diffusers, and test its errors."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pil = pytest.importorskip("PIL.Image")

from tiny_pipelines import DIM  # noqa: E402

from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError  # noqa: E402
from unialign.generation import Decoder, load_decoder  # noqa: E402
from unialign.generation._decoder import draw_noise  # noqa: E402
from unialign.generation._stable_unclip import StableUnCLIP  # noqa: E402


def embeddings(rows: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def images(rows: int, side: int = 16) -> Tensor:
    return torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(1))


def as_pil(x: Tensor) -> Any:
    return pil.fromarray((x * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def test_input_spec_describes_the_embeddings(unclip: StableUnCLIP, unclip_folder: Path) -> None:
    assert isinstance(unclip, Decoder)
    spec = unclip.input_spec
    assert (unclip.size, spec.dim, spec.scale_invariant) == (16, DIM, False)
    assert len(unclip.input_spec.fingerprint or "") == 64
    normalizer = unclip.pipeline.image_normalizer
    noise = torch.randn(200_000, DIM, generator=torch.Generator().manual_seed(0))
    draws = normalizer.mean.detach() + normalizer.std.detach() * noise
    assert unclip.input_spec.norm == pytest.approx(float(draws.square().sum(1).mean().sqrt()), rel=0.01)
    assert load_decoder(unclip_folder).input_spec == unclip.input_spec


def test_a_normalizer_without_statistics_has_no_norm(unclip_copy: Path) -> None:
    plain = diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(embedding_dim=DIM)
    plain.save_pretrained(unclip_copy / "image_normalizer")
    assert StableUnCLIP.from_pretrained(unclip_copy).input_spec.norm is None


def test_identity_is_of_weights_and_configuration(unclip_copy: Path, unclip: StableUnCLIP) -> None:
    part = unclip_copy / "image_encoder"
    config = json.loads((part / "config.json").read_text())
    (part / "config.json").write_text(json.dumps({**config, "transformers_version": "1.0", "_name_or_path": "x"}))
    assert StableUnCLIP.from_pretrained(unclip_copy).input_spec.fingerprint == unclip.input_spec.fingerprint
    (part / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    other = StableUnCLIP.from_pretrained(unclip_copy).input_spec.fingerprint
    assert other != unclip.input_spec.fingerprint
    tower = StableUnCLIP.from_pretrained(unclip_copy).pipeline.image_encoder
    next(tower.parameters()).data.add_(1)
    tower.save_pretrained(part)
    assert StableUnCLIP.from_pretrained(unclip_copy).input_spec.fingerprint not in (
        other,
        unclip.input_spec.fingerprint,
    )


def test_embed_and_generate_are_the_pipelines_own(unclip: StableUnCLIP) -> None:
    x = images(1, side=20)
    pipeline = unclip.pipeline
    pixels = pipeline.feature_extractor(images=as_pil(x[0]), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = pipeline.image_encoder(pixels).image_embeds
    embedded = unclip.embed(x)
    torch.testing.assert_close(embedded, expected)
    made = unclip.generate(embedded, seed=5, steps=4, guidance=3.0)
    own = pipeline(
        image=as_pil(x[0]),
        prompt="",
        latents=draw_noise(1, 4 * 8 * 8, seed=5).view(1, 4, 8, 8),
        # The pipeline adds noise of level 0 (1 % of the standard deviation) from another generator.
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="np",
    ).images
    assert made.shape == (1, 3, 16, 16)
    torch.testing.assert_close(made, torch.from_numpy(own).permute(0, 3, 1, 2), atol=0.02, rtol=0)


def test_embed_in_batches(unclip: StableUnCLIP) -> None:
    x = images(5)
    together = unclip.embed(x)
    assert together.shape == (5, DIM)
    assert together.dtype == torch.float32
    torch.testing.assert_close(unclip.embed(x.double().numpy(), batch_size=2), together)
    assert unclip.embed(x[:0]).shape == (0, DIM)


@pytest.mark.parametrize(
    "scheduler", ["DDIMScheduler", "DDPMScheduler", "EulerAncestralDiscreteScheduler", "PNDMScheduler"]
)
def test_noise_of_a_row_does_not_depend_on_other_rows(unclip_folder: Path, scheduler: str) -> None:
    # Use float64, since random weights and guidance amplify rounding differences between batch sizes.
    unclip = StableUnCLIP.from_pretrained(unclip_folder, dtype=torch.float64)
    kind = getattr(diffusers, scheduler)
    varied = StableUnCLIP(diffusers.StableUnCLIPImg2ImgPipeline(**unclip.pipeline.components))
    varied.pipeline.set_progress_bar_config(disable=True)
    varied.pipeline.scheduler = kind.from_config(unclip.pipeline.scheduler.config)
    x = embeddings(1).repeat(3, 1)
    together = varied.generate(x, steps=4, guidance=2.0)
    rounding = {"atol": 4 * torch.finfo(torch.float32).eps, "rtol": 0.0}  # float32 rounding of images in [0, 1]
    torch.testing.assert_close(varied.generate(x, steps=4, guidance=2.0, batch_size=2), together, **rounding)
    torch.testing.assert_close(varied.generate(x[:1], steps=4, guidance=2.0), together[:1], **rounding)
    assert float((together[0] - together[1]).abs().max()) > 0.01


def test_noise_is_scaled_as_the_scheduler_wants(unclip: StableUnCLIP) -> None:
    pipeline = diffusers.StableUnCLIPImg2ImgPipeline(**unclip.pipeline.components)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(unclip.pipeline.scheduler.config)
    seen: list[float] = []
    forward = pipeline.scheduler.scale_model_input

    def scale_model_input(latents: Tensor, t: Tensor) -> Tensor:
        seen.append(float(latents.std()))
        return forward(latents, t)

    pipeline.scheduler.scale_model_input = scale_model_input
    StableUnCLIP(pipeline).generate(embeddings(1), steps=3)
    assert float(pipeline.scheduler.init_noise_sigma) > 5
    noise = draw_noise(1, 256, seed=0)
    assert seen[0] == pytest.approx(float(noise.std() * pipeline.scheduler.init_noise_sigma), rel=1e-3)


def test_the_global_random_state_does_not_change(unclip_folder: Path) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    unclip = StableUnCLIP.from_pretrained(unclip_folder)
    unclip.generate(embeddings(2), steps=2)
    unclip.embed(images(1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]


def test_no_bars_and_the_users_stay(unclip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    StableUnCLIP.from_pretrained(unclip_folder).generate(embeddings(1), steps=2)
    assert "it/s" not in capfd.readouterr().err
    assert diffusers.utils.logging.is_progress_bar_enabled()


def test_half_precision(unclip_folder: Path, unclip: StableUnCLIP) -> None:
    half = StableUnCLIP.from_pretrained(unclip_folder, dtype=torch.bfloat16)
    made = half.generate(embeddings(2), steps=2)
    assert made.dtype == torch.float32
    # In each step, guidance g amplifies the rounding errors of two predictions by up to 2 g - 1 (default: g = 10).
    rounding = 2 * (2 * 10 - 1) * torch.finfo(torch.bfloat16).eps
    torch.testing.assert_close(made, unclip.generate(embeddings(2), steps=2), atol=rounding, rtol=0)
    torch.testing.assert_close(half.embed(images(2)), unclip.embed(images(2)), atol=0.1, rtol=0)


def test_wrong_width(unclip: StableUnCLIP) -> None:
    for shape in (
        (2, DIM + 1),
        (DIM,),
        (1, 2, DIM),
    ):
        with pytest.raises(
            ShapeError, match=rf"expects .*\(N, {DIM}\), embeddings of the image encoder of Stable unCLIP"
        ):
            unclip.generate(torch.ones(shape))


def test_bad_rows(unclip: StableUnCLIP) -> None:
    x = embeddings(3)
    x[1, 2] = torch.nan
    with pytest.raises(NonFiniteError, match="row 1"):
        unclip.generate(x)


def test_options_out_of_range(unclip: StableUnCLIP) -> None:
    for options, named in (
        ({"steps": 0}, "steps"),
        ({"guidance": 0.5}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ConfigError, match=named):
            unclip.generate(embeddings(1), **options)


def test_invalid_images(unclip: StableUnCLIP) -> None:
    for wrong, error, words in (
        (torch.zeros(2, 1, 8, 8), ShapeError, "height, width"),
        (torch.zeros(3, 8, 8), ShapeError, "height, width"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ShapeError, "uint8"),
        (torch.full((2, 3, 8, 8), 255.0), DataError, "images, row 0, .* 255"),
        (torch.full((2, 3, 8, 8), torch.nan), NonFiniteError, "images, row 0"),
    ):
        with pytest.raises(error, match=words):
            unclip.embed(wrong)
