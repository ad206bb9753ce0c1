"""Test that the benchmark of generated images has comparable sources and correct controls."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch

from generation.decoder_cases import tiny_decoder_config, tiny_image_store, tiny_images, tiny_space
from research._image_bench import CONTROLS, GenerationBench, annotate_controls, make_bench, scores_of, shuffled
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.generation import FlowDecoder, train_decoder
from unialign.generation._extractors import pixels
from unialign.generation._scores import Reference
from unialign.space import Space

pytest.importorskip("PIL")


@pytest.fixture(scope="module")
def space() -> Space:
    return tiny_space()


def tiny_decoder(seed: int) -> FlowDecoder:
    config = tiny_decoder_config(
        steps=400, batch_size=32, condition_noise=0.3, lr=3e-3, sampler_steps=6, whitening="whiten", seed=seed
    )
    return train_decoder(tiny_image_store(), config, images=tiny_images(), progress="none").decoder


@pytest.fixture(scope="module")
def bench() -> GenerationBench:
    store = tiny_image_store()
    decoders = [tiny_decoder(0), tiny_decoder(1)]
    made = make_bench(store, decoders, anchor="image", extractor=pixels(4), split="train")
    return dataclasses.replace(made, seed=5)


@pytest.fixture(scope="module", autouse=True)
def few_components() -> Iterator[None]:
    """Use 8 principal components, since 36 training images span fewer than 64 directions."""
    fit = Reference.fit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reference, "fit", lambda *given, **options: fit(*given, **{"components": 8, **options}))
        yield


def test_every_item_goes_to_another_group_and_is_used_once() -> None:
    for seed in range(5):
        group = np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7])
        other = shuffled(group, seed=seed).numpy()
        assert sorted(other.tolist()) == list(range(12))
        assert not (group[other] == group).any()
    assert not torch.equal(shuffled(group, seed=0), shuffled(group, seed=1))
    with pytest.raises(DataError, match="one group holds 3 of 5 items"):
        shuffled(np.array([0, 0, 0, 1, 2]), seed=0)


def test_controls_are_built_from_the_right_embeddings(bench: GenerationBench, space: Space) -> None:
    controls = bench.controls(space)
    assert tuple(controls) == tuple(CONTROLS)
    for name in ("self", "shuffled", "random", "nearest embedding"):
        assert controls[name].shape == (2, 36, 3, 8, 8), name
    assert torch.equal(controls["nearest image"], bench.training)
    torch.testing.assert_close(controls["nearest embedding"], controls["self"], atol=1e-4, rtol=0)
    scores = {name: bench.score(images).numbers for name, images in controls.items()}
    assert scores["self"]["l1"] < 0.7 * scores["shuffled"]["l1"]
    assert scores["self"]["recall@10"] > scores["shuffled"]["recall@10"] + 0.2
    assert scores["nearest image"]["recall@1"] > 0.9
    assert scores["shuffled"]["recall@1"] < 0.2


def test_sources_are_scored_with_the_same_noise(bench: GenerationBench, space: Space) -> None:
    sources = {"image": ["image"], "text": ["text"], "image+text": ["image", "text"]}
    own = bench.score(bench.controls(space)["self"])
    scores = scores_of(bench, space, sources, self_scores=own)
    assert tuple(scores) == ("image", "text", "image+text")
    assert scores["image"].numbers["l1"] == pytest.approx(own.numbers["l1"])
    assert scores["image"].numbers["fd_self"] == pytest.approx(0, abs=1e-6)
    assert scores["text"].numbers["fd_self"] > 0
    assert scores["text"].noises == 2


def test_items_without_a_source_raise(bench: GenerationBench, space: Space) -> None:
    store = tiny_image_store()
    text = np.arange(store.items) != 2
    partly = EmbeddingStore.from_arrays(
        {name: store.array(name) for name in ("image", "text")}, present={"text": text}, split=store.split
    )
    holed = dataclasses.replace(bench, store=partly)
    with pytest.raises(DataError, match="item 2 of 'arrays' has none of text"):
        holed.source(space, ["text"])
    assert holed.source(space, ["image", "text"]).shape == (36, 8)


def test_invalid_benches_raise() -> None:
    store = tiny_image_store()
    with pytest.raises(ConfigError, match="same image size"):
        make_bench(store, [], anchor="image", extractor=pixels(4))
    small = train_decoder(
        store,
        tiny_decoder_config(size=4, latents=8, steps=1),
        images=tiny_images()[:, :, ::2, ::2],
        progress="none",
    ).decoder
    with pytest.raises(ConfigError, match=r"got \[8, 4\]"):
        make_bench(store, [tiny_decoder(0), small], anchor="image", extractor=pixels(4))


VALUES: Mapping[str, Mapping[str, float]] = {
    "shuffled": {"fd": 40.0, "recall@10": 0.02, "diversity": 0.9},
    "nearest": {"fd": 4.0, "recall@10": 0.7, "l1": 0.1},
    "halves": {"fd": 7.9, "recall@10": float("nan")},
}


def test_marks_follow_the_direction_of_a_score() -> None:
    found = annotate_controls({"fd": 45.0, "recall@10": 0.3, "l1": 0.2}, VALUES)
    assert found == {"fd": ("shuffled", "nearest", "halves"), "recall@10": ("nearest",), "l1": ("nearest",)}
    assert annotate_controls({"fd": 3.0, "recall@10": 0.8, "l1": 0.05}, VALUES) == {
        "fd": (),
        "recall@10": (),
        "l1": (),
    }


def test_marks_of_equal_numbers_and_of_ties() -> None:
    assert annotate_controls({"fd": 40.0, "recall@10": 0.02}, {"shuffled": VALUES["shuffled"]}) == {
        "fd": ("shuffled",),
        "recall@10": ("shuffled",),
    }
    ties = {"fd": ["nearest", "halves"], "recall@10": ["halves", "shuffled"]}
    # A control without the score is not marked, even if it is listed as tied.
    found = annotate_controls({"fd": 3.0, "recall@10": 0.8}, VALUES, ties=ties)
    assert found == {"fd": ("nearest", "halves"), "recall@10": ("shuffled",)}


def test_scores_without_direction_or_number_have_no_marks() -> None:
    assert annotate_controls({"diversity": 0.1, "spread": 0.2, "fd": float("nan")}, VALUES) == {}


def test_unknown_names_are_rejected() -> None:
    for call, message in (
        (lambda: annotate_controls({"fid": 1.0}, VALUES), "unknown score 'fid'.*did you mean 'fd'"),
        (lambda: annotate_controls({"fd": 1.0}, VALUES, ties={"kid": []}), "unknown score in ties 'kid'"),
        (lambda: annotate_controls({"fd": 1.0}, VALUES, ties={"fd": ["noise"]}), "unknown control in ties 'noise'"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
