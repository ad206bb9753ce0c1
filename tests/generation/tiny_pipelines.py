"""Save tiny diffusers pipelines with random weights, in the format that the adapters load."""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

DIM = 16  # This is the dim of the image embeddings.
_WORDS = ("a", "red", "apple", "blue", "car")
_START, _END = 63, 64
_LAYER = {"intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}


def save_stable_unclip(folder: Path, *, dim: int = DIM, scheduler: Any = None) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        normalizer = diffusers.pipelines.stable_diffusion.StableUnCLIPImageNormalizer(embedding_dim=dim)
        normalizer.mean.data.uniform_(-0.5, 0.5)
        normalizer.std.data.uniform_(0.5, 1.5)
        pipeline = diffusers.StableUnCLIPImg2ImgPipeline(
            feature_extractor=image_processor(),
            image_encoder=image_encoder(dim),
            image_normalizer=normalizer,
            image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            tokenizer=tokenizer(folder.parent / f"{folder.name}-words"),
            text_encoder=transformers.CLIPTextModel(_text_config()),
            unet=diffusers.UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                block_out_channels=(16, 32),
                norm_num_groups=8,
                layers_per_block=1,
                attention_head_dim=8,
                cross_attention_dim=32,
                class_embed_type="projection",
                projection_class_embeddings_input_dim=2 * dim,
            ),
            scheduler=scheduler or diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
            vae=diffusers.AutoencoderKL(
                block_out_channels=(8, 16),
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                norm_num_groups=8,
                latent_channels=4,
            ),
        )
        _save(pipeline, folder)
    return folder


def save_kandinsky(folder: Path, *, dim: int = DIM, scheduler: Any = None) -> Path:
    """Save a `KandinskyV22Pipeline` for 16 x 16 images; like the published pipeline, it has no image encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        pipeline = diffusers.KandinskyV22Pipeline(
            unet=diffusers.UNet2DConditionModel(
                sample_size=8,
                in_channels=4,
                out_channels=8,
                down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
                up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
                mid_block_type="UNetMidBlock2DSimpleCrossAttn",
                block_out_channels=(16, 32),
                norm_num_groups=8,
                layers_per_block=1,
                attention_head_dim=8,
                addition_embed_type="image",
                encoder_hid_dim=dim,
                encoder_hid_dim_type="image_proj",
                cross_attention_dim=16,
                resnet_time_scale_shift="scale_shift",
            ),
            scheduler=scheduler or diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
            movq=diffusers.VQModel(
                block_out_channels=(32, 32),
                down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
                up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
                latent_channels=4,
                num_vq_embeddings=12,
                vq_embed_dim=4,
                norm_type="spatial",
            ),
        )
        _save(pipeline, folder)
    return folder


def save_kandinsky_prior(folder: Path, *, dim: int = DIM) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        prior = diffusers.PriorTransformer(
            num_attention_heads=2, attention_head_dim=8, embedding_dim=dim, num_layers=1, num_embeddings=77
        )
        prior.clip_std.data.fill_(1.0)
        pipeline = diffusers.KandinskyV22PriorPipeline(
            prior=prior,
            image_encoder=image_encoder(dim),
            text_encoder=transformers.CLIPTextModelWithProjection(_text_config(projection_dim=dim, hidden_size=dim)),
            tokenizer=tokenizer(folder.parent / f"{folder.name}-words"),
            scheduler=diffusers.UnCLIPScheduler(
                variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
            ),
            image_processor=image_processor(),
        )
        _save(pipeline, folder)
    return folder


def image_encoder(dim: int) -> Any:
    config = transformers.CLIPVisionConfig(hidden_size=16, projection_dim=dim, image_size=16, patch_size=8, **_LAYER)
    return transformers.CLIPVisionModelWithProjection(config)


def image_processor() -> Any:
    return transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def tokenizer(folder: Path) -> Any:
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz"
    merges = [
        f"{word[:i]} {word[i]}{'</w>' if i == len(word) - 1 else ''}" for word in _WORDS for i in range(1, len(word))
    ]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *dict.fromkeys(merges), ""]))
    return transformers.CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def rewrite_index(folder: Path, **entries: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def _text_config(*, projection_dim: int = 32, hidden_size: int = 32) -> Any:
    return transformers.CLIPTextConfig(
        hidden_size=hidden_size,
        projection_dim=projection_dim,
        vocab_size=100,
        eos_token_id=_END,
        bos_token_id=_START,
        pad_token_id=_END,
        **_LAYER,
    )


def _save(pipeline: Any, folder: Path) -> None:
    pipeline.save_pretrained(folder, safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("feature_extractor", "image_processor"):
        if part in index:
            rewrite_index(folder, **{part: ["transformers", "CLIPImageProcessor"]})
