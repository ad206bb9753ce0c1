"""Save models of transformers with random weights of a few kilobytes, and their processors, in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unialign.media import Audio, Video

SMALL: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
TEXTS = ["a red cat", "two dogs run in the park", "sea"]


def images(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    sizes = [(30, 40), (64, 20), (11, 13)]
    return [rng.integers(0, 256, (*sizes[place % 3], 3), dtype=np.uint8) for place in range(count)]


def sounds(rate: int = 16000) -> list[Audio]:
    rng = np.random.default_rng(6)
    return [Audio((0.1 * rng.normal(size=int(seconds * rate))).astype(np.float32), rate) for seconds in (0.2, 0.7, 1.3)]


def videos(frames: int = 4) -> list[Video]:
    rng = np.random.default_rng(7)
    return [Video(rng.integers(0, 256, (frames, 24, 32, 3), dtype=np.uint8)) for _ in range(3)]


def tokenizer() -> Any:
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={word: place for place, word in enumerate(words)}, model_max_length=48)


def image_processor(name: str, **options: Any) -> Any:
    import transformers

    # Processors that do not require torchvision have this suffix.
    return getattr(transformers, f"{name}ImageProcessorPil")(**options)


_SQUARE = {"height": 16, "width": 16}


def clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    text = {"vocab_size": 57, "hidden_size": 8, "max_position_embeddings": 40, "eos_token_id": 3, "bos_token_id": 2}
    config = CLIPConfig(
        text_config={**text, **SMALL},
        vision_config={"hidden_size": 8, "image_size": 16, "patch_size": 8, **SMALL},
        projection_dim=10,
    )
    CLIPModel(config).save_pretrained(folder)
    image_processor("CLIP", size={"shortest_edge": 20}, crop_size=_SQUARE).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def siglip(folder: Path) -> None:
    from transformers import SiglipConfig, SiglipModel

    text = {"vocab_size": 57, "hidden_size": 8, "max_position_embeddings": 24, "pad_token_id": 1, "bos_token_id": 2}
    config = SiglipConfig(
        text_config={**text, "eos_token_id": 3, "projection_size": 8, **SMALL},
        vision_config={"hidden_size": 8, "image_size": 16, "patch_size": 8, **SMALL},
    )
    SiglipModel(config).save_pretrained(folder)
    image_processor("Siglip", size=_SQUARE).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def dinov2(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    options = {"num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(hidden_size=8, image_size=16, patch_size=8, **options)).save_pretrained(folder)
    image_processor("Bit", size={"shortest_edge": 24}, crop_size=_SQUARE).save_pretrained(folder)


def vit(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(hidden_size=12, image_size=16, patch_size=8, **SMALL)).save_pretrained(folder)
    image_processor("ViT", size=_SQUARE).save_pretrained(folder)


def bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(vocab_size=57, hidden_size=16, max_position_embeddings=48, **SMALL)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def clap(folder: Path, *, fusion: bool = False) -> None:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    text = {"vocab_size": 57, "hidden_size": 8, "max_position_embeddings": 50, "pad_token_id": 0, **SMALL}
    audio = {
        "hidden_size": 16,
        "num_mel_bins": 32,
        "spec_size": 64,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 4,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "window_size": 4,
        "num_hidden_layers": 2,
        "enable_fusion": fusion,
    }
    audio["hidden_size"] = 8
    config = ClapConfig(text_config=text, audio_config=audio, projection_dim=6)
    ClapModel(config).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=32,
        sampling_rate=16000,
        max_length_s=1,
        hop_length=160,
        fft_window_size=512,
        frequency_max=8000,
        truncation="fusion" if fusion else "rand_trunc",
    ).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def clap_fusion(folder: Path) -> None:
    clap(folder, fusion=True)


def ast(folder: Path) -> None:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    patches = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    config = ASTConfig(hidden_size=8, max_length=64, num_mel_bins=16, **patches, **SMALL)
    ASTModel(config).save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=16, max_length=64).save_pretrained(folder)


def whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        vocab_size=57,
        num_mel_bins=80,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        d_model=8,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_source_positions=50,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)


def videomae(folder: Path) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel

    config = VideoMAEConfig(hidden_size=8, image_size=16, patch_size=8, num_frames=4, tubelet_size=2, **SMALL)
    VideoMAEModel(config).save_pretrained(folder)
    image_processor("VideoMAE", size={"shortest_edge": 18}, crop_size=_SQUARE).save_pretrained(folder)


MODELS: dict[str, Callable[[Path], None]] = {
    "clip": clip,
    "siglip": siglip,
    "dinov2": dinov2,
    "vit": vit,
    "bert": bert,
    "clap": clap,
    "clap_fusion": clap_fusion,
    "ast": ast,
    "whisper": whisper,
    "videomae": videomae,
}

# The kinds of media that each model encodes, and the length of the features.
DIMS: dict[str, dict[str, int]] = {
    "clip": {"image": 10, "text": 10},
    "siglip": {"image": 8, "text": 8},
    "dinov2": {"image": 8},
    "vit": {"image": 12},
    "bert": {"text": 16},
    "clap": {"audio": 6, "text": 6},
    "clap_fusion": {"audio": 6},
    "ast": {"audio": 8},
    "whisper": {"audio": 8},
    "videomae": {"video": 8},
}


def save_model(name: str, folder: Path) -> Path:
    torch.manual_seed(sum(map(ord, name)))
    folder.mkdir(parents=True, exist_ok=True)
    MODELS[name](folder)
    return folder


def inputs(media: str) -> list[Any]:
    found: dict[str, Callable[[], list[Any]]] = {
        "image": images,
        "text": lambda: list(TEXTS),
        "audio": sounds,
        "video": videos,
    }
    return found[media]()
