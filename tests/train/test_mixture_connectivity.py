"""Test the check, before step 0, that the training rows can align all modalities."""

from typing import Any

import numpy as np
import pytest

from unialign import fit
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore, Mixture
from unialign.errors import ConfigError
from unialign.train import check_fit
from unialign.train._connectivity import combinations

ITEMS = 12


def store(
    *modalities: str, present: dict[str, Any] | None = None, name: str = "data", **options: Any
) -> EmbeddingStore:
    rng = np.random.default_rng(len(modalities))
    arrays = {modality: rng.normal(size=(ITEMS, 3)).astype(np.float32) for modality in modalities}
    return EmbeddingStore.from_arrays(arrays, name="data", present=present, **options)


def mixture(**sources: EmbeddingStore) -> EmbeddingStore:
    table = Mixture(sources).table
    assert isinstance(table, EmbeddingStore)
    return table


def check(data: EmbeddingStore, objective: str = "infonce", **options: Any) -> None:
    """`fit` and `check_fit` raise the same errors; without one, a step has a loss that is not zero."""
    config = TrainConfig(
        objective=objective, objective_options=options, epochs=1, batch_size=4, dim=4, hidden=4, logging_steps=1
    )
    failure = None
    try:
        check_fit(data, config)
    except ConfigError as error:
        failure = error
    if failure is None:
        history = fit(data, config, progress="none").history
        assert any(record["loss"] != 0 for record in history)
        return
    with pytest.raises(ConfigError) as caught:
        fit(data, config, progress="none")
    assert str(caught.value) == str(failure)
    raise failure


def first(items: int) -> Any:
    return np.arange(ITEMS) < items


def test_modalities_may_be_connected_through_others() -> None:
    check(mixture(photos=store("image", "text"), sounds=store("sound", "text")))
    check(mixture(a=store("a", "b"), b=store("b", "c"), c=store("c", "d")))
    check(store("image", "text", "sound", present={"image": first(6), "sound": ~first(4)}))


def test_a_modality_without_a_path_to_the_others_is_named_with_its_component() -> None:
    with pytest.raises(
        ConfigError,
        match=r"no source ties 'sound' to 'image', directly or through another modality.*"
        r"components: image, text; sound, speech; add items",
    ):
        check(mixture(photos=store("image", "text"), sounds=store("sound", "speech")))
    with pytest.raises(ConfigError, match=r"no training row of 'data' ties 'sound' to 'image'.*image, text; sound;"):
        check(
            store(
                "image", "text", "sound", present={name: first(6) for name in ("image", "text")} | {"sound": ~first(6)}
            )
        )


def test_only_training_rows_and_chosen_modalities_count() -> None:
    split = ["train"] * 10 + ["test"] * 2
    present = {"image": first(5), "text": ~first(5) | (np.arange(ITEMS) == 11)}
    present["image"][11] = True
    data = store("image", "text", "sound", present=present, split=split)
    with pytest.raises(ConfigError, match="ties 'text' to 'image'"):
        check(data.select(["image", "text"]))
    check(data)


@pytest.mark.parametrize("objective", ["infonce", "unialign", "align_uniform", "sigmoid", "modgap", "gram"])
def test_a_modality_that_shares_no_row_with_the_anchor(objective: str) -> None:
    data = mixture(photos=store("image", "text"), sounds=store("sound", "text"), music=store("sound", "score"))
    with pytest.raises(
        ConfigError, match=rf"no training row of 'score' has the anchor 'text', so the objective '{objective}'"
    ):
        check(data, objective, anchor="text")
    with pytest.raises(ConfigError, match="no training row of 'image' has the anchor 'sound'"):
        check(data, objective, anchor="sound")


@pytest.mark.parametrize("objective", ["infonce", "unialign"])
def test_a_source_without_a_pair_of_the_anchor(objective: str) -> None:
    data = mixture(photos=store("image", "text", "sound"), videos=store("image", "sound"))
    with pytest.raises(
        ConfigError, match=r"no training row of the source 'videos' has the anchor 'text' and another modality"
    ):
        check(data, objective, anchor="text")
    check(data, objective, anchor="all")
    check(data, objective, anchor="image")


def test_an_objective_of_complete_items_needs_some_in_every_source() -> None:
    complete = store("image", "text", "sound")
    with pytest.raises(ConfigError, match=r"no training row of the source 'photos' has all modalities of 'symile'"):
        check(mixture(all=complete, photos=store("image", "text")), "symile")
    with pytest.raises(
        ConfigError, match="no training row of 'image' has all modalities that 'symile' compares with it"
    ):
        check(mixture(photos=store("image", "text"), sounds=store("sound", "text")), "symile")
    check(mixture(all=complete, more=store("text", "image", "sound")), "symile")
    # All images have the anchor, but none has the anchor and a sound.
    with pytest.raises(ConfigError, match="no training row of 'image' has all modalities that 'triangle' compares"):
        check(mixture(photos=store("image", "text"), sounds=store("sound", "text")), "triangle", anchor="text")
    with pytest.raises(ConfigError, match=r"of the source 'photos' has all modalities of 'triangle'"):
        check(mixture(all=complete, photos=store("image", "text")), "triangle", anchor="text")


def test_terms_that_need_no_anchor_keep_a_modality() -> None:
    data = mixture(photos=store("image", "text"), music=store("image", "sound", "score"), sounds=store("sound", "text"))
    config = TrainConfig(objective_options={"anchor": "text"}, epochs=1, batch_size=4, dim=4, hidden=4)
    with pytest.raises(ConfigError, match="'score'"):
        check_fit(data, config)
    # The fused term contrasts each modality with the mean of the others, whether or not they have the anchor.
    check_fit(data, config.replace(fused_weight=0.5))


def test_closed_forms_need_connected_modalities_but_no_objective() -> None:
    config = TrainConfig(
        objective="unialign", objective_options={"anchor": "text"}, head="linear", init="gcca", epochs=0, dim=2
    )
    music = mixture(photos=store("image", "text"), music=store("image", "score"))
    assert fit(music, config, progress="none").space.modalities == ("image", "text", "score")
    with pytest.raises(ConfigError, match="ties 'score' to 'image'"):
        fit(mixture(photos=store("image", "text"), music=store("sound", "score")).select(["image", "score"]), config)


@pytest.mark.parametrize("modalities", [2, 8, 9, 17])
def test_combinations_equal_the_distinct_rows(modalities: int) -> None:
    names = [f"m{number}" for number in range(modalities)]
    rng = np.random.default_rng(0)
    masks = rng.random((3, modalities)) < 0.6
    present = masks[rng.integers(0, 3, ITEMS)]
    present[:6] = masks[0]
    data = store(*names, present={name: present[:, m] for m, name in enumerate(names)})
    found = combinations(data, names, np.arange(ITEMS))
    np.testing.assert_array_equal(found[0], masks[0])
    assert {tuple(row) for row in found.tolist()} == {tuple(row) for row in present.tolist()}
