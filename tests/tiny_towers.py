"""Tiny transformers encoders with random weights, and inputs for them."""

from functools import cache
from typing import Any

import numpy as np
import torch

from unialign.data import EmbeddingStore
from unialign.space import Space

SMALL: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DIMS = {"text": 16, "image": 12, "audio": 8}
TEXTS = ["a red cat", "two dogs run", "the sea at night is calm and dark"]


def images(count: int = 3) -> list[Any]:
    from PIL import Image

    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)) for _ in range(count)]


def sounds(count: int = 3) -> list[dict[str, Any]]:
    rng = np.random.default_rng(6)
    return [
        {"audio": {"array": rng.normal(size=8000).astype(np.float32), "sampling_rate": 16000}} for _ in range(count)
    ]


def tokenizer() -> Any:
    """Return a new tokenizer, since a processor that is saved with its tokenizer changes it."""
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={word: place for place, word in enumerate(words)}, model_max_length=64)


def image_processor(name: str = "ViT", **options: Any) -> Any:
    import transformers

    # Processors that do not require torchvision have this suffix.
    return getattr(transformers, f"{name}ImageProcessorPil")(**options)


@cache
def text_tower() -> tuple[Any, ...]:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer()), hidden_size=DIMS["text"], max_position_embeddings=64, **SMALL)
    return BertModel(config).eval(), tokenizer(), "mean"


@cache
def image_tower() -> tuple[Any, ...]:
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(1)
    config = ViTConfig(hidden_size=DIMS["image"], image_size=16, patch_size=8, **SMALL)
    return ViTModel(config).eval(), image_processor(size={"height": 16, "width": 16}), "cls"


@cache
def audio_tower() -> tuple[Any, ...]:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    torch.manual_seed(2)
    patches = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    config = ASTConfig(hidden_size=DIMS["audio"], max_length=32, num_mel_bins=16, **patches, **SMALL)
    return ASTModel(config).eval(), ASTFeatureExtractor(num_mel_bins=16, max_length=32), "mean"


@cache
def clip_tower() -> tuple[Any, Any]:
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    torch.manual_seed(3)
    text = {"vocab_size": len(tokenizer()), "hidden_size": 8, "max_position_embeddings": 77, "eos_token_id": 3}
    config = CLIPConfig(
        text_config={**text, **SMALL},
        vision_config={"hidden_size": 8, "image_size": 16, "patch_size": 8, **SMALL},
        projection_dim=10,
    )
    crop = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    return CLIPModel(config).eval(), CLIPProcessor(
        image_processor=image_processor("CLIP", **crop), tokenizer=tokenizer()
    )


def towers() -> dict[str, tuple[Any, ...]]:
    return {"text": text_tower(), "image": image_tower(), "audio": audio_tower()}


def sentence_transformer(tower: tuple[Any, ...]) -> Any:
    """Return a tower as a SentenceTransformer, built without the library under test."""
    import tempfile

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    model, processor, *pooling = tower
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        transformer = Transformer(folder)
    modules = [transformer, *(Pooling(transformer.get_embedding_dimension(), mode) for mode in pooling)]
    return SentenceTransformer(modules=modules, device="cpu")


@cache
def features(kind: str) -> np.ndarray:
    inputs = {"text": TEXTS, "image": images(), "audio": sounds()}[kind]
    found: np.ndarray = sentence_transformer(towers()[kind]).encode(inputs)
    return found


def make_space(**options: object) -> Space:
    rng = np.random.default_rng(7)
    dims = {**DIMS, "sensor": 5}
    rows = {
        name: rng.normal(size=(64, dim)) * rng.uniform(0.2, 3, dim) + rng.normal(size=dim) for name, dim in dims.items()
    }
    torch.manual_seed(4)
    space = Space(dims, dim=6, hidden=9, **options)  # type: ignore[arg-type]
    return space.fit_normalizer(EmbeddingStore.from_arrays(rows), np.arange(64)).eval()
