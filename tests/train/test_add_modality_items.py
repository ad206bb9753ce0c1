"""Test that a modality of media is added to a space with trained encoders, with the encoder of the new modality."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from media_train_cases import ENCODERS, media_config, media_items, train, trained_bits
from train_cases import stop_at
from unialign.errors import ConfigError
from unialign.items import Items
from unialign.space import Space
from unialign.train import FitResult, HealthWarning


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def items(folder: Path) -> Items:
    return media_items(folder)


@pytest.fixture(scope="module")
def base(items: Items, tmp_path_factory: pytest.TempPathFactory) -> Space:
    """Return a saved space of image and text, whose encoders were trained and are stored inside."""
    out = tmp_path_factory.mktemp("base")
    table = items.select(["image", "text"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        train(table, media_config(encoders={name: ENCODERS[name] for name in table.modalities}), out=out / "run")
    return Space.from_pretrained(out / "run" / "space")


def added(items: Items, base: Space, mode: str = "all", **options: Any) -> FitResult:
    """Train sound with text, whose encoder is not named."""
    config = media_config(encoders={"sound": ENCODERS["sound"]}, tune={"sound": mode})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        return train(items.select(["text", "sound"]), config, init_from=base, **{"train": ["sound"]} | options)


def encoded(space: Space, folder: Path, *names: str) -> dict[str, torch.Tensor]:
    media = {"image": [folder / f"{i}.png" for i in (0, 1)], "text": ["red number 0", None]}
    media["sound"] = [folder / f"{i}.wav" for i in (0, 1)]
    return space.encode({name: media[name] for name in names})


@pytest.mark.parametrize("mode", ["all", "frozen"])
def test_raw_media_of_old_modalities_have_the_same_embeddings(
    items: Items, folder: Path, base: Space, mode: str, tmp_path: Path
) -> None:
    """The image encoder is not in the data, and is copied from the folder of the first space."""
    before = encoded(base, folder, "image", "text")
    result = added(items, base, mode, out=tmp_path / "run")
    assert result.space.encoders["text"] == base.encoders["text"]
    loaded = Space.from_pretrained(tmp_path / "run" / "space")
    assert loaded.modalities == ("image", "text", "sound")
    for space in (result.space, loaded):
        after = encoded(space, folder, "image", "text")
        assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(encoded(loaded, folder, "sound")["sound"], encoded(result.space, folder, "sound")["sound"])
    inside = [name for name, reference in loaded.encoders.items() if reference.get("stored") == "inside"]
    assert inside == ["image", "text", *(["sound"] if mode == "all" else [])]


def test_an_interrupted_run_ends_with_the_same_bits(items: Items, base: Space, tmp_path: Path) -> None:
    whole = added(items, base, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        added(items, base, out=tmp_path / "run", on_step=stop_at(2))
    assert trained_bits(added(items, base, out=tmp_path / "run", resume="required")) == trained_bits(whole)


def test_an_encoder_of_another_modality_cannot_be_trained(items: Items, base: Space) -> None:
    config = media_config(encoders={"sound": ENCODERS["sound"]}, tune={"text": "all"})
    with pytest.raises(ConfigError, match="'text' is not in train"):
        train(items.select(["text", "sound"]), config, init_from=base, train=["sound"])


def test_an_old_modality_with_another_encoder_is_rejected(items: Items, base: Space) -> None:
    config = media_config(encoders={"text": "builtin:chars?dim=16", "sound": ENCODERS["sound"]}, tune={})
    with pytest.raises(ConfigError, match=r"init_from was made from features of 'text' by .*, or add 'text' to train"):
        train(items.select(["text", "sound"]), config, init_from=base, train=["sound"])


def test_one_modality_is_trained_further_with_its_encoder(items: Items, folder: Path, base: Space) -> None:
    config = media_config(encoders={}, tune={"text": "all"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HealthWarning)
        space = train(items.select(["image", "text"]), config, init_from=base, train=["text"]).space
    before, after = (encoded(one, folder, "image", "text") for one in (base, space))
    assert torch.equal(before["image"], after["image"])
    assert not torch.equal(before["text"], after["text"])
    assert space.encoders["text"]["fingerprint"] != base.encoders["text"]["fingerprint"]
