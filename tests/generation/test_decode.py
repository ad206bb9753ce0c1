"""Test the selection of the anchor, errors for spaces that do not match, and images decoded from a space."""

from typing import Any

import numpy as np
import pytest
import torch
from decoder_cases import DIM, ITEMS, tiny_image_store, tiny_images, tiny_space

from unialign import registry
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.generation import (
    EmbeddingSpec,
    FlowDecoder,
    decode,
    embed_items,
    load_decoder,
    mean,
    nearest_training,
    resolve_anchor,
)
from unialign.space import Space


@pytest.fixture(scope="module")
def decoder(tiny_decoders: list[FlowDecoder]) -> FlowDecoder:
    return tiny_decoders[0]


def test_the_anchor_is_found(space: Space, decoder: FlowDecoder) -> None:
    assert resolve_anchor(space, decoder) == "image"
    assert resolve_anchor(space, decoder, "image") == "image"


def test_a_true_embedding_is_reconstructed(space: Space, decoder: FlowDecoder) -> None:
    """Decoding through the space must give the same image as decoding the embedding of the store."""
    store = tiny_image_store()
    rows = store.rows("test")
    z, _ = embed_items(space, store, rows, ["image"])
    through_space = decode(space, decoder, z["image"])
    torch.testing.assert_close(through_space, decoder.generate(store.array("image")[rows]), atol=1e-3, rtol=0)


def test_text_makes_the_image_of_its_item(space: Space, decoder: FlowDecoder) -> None:
    store, images = tiny_image_store(), tiny_images()
    rows = store.rows("train")
    z, _ = embed_items(space, store, rows, ["text"])
    made = decode(space, decoder, z["text"])
    right = float((made - images[rows]).abs().mean())
    wrong = float((made - images[rows].roll(7, 0)).abs().mean())
    assert right < 0.8 * wrong


def test_mixtures_are_rows_like_others(space: Space, decoder: FlowDecoder) -> None:
    store = tiny_image_store()
    z, present = embed_items(space, store, [1, 2, 3], ["image", "text"])
    mixed = mean(z, present=present)
    assert decode(space, decoder, mixed).shape == (3, 3, 8, 8)
    # The decoder uses only directions, so the unnormalized mean gives the same images.
    plain = decode(space, decoder, mean(z, normalize=False))
    torch.testing.assert_close(plain, decode(space, decoder, mixed), atol=1e-3, rtol=0)


def test_the_nearest_training_items(space: Space) -> None:
    store = tiny_image_store()
    train = store.rows("train")
    z, _ = embed_items(space, store, train[:4], ["image"])
    found = nearest_training(space, store, z["image"], anchor="image", k=3)
    assert found.rows.shape == found.cosines.shape == (4, 3)
    assert found.rows[:, 0].tolist() == train[:4].tolist()
    torch.testing.assert_close(found.cosines[:, 0], torch.ones(4))
    everything = space.encode({"image": store.array("image")[train]})["image"]
    slow = (z["image"] @ everything.T).argsort(dim=1, descending=True)[:, :3]
    assert torch.equal(found.rows, torch.from_numpy(train)[slow])


def test_no_decoder_for_a_space_without_a_frozen_anchor(decoder: FlowDecoder) -> None:
    with pytest.raises(ConfigError, match="this space cannot be decoded"):
        resolve_anchor(Space({"image": DIM, "text": 6}, dim=8), decoder)
    with pytest.raises(ConfigError, match=r"a frozen modality \(image\), got 'text'"):
        resolve_anchor(Space({"image": DIM, "text": 6}, dim=4, frozen={"image": "whiten"}), decoder, "text")


def test_no_decoder_for_another_encoder(decoder: FlowDecoder) -> None:
    made = tiny_image_store().provenance["columns"]["image"] | {"encoder": "another one"}
    other = EmbeddingStore.from_arrays(
        {name: tiny_image_store().array(name) for name in ("image", "text")},
        split=["train"] * ITEMS,
        provenance={"columns": {"image": made}},
    )
    with pytest.raises(ConfigError, match=r"does not match this space: it expects embeddings of a random map"):
        resolve_anchor(tiny_space(other, epochs=1), decoder)


def test_the_same_encoder_on_other_items_will_do(decoder: FlowDecoder) -> None:
    made = tiny_image_store().provenance["columns"]["image"] | {"input": "other images", "license": "another"}
    other = EmbeddingStore.from_arrays(
        {name: tiny_image_store().array(name)[:40] for name in ("image", "text")},
        split=["train"] * 40,
        provenance={"columns": {"image": made}},
    )
    assert resolve_anchor(tiny_space(other, epochs=1), decoder) == "image"


def test_a_space_without_an_encoder_fingerprint_is_matched_by_dim(decoder: FlowDecoder) -> None:
    silent = Space({"image": DIM, "text": 6}, dim=8, frozen={"image": "whiten"})
    assert resolve_anchor(silent, decoder) == "image"
    wide = Space({"image": DIM + 1, "text": 6}, dim=8, frozen={"image": "whiten"})
    with pytest.raises(ShapeError, match=r"does not match this anchor: 'image' has dim 11, .* of dim 10"):
        resolve_anchor(wide, decoder)
    two = Space({"image": DIM, "text": DIM}, dim=8, frozen={"image": "whiten", "text": "whiten"})
    with pytest.raises(ConfigError, match=r"several modalities match this decoder \(image, text\)"):
        resolve_anchor(two, decoder)
    assert resolve_anchor(two, decoder, "text") == "text"


def test_fewer_directions_than_the_decoder_reads_raise(decoder: FlowDecoder) -> None:
    narrow = Space({"image": DIM, "text": 6}, dim=4, frozen={"image": "whiten"})
    with pytest.raises(ConfigError, match="the space has dim 4, but the decoder uses 8 directions"):
        resolve_anchor(narrow, decoder)


def test_absent_items_and_unknown_modalities(space: Space) -> None:
    store = tiny_image_store()
    text = store.array("text").copy()
    there = np.arange(ITEMS) != 3
    text[3] = np.nan
    partly = EmbeddingStore.from_arrays({"image": store.array("image"), "text": text}, present={"text": there})
    z, present = embed_items(space, partly, [2, 3], ["text"])
    assert present["text"].tolist() == [True, False]
    assert not z["text"][1].any()
    with pytest.raises(ConfigError, match="the space has no modality 'audio'"):
        embed_items(space, store, [0], ["audio"])


def test_any_object_with_the_protocol_is_a_decoder(space: Space) -> None:
    class Gray:
        input_spec, size = EmbeddingSpec("anything", DIM), 4

        def generate(self, embeddings: Any, *, seed: int = 0, steps: Any = None, guidance: Any = None) -> torch.Tensor:
            return torch.sigmoid(embeddings[:, :1, None, None]).expand(-1, 3, 4, 4)

    z, _ = embed_items(space, tiny_image_store(), [0, 1], ["image"])
    assert decode(space, Gray(), z["image"]).shape == (2, 3, 4, 4)


def test_errors_name_rows_that_cannot_be_decoded(space: Space, decoder: FlowDecoder) -> None:
    store = tiny_image_store()
    z = torch.ones(3, 8)
    z[1, 3] = torch.nan
    with pytest.raises(NonFiniteError, match="z, row 1, holds nan at column 3"):
        decode(space, decoder, z)
    with pytest.raises(NonFiniteError, match="z, row 0, has norm zero"):
        decode(space, decoder, torch.zeros(1, 8))
    with pytest.raises(ShapeError, match=r"floats of shape \(N, 8\)"):
        decode(space, decoder, torch.ones(1, 8, dtype=torch.bool))
    for rows, error in (([99999], ConfigError), ([-1], ConfigError), ([0.7], ShapeError)):
        with pytest.raises(error, match="rows"):
            embed_items(space, store, rows, ["text"])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="k must be"):
        nearest_training(space, store, torch.ones(1, 8), anchor="image", k=0)
    held = EmbeddingStore.from_arrays({"image": store.array("image")}, split=["test"] * ITEMS)
    with pytest.raises(DataError, match="no training rows"):
        nearest_training(space, held, torch.ones(1, 8), anchor="image")


def test_neighbors_depend_only_on_the_direction(space: Space) -> None:
    store = tiny_image_store()
    z = torch.randn(3, space.dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    usual = nearest_training(space, store, z, anchor="image")
    for scale in (1e-300, 1e-13, 1e300):
        found = nearest_training(space, store, z * scale, anchor="image")
        assert torch.equal(found.rows, usual.rows)
        torch.testing.assert_close(found.cosines, usual.cosines)


def test_a_decoder_is_loaded_by_a_registered_name_or_as_an_instance(
    decoder: FlowDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("decoders", "tiny", lambda: decoder)
    assert load_decoder("tiny") is decoder
    assert load_decoder(decoder) is decoder
