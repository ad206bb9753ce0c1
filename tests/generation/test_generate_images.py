"""Test the conditions built from items and texts, and the images generated from them."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from decoder_cases import tiny_image_store, tiny_images

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, ShapeError
from unialign.generation import FlowDecoder, GenerationResult, build_conditions, generate_images, mean, slerp
from unialign.generation._conditions import find_item
from unialign.space import Space


@pytest.fixture(scope="module")
def decoder(tiny_decoders: list[FlowDecoder]) -> FlowDecoder:
    return tiny_decoders[0]


def encode(texts: Sequence[str]) -> torch.Tensor:
    return torch.tensor(tiny_image_store().array("text")[[int(text) for text in texts]]).float()


def asked(space: Space, **options: Any) -> Any:
    return build_conditions(space, tiny_image_store(), encode_texts=encode, **options)


def test_items_are_found_by_name_in_any_case_or_by_row() -> None:
    store = tiny_image_store()
    assert find_item(store, "square 7") == 7
    assert find_item(store, " SQUARE 7 ") == 7
    assert find_item(store, "#7") == 7


def test_unknown_items_raise_with_a_suggestion() -> None:
    store = tiny_image_store()
    with pytest.raises(ConfigError, match="has no item 'squar 7'; did you mean 'square 7'"):
        find_item(store, "squar 7")
    with pytest.raises(ConfigError, match="rows #0 to #47"):
        find_item(store, "#48")
    with pytest.raises(ConfigError, match="an item can also be given by row"):
        find_item(store, "zzz")
    duplicates = EmbeddingStore.from_arrays({"image": store.array("image")[:3]}, names=["a", "b", "a"])
    with pytest.raises(ConfigError, match="2 items of 'arrays' are named 'a'; choose one by row: #0, #2"):
        find_item(duplicates, "a")


def test_an_item_is_the_mean_of_its_modalities(space: Space) -> None:
    store = tiny_image_store()
    (condition,) = asked(space, items=["square 40"], modalities=["image", "text"])
    z = space.encode({name: store.array(name)[[40]] for name in ("image", "text")})
    torch.testing.assert_close(condition.z_D, mean(z)[0])
    assert condition.parts == ("image of square 40", "text of square 40")
    assert (condition.row, condition.split) == (40, "test")
    (weighted,) = asked(space, items=["square 40"], modalities=["image", "text"], weights=[3, 1])
    torch.testing.assert_close(weighted.z_D, mean(z, weights=[3, 1])[0])
    (arc,) = asked(space, items=["square 40"], modalities=["image", "text"], mix="frechet_mean", weights=[0.7, 0.3])
    torch.testing.assert_close(arc.z_D, slerp(z["image"], z["text"], 0.3)[0])
    (plain,) = asked(space, items=["square 40"], modalities=["image", "text"], mix="unnormalized_mean")
    assert float(plain.z_D.norm()) < 1


def test_texts_are_as_good_as_stored_ones(space: Space) -> None:
    by_text, by_item = asked(space, texts=["5"])[0], asked(space, items=["#5"], modalities=["text"])[0]
    torch.testing.assert_close(by_text.z_D, by_item.z_D)
    assert by_text.row is None


def test_each_or_together(space: Space) -> None:
    each = asked(space, items=["#1", "#2"], texts=["3"], modalities=["text"])
    assert [c.name for c in each] == ["square 1", "square 2", "3"]
    (one,) = asked(space, items=["#1", "#2"], texts=["3"], modalities=["text"], combine="mixture")
    torch.testing.assert_close(one.z_D, mean([c.z_D[None] for c in each])[0])
    assert len(one.parts) == 3


def test_a_strip_leads_from_one_to_the_other(space: Space) -> None:
    strip = asked(space, texts=["1", "2"], combine="path", steps=5)
    ends = asked(space, texts=["1", "2"])
    torch.testing.assert_close(strip[0].z_D, ends[0].z_D)
    torch.testing.assert_close(strip[4].z_D, ends[1].z_D)
    torch.testing.assert_close(strip[1].z_D, slerp(ends[0].z_D[None], ends[1].z_D[None], 0.25)[0])
    assert [c.name for c in strip][1] == "text “1” 75 %, text “2” 25 %"
    of_one = asked(space, items=["#40"], modalities=["text", "image"], combine="path", steps=3)
    assert [c.row for c in of_one] == [40, 40, 40]


def test_invalid_requests_raise(space: Space) -> None:
    for options, error, message in (
        ({}, ConfigError, "nothing to generate"),
        ({"items": ["#1"], "modalities": ["audio"]}, ConfigError, "the space has no modality 'audio'"),
        ({"texts": ["1"], "combine": "path"}, ConfigError, "two texts, two items, or two modalities"),
        ({"texts": ["1", "2"], "combine": "path", "weights": [1, 2]}, ConfigError, "accepts neither weights nor mix"),
        (
            {"items": ["#1"], "modalities": ["text"], "weights": [1, 2]},
            ConfigError,
            "expected one weight for each of .*, got 2",
        ),
        ({"texts": ["1"], "mix": "median"}, ConfigError, "mix"),
    ):
        with pytest.raises(error, match=message):
            asked(space, **options)


def test_an_item_without_the_modality_raises(space: Space) -> None:
    store = tiny_image_store()
    partly = EmbeddingStore.from_arrays(
        {name: store.array(name) for name in ("image", "text")},
        present={"text": torch.arange(48).numpy() != 3},
        names=store.item_names,
    )
    with pytest.raises(DataError, match=r"item 'square 3' \(row 3\) has none of text"):
        build_conditions(space, partly, items=["#3"], modalities=["text"])
    (rest,) = build_conditions(space, partly, items=["#3"], modalities=["text", "image"])
    assert rest.parts == ("image of square 3",)


def made_of(space: Space, decoder: FlowDecoder, **options: Any) -> GenerationResult:
    conditions = asked(space, items=["#40", "#1"], texts=["2"], modalities=["text"])
    return generate_images(space, decoder, tiny_image_store(), conditions, **options)


def test_results_list_the_nearest_training_images(space: Space, decoder: FlowDecoder) -> None:
    made = made_of(space, decoder, samples=2)
    assert made.images.shape == (3, 2, 3, 8, 8)
    assert made.anchor == "image"
    train = set(tiny_image_store().rows("train").tolist())
    for near in made.nearest:
        assert len(near) == 3
        assert {entry["row"] for entry in near} <= train
        assert near[0]["cosine"] >= near[1]["cosine"] >= near[2]["cosine"]
        assert near[0]["name"] == f"square {near[0]['row']}"
    assert made.true_cosines[2] is None
    store = tiny_image_store()
    true = space.encode({"image": store.array("image")[[40]]})["image"][0]
    assert made.true_cosines[0] == pytest.approx(float(true @ made.conditions[0].z_D), abs=1e-5)


def test_noise_is_the_same_for_every_condition_and_differs_between_samples(space: Space, decoder: FlowDecoder) -> None:
    two = made_of(space, decoder, samples=2)
    assert torch.equal(made_of(space, decoder, samples=1).images[:, 0], two.images[:, 0])
    assert not torch.equal(two.images[:, 0], two.images[:, 1])
    assert not torch.equal(made_of(space, decoder, seed=1).images[:, 0], two.images[:, 1])
    same = build_conditions(space, tiny_image_store(), items=["#1", "#1"], modalities=["text"])
    twice = generate_images(space, decoder, tiny_image_store(), same)
    assert torch.equal(twice.images[0], twice.images[1])
    with pytest.raises(ConfigError, match="samples"):
        made_of(space, decoder, samples=0)


def test_each_sample_is_held_against_the_training_images(space: Space, decoder: FlowDecoder) -> None:
    pytest.importorskip("PIL")
    made = made_of(space, decoder, samples=2)
    assert made.copies is not None
    train = tiny_image_store().rows("train")
    images = (tiny_images() * 255).round() / 255
    for condition, copies in zip(made.images, made.copies, strict=True):
        assert len(copies) == 2
        for sample, copy in zip(condition, copies, strict=True):
            slow = [float((sample - images[row]).square().mean().sqrt()) for row in train]
            assert copy["distance"] == pytest.approx(min(slow), abs=1e-4)
            assert copy["row"] == int(train[slow.index(min(slow))])


def test_items_of_a_mixture_are_remembered(space: Space) -> None:
    (mixture,) = asked(space, items=["#40", "#1"], modalities=["text"], combine="mixture")
    assert (mixture.row, mixture.rows, mixture.split) == (None, (40, 1), "train")
    strip = asked(space, items=["#40", "#41"], modalities=["text"], combine="path", steps=3)
    assert {condition.rows for condition in strip} == {(40, 41)}
    assert {condition.split for condition in strip} == {"test"}
    with pytest.raises(ConfigError, match="text of square 1 is given twice"):
        asked(space, items=["#1", "#1"], modalities=["text"], combine="mixture")
    with pytest.raises(ConfigError, match="texts need encode_texts"):
        build_conditions(space, tiny_image_store(), texts=["1"])


def test_errors_name_invalid_lists_of_words(space: Space) -> None:
    store = tiny_image_store()
    with pytest.raises(ConfigError, match="items must be a list of strings"):
        build_conditions(space, store, items=[6], modalities=["text"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="weights must be a list of numbers"):
        build_conditions(space, store, items=["#0"], modalities=["text"], weights=1)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="2 rows for one text"):
        build_conditions(space, store, texts=["a"], encode_texts=lambda texts: torch.ones(2, space.dims["text"]))


def test_a_notebook_shows_the_images(space: Space, decoder: FlowDecoder) -> None:
    result = made_of(space, decoder, samples=2)
    page = result._repr_html_()
    assert page.count('<img src="data:image/png;base64,') == 6
    assert "square 40" in page
    assert repr(result) == "GenerationResult(3 conditions, 2 images each, anchor 'image')"
