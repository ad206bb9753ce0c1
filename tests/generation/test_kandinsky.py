"""Test Kandinsky 2.2 against the pipeline of diffusers, with and without the image encoder of its prior."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pil = pytest.importorskip("PIL.Image")

from tiny_pipelines import DIM, save_kandinsky, save_kandinsky_prior, save_stable_unclip  # noqa: E402

from unialign.errors import CheckpointError, ConfigError, NonFiniteError, ShapeError  # noqa: E402
from unialign.generation import Decoder, load_decoder  # noqa: E402
from unialign.generation._decoder import draw_noise  # noqa: E402
from unialign.generation._kandinsky import Kandinsky22  # noqa: E402
from unialign.generation._stable_unclip import StableUnCLIP  # noqa: E402

Folders = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders(kandinsky_folders: Folders) -> Folders:
    return kandinsky_folders


@pytest.fixture(scope="module")
def decoder(folders: Folders) -> Kandinsky22:
    return Kandinsky22.from_pretrained(folders[0], prior=folders[1])


@pytest.fixture(scope="module")
def exact(folders: Folders) -> Kandinsky22:
    """Return the decoder in float64, since random weights and guidance amplify rounding errors."""
    return Kandinsky22.from_pretrained(folders[0], prior=folders[1], dtype=torch.float64)


@pytest.fixture(scope="module")
def own_prior(folders: Folders) -> Any:
    pipeline = diffusers.KandinskyV22PriorPipeline.from_pretrained(
        folders[1], local_files_only=True, torch_dtype=torch.float64
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# Pipelines round images in [0, 1] to float32, which causes errors of at most half an eps.
IMAGE_ROUNDING = {"atol": 4 * torch.finfo(torch.float32).eps, "rtol": 0.0}


def embeddings(rows: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def own_call(decoder: Kandinsky22, x: Tensor, negative: Tensor, **options: Any) -> Tensor:
    made = []
    for i, row in enumerate(x):
        noise = draw_noise(1, 4 * 8 * 8, seed=3, first=i).view(1, 4, 8, 8).to(x.dtype)
        made.append(
            decoder.pipeline(
                image_embeds=row[None],
                negative_image_embeds=negative,
                latents=noise,
                height=16,
                width=16,
                output_type="np",
                **options,
            ).images[0]
        )
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in made])


def test_input_spec_describes_the_embeddings(decoder: Kandinsky22, folders: Folders) -> None:
    assert isinstance(decoder, Decoder)
    spec = decoder.input_spec
    assert (decoder.size, spec.dim, spec.norm, spec.scale_invariant) == (16, DIM, None, False)
    assert len(decoder.input_spec.fingerprint or "") == 64
    assert load_decoder(folders[0], prior=folders[1]).input_spec == decoder.input_spec


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_generate_is_the_pipelines_own(exact: Kandinsky22, own_prior: Any, guidance: float) -> None:
    x = embeddings(3)
    images = exact.generate(x, seed=3, steps=4, guidance=guidance, batch_size=2)
    # The decoder rounds embeddings to float32, so the expected call does the same.
    negative = own_prior.get_zero_embed().float().double()
    expected = own_call(exact, x.double(), negative, num_inference_steps=4, guidance_scale=guidance)
    assert images.shape == (3, 3, 16, 16)
    torch.testing.assert_close(images, expected, **IMAGE_ROUNDING)


def test_embed_is_the_priors_own(exact: Kandinsky22, own_prior: Any) -> None:
    x = torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    files = [pil.fromarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()) for image in x]
    with torch.no_grad():
        pixels = own_prior.image_processor(images=files, return_tensors="pt").pixel_values
        expected = own_prior.image_encoder(pixels.double()).image_embeds.float()
    torch.testing.assert_close(exact.embed(x, batch_size=2), expected)
    assert exact.generate(exact.embed(x), steps=2).shape == (3, 3, 16, 16)


def test_noise_of_a_row_does_not_depend_on_other_rows_with_a_stochastic_scheduler(
    folders: Folders, tmp_path: Path
) -> None:
    drawn = save_kandinsky(tmp_path / "ddpm", scheduler=diffusers.DDPMScheduler(clip_sample=False))
    decoder = Kandinsky22.from_pretrained(drawn, prior=folders[1], dtype=torch.float64)
    x = embeddings(1).repeat(3, 1)
    before = torch.get_rng_state()
    together = decoder.generate(x, steps=4)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(decoder.generate(x, steps=4, batch_size=2), together, **IMAGE_ROUNDING)
    torch.testing.assert_close(decoder.generate(x[:1], steps=4), together[:1], **IMAGE_ROUNDING)
    assert float((together[0] - together[1]).abs().max()) > 0.01


def test_only_the_image_encoder_of_the_prior_is_needed(folders: Folders, tmp_path: Path) -> None:
    beside = Path(shutil.copytree(folders[1], tmp_path / "prior"))
    for part in ("text_encoder", "prior", "tokenizer", "scheduler"):
        shutil.rmtree(beside / part)
    decoder = Kandinsky22.from_pretrained(folders[0], prior=beside)
    assert decoder.generate(embeddings(1), steps=2).shape == (1, 3, 16, 16)
    shutil.rmtree(beside / "image_encoder")
    with pytest.raises(CheckpointError, match="lacks the component image_encoder of a KandinskyV22PriorPipeline"):
        Kandinsky22.from_pretrained(folders[0], prior=beside)


def test_without_the_priors_folder(folders: Folders, decoder: Kandinsky22) -> None:
    alone = load_decoder(folders[0])
    assert isinstance(alone, Kandinsky22)
    assert (alone.input_spec.dim, alone.input_spec.fingerprint) == (DIM, None)
    x = embeddings(2)
    assert torch.equal(alone.generate(x, steps=2, guidance=1), decoder.generate(x, steps=2, guidance=1))
    for ask in (
        lambda: alone.generate(x),
        lambda: alone.embed(torch.rand(1, 3, 16, 16)),
    ):
        with pytest.raises(ConfigError, match=r"prior=FOLDER"):
            ask()


def test_half_precision(folders: Folders, decoder: Kandinsky22) -> None:
    half = Kandinsky22.from_pretrained(folders[0], prior=folders[1], dtype=torch.bfloat16)
    assert next(half.pipeline.unet.parameters()).dtype == torch.bfloat16
    made = half.generate(embeddings(2), steps=2)
    assert made.dtype == torch.float32
    torch.testing.assert_close(
        made.mean((1, 2, 3)), decoder.generate(embeddings(2), steps=2).mean((1, 2, 3)), atol=0.1, rtol=0
    )
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(half.embed(x), decoder.embed(x), atol=0.1, rtol=0)


def test_wrong_width(decoder: Kandinsky22) -> None:
    for shape in (
        (2, DIM - 1),
        (DIM,),
    ):
        with pytest.raises(
            ShapeError, match=rf"expects .*\(N, {DIM}\), embeddings of the image encoder of Kandinsky 2\.2"
        ):
            decoder.generate(torch.ones(shape))


def test_bad_rows_and_options(decoder: Kandinsky22) -> None:
    with pytest.raises(NonFiniteError, match="row 1"):
        decoder.generate(torch.stack([torch.ones(DIM), torch.zeros(DIM)]))
    with pytest.raises(ConfigError, match="guidance must be at least 1"):
        decoder.generate(embeddings(1), guidance=0.0)
    for steps in (0, 1001):
        with pytest.raises(ConfigError, match=f"steps must be an integer from 1 to 1000, got {steps}"):
            decoder.generate(embeddings(1), steps=steps)


def test_a_prior_of_another_width(folders: Folders, tmp_path: Path) -> None:
    wide = save_kandinsky_prior(tmp_path / "wide", dim=DIM + 8)
    with pytest.raises(CheckpointError, match=f"has dim {DIM + 8}, but the decoder needs dim {DIM}"):
        Kandinsky22.from_pretrained(folders[0], prior=wide)


@pytest.mark.parametrize("part", ["unet", "movq", "scheduler"])
def test_missing_parts(folders: Folders, tmp_path: Path, part: str) -> None:
    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    shutil.rmtree(copy / part)
    with pytest.raises(CheckpointError, match=f"lacks the component {part} of a KandinskyV22Pipeline"):
        Kandinsky22.from_pretrained(copy)


def test_pickles_raise(folders: Folders, tmp_path: Path) -> None:
    beside = Path(shutil.copytree(folders[1], tmp_path / "prior"))
    weights = beside / "image_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is a pickle"):
        Kandinsky22.from_pretrained(folders[0], prior=beside)


def test_folders_in_each_others_place(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains a KandinskyV22Pipeline; expected a KandinskyV22PriorPipeline"):
        Kandinsky22.from_pretrained(folders[0], prior=folders[0])
    with pytest.raises(ConfigError, match="generates image embeddings, not images"):
        load_decoder(folders[1])
    unclip = save_stable_unclip(tmp_path / "unclip")
    with pytest.raises(ConfigError, match="load it with StableUnCLIP"):
        Kandinsky22.from_pretrained(unclip)
    with pytest.raises(ConfigError, match=r"is for Kandinsky 2\.2"):
        load_decoder(unclip, prior=folders[1])
    assert isinstance(load_decoder(unclip), StableUnCLIP)


def test_a_denoiser_that_reads_no_image_embeddings(folders: Folders, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders[0], tmp_path / "copy"))
    plain = diffusers.UNet2DConditionModel(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        attention_head_dim=8,
        cross_attention_dim=32,
    )
    shutil.rmtree(copy / "unet")
    plain.save_pretrained(copy / "unet")
    with pytest.raises(
        CheckpointError, match="not conditioned on image embeddings, since its encoder_hid_dim_type is None"
    ):
        Kandinsky22.from_pretrained(copy)
    config = json.loads((folders[0] / "unet" / "config.json").read_text())
    shutil.rmtree(copy / "unet")
    shutil.copytree(folders[0] / "unet", copy / "unet")
    (copy / "unet" / "config.json").write_text(json.dumps({**config, "sample_size": [8, 16]}))
    with pytest.raises(CheckpointError, match=r"sample_size \[8, 16\]"):
        Kandinsky22.from_pretrained(copy)
