"""Test that training aligns the other modalities with a frozen modality, and that runs resume bit-exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from train_cases import digest_of, finished, run, stop_at, tiny_config, tiny_store
from unialign.errors import ConfigError
from unialign.losses import names, parameter_names as option_names
from unialign.train import TrainConfig

FROZEN = {"image": "whiten"}
OPTIONS = {"anchor": "image"}


def test_the_frozen_modality_stays_fixed_and_the_others_align_to_it() -> None:
    store = tiny_store()
    config = tiny_config(frozen=FROZEN, dim=3, epochs=60, dropout=0.0, objective_options=OPTIONS)
    before = run(store, tiny_config(frozen=FROZEN, dim=3, epochs=1, lr=1e-9, objective_options=OPTIONS)).space
    after = run(store, config).space
    rows = store.rows("train")
    image = {"image": store.array("image")[rows]}
    assert torch.equal(before.encode(image)["image"], after.encode(image)["image"])
    there = rows[store.present("text")[rows]]
    both = {name: store.array(name)[there] for name in ("image", "text")}
    cosine = [(z["image"] * z["text"]).sum(1).mean() for z in (before.encode(both), after.encode(both))]
    assert cosine[0] < 0.5
    assert cosine[1] > 0.8


@pytest.mark.parametrize("objective", names())
def test_every_objective_trains_around_a_frozen_anchor(objective: str) -> None:
    options = OPTIONS if "anchor" in option_names(objective) else {}
    config = tiny_config(objective=objective, objective_options=options, frozen=FROZEN, dim=3, epochs=2)
    result = run(tiny_store(missing="none"), config)
    assert np.isfinite([line["loss"] for line in result.history]).all()
    unmoved = finished(frozen=FROZEN, dim=3, epochs=1, lr=1e-9).result.space
    changed = [not torch.equal(a, b) for a, b in zip(unmoved.parameters(), result.space.parameters(), strict=True)]
    assert any(changed)


def test_a_run_resumes_bit_by_bit(tmp_path: Path) -> None:
    config = tiny_config(frozen=FROZEN, dim=3, objective_options=OPTIONS)
    whole = finished(frozen=FROZEN, dim=3, objective_options=OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(9))
    assert digest_of(run(tiny_store(), config, out=tmp_path / "run", resume="required")) == whole.digest


def test_init_from_must_have_the_same_frozen_modalities() -> None:
    space = finished(dim=3, epochs=1).result.space
    with pytest.raises(ConfigError, match="made with frozen="):
        run(tiny_store(), tiny_config(dim=3, frozen=FROZEN), init_from=space)


def test_settings_come_back_from_a_file() -> None:
    config = tiny_config(frozen=FROZEN, dim=3)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["frozen"] == FROZEN


def test_bad_settings_raise_before_anything_is_written(tmp_path: Path) -> None:
    cases = [
        ({"frozen": "image"}, "frozen must be a mapping"),
        ({"frozen": {"image": "no"}}, "unknown transform 'no' for the frozen modality 'image'"),
        ({"frozen": {"video": "whiten"}, "dim": 3}, "unknown modality 'video' in frozen"),
        ({"frozen": FROZEN, "dim": 7}, "frozen modality 'image' has dim 6"),
        ({"frozen": {"image": "whiten", "text": "center", "audio": "whiten"}, "dim": 3}, "nothing would be trained"),
    ]
    for changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            run(tiny_store(), tiny_config(**changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weak_repulsion_from_a_frozen_anchor_causes_no_warning() -> None:
    """A space with a frozen anchor cannot collapse, but the same weights cause a warning without a frozen anchor."""
    options = OPTIONS | {"uniformity_weight": 0.01}
    config = tiny_config(objective="unialign", objective_options=options, frozen=FROZEN, dim=3)
    assert "gradient_ratio" not in {warning.code for warning in run(tiny_store(), config).warnings}
    free = finished(objective="unialign", objective_options=options, dim=3)
    assert "gradient_ratio" in {warning.code for warning in free.result.warnings}
