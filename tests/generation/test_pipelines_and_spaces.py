"""Test the whole workflow with a diffusers pipeline."""

from typing import Any

import numpy as np
import pytest
import torch

from unialign._datasets import datasets_folder
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.errors import ConfigError, ShapeError
from unialign.generation import decode, embed_items, load_decoder, mean, resolve_anchor
from unialign.space import Space
from unialign.train import TrainConfig, fit

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tiny_pipelines import DIM

ITEMS = 40


@pytest.fixture(scope="module", params=["stable_unclip", "kandinsky"])
def decoder(request: pytest.FixtureRequest) -> Any:
    if request.param == "stable_unclip":
        return load_decoder(request.getfixturevalue("unclip_folder"))
    folder, prior = request.getfixturevalue("kandinsky_folders")
    return load_decoder(folder, prior=prior)


@pytest.fixture(scope="module")
def store(decoder: Any) -> EmbeddingStore:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(ITEMS, 3, 4, 4, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    image = decoder.embed(images)
    rng = np.random.default_rng(0)
    text = image.numpy() @ rng.normal(size=(DIM, 12)) + 0.01 * rng.normal(size=(ITEMS, 12))
    return EmbeddingStore.from_arrays(
        {"image": image, "text": text, "audio": text @ rng.normal(size=(12, 9))},
        split=["train"] * 30 + ["test"] * 10,
        provenance={"columns": {"image": decoder.input_spec.provenance()}},
    )


def embeddings(rows: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed))


def test_images(decoder: Any) -> None:
    x = embeddings(3)
    made = decoder.generate(x, steps=3)
    assert made.shape == (3, 3, 16, 16)
    assert (made.dtype, made.device.type) == (torch.float32, "cpu")
    assert 0 <= float(made.min()) < float(made.max()) <= 1
    assert torch.equal(made, decoder.generate(x.numpy(), steps=3))
    assert decoder.generate(x[:0], steps=3).shape == (0, 3, 16, 16)


def test_settings_that_affect_images(decoder: Any) -> None:
    x = embeddings(1)
    made = decoder.generate(x, steps=3)
    others = {
        "seed": decoder.generate(x, steps=3, seed=1),
        "embedding": decoder.generate(embeddings(1, seed=1), steps=3),
        "length": decoder.generate(2 * x, steps=3),
        "steps": decoder.generate(x, steps=4),
        "guidance": decoder.generate(x, steps=3, guidance=1.0),
    }
    assert {name for name, other in others.items() if float((made - other).abs().max()) < 1e-3} == set()


def trained(store: EmbeddingStore, **changes: Any) -> Space:
    settings: dict[str, Any] = {
        "objective_options": {"anchor": "image", "preset": "frozen_anchor"},
        "frozen": {"image": "whiten"},
        "dim": 8,
        "epochs": 5,
    }
    return fit(store, TrainConfig(**settings | changes), progress="none").space


@pytest.fixture(scope="module")
def space(store: EmbeddingStore) -> Space:
    return trained(store)


def test_the_column_has_the_identity_of_the_tower(store: EmbeddingStore, decoder: Any) -> None:
    assert encoder_fingerprint(store, "image") == decoder.input_spec.fingerprint


def test_every_modality_makes_images(space: Space, store: EmbeddingStore, decoder: Any) -> None:
    z, present = embed_items(space, store, store.rows("test")[:2], space.modalities)
    made = {name: decode(space, decoder, z[name], steps=2, guidance=1.0) for name in space.modalities}
    made["all"] = decode(space, decoder, mean(z, present=present), steps=2, guidance=1.0)
    for name, images in made.items():
        assert images.shape == (2, 3, decoder.size, decoder.size), name
        assert bool(torch.isfinite(images).all())
    assert not torch.equal(made["text"], made["audio"])


def test_conditions_have_the_typical_length_of_the_towers_embeddings(space: Space, store: EmbeddingStore) -> None:
    """Conditions from text are about as far from the mean of the image embeddings as the image embeddings are."""
    rows = store.rows("train")
    image = torch.tensor(store.array("image")[rows]).float()
    z, _ = embed_items(space, store, rows, ["text"])
    like = space.inverse_transform("image", z["text"])
    center = image.mean(0)
    typical = (image - center).norm(dim=1).mean()
    assert 0.4 * typical < (like - center).norm(dim=1).mean() < 1.6 * typical
    # The unnormalized mean gives shorter features and other images, since these decoders are not scale-invariant.
    pair = [z["text"], z["text"].roll(1, 0)]
    norms = [
        (space.inverse_transform("image", mean(pair, normalize=normalize)) - space.features[0].mean).norm(dim=1)
        for normalize in (False, True)
    ]
    assert bool((norms[0] < norms[1]).all())


def test_no_decoder_for_another_anchor(decoder: Any, space: Space) -> None:
    emoji = Space.from_pretrained(datasets_folder("models") / "emoji" / "space")
    with pytest.raises(ConfigError, match="the decoder does not match this space"):
        resolve_anchor(emoji, decoder)
    with pytest.raises(ConfigError, match="the decoder does not match this space"):
        resolve_anchor(space, load_decoder("emoji"))


def test_a_wrong_dim_raises(decoder: Any) -> None:
    silent = Space({"image": DIM + 3, "text": 6}, dim=8, frozen={"image": "whiten"})
    with pytest.raises(ShapeError, match=f"has dim {DIM + 3}, .* of dim {DIM}"):
        resolve_anchor(silent, decoder)
