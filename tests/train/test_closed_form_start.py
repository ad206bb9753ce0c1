"""Test runs that start from a closed form, with and without training."""

from pathlib import Path
from typing import Any

import pytest
import torch

import unialign as ua
from train_cases import DIMS, bits, digest_of, run, stop_at, tiny_config, tiny_store, without_time
from unialign.closed_form import gcca, ridge
from unialign.errors import ConfigError
from unialign.train import TrainConfig, _closed_form_start

KERNEL: dict[str, Any] = {"head": "kernel", "init": "gcca", "init_regularization": 0.01, "init_spectrum_power": 0.5}
# Dropout may remove all features of a row, which a linear head maps to 0.
LINEAR: dict[str, Any] = {**KERNEL, "head": "linear", "dropout": 0.0}


@pytest.mark.parametrize("options", [KERNEL, LINEAR])
def test_zero_epochs_keep_the_closed_form(options: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(**options, epochs=0)
    result = run(tiny_store(), config, out=tmp_path / "run")
    kernel = "rbf" if options["head"] == "kernel" else "linear"
    space = gcca(tiny_store(), kernel=kernel, dim=8, regularization=0.01, spectrum_power=0.5)  # type: ignore[arg-type]
    assert bits(result.space.state_dict()) == bits(space.state_dict())
    assert result.space.metadata["closed_form"] == space.metadata["closed_form"]
    (record,) = result.history
    assert record["step"] == 0
    assert record["seconds"] >= 0
    loaded = ua.Space.from_pretrained(tmp_path / "run" / "space")
    assert bits(loaded.state_dict()) == bits(space.state_dict())
    again = run(tiny_store(), config, out=tmp_path / "run", resume="auto")
    assert again.history == result.history
    assert digest_of(again) == digest_of(result)


def test_changed_metadata_of_a_space_do_not_reach_other_runs() -> None:
    config = tiny_config(**LINEAR, epochs=0)
    first = run(tiny_store(), config).space
    first.metadata["closed_form"]["absent"].clear()
    first.metadata["closed_form"]["method"] = "changed"
    found = run(tiny_store(), config).space.metadata["closed_form"]
    assert found["method"] == "gcca"
    assert list(found["absent"]) == list(DIMS)


def test_zero_epochs_keep_pairwise_ridge() -> None:
    config = tiny_config(head="linear", init="ridge", init_regularization=0.1, epochs=0)
    space = ridge(tiny_store(), dim=8, regularization=0.1)
    assert bits(run(tiny_store(), config).space.state_dict()) == bits(space.state_dict())


@pytest.mark.parametrize("options", [KERNEL, LINEAR])
def test_an_interrupted_run_ends_with_the_same_bits(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(**options)
    whole = run(tiny_store(), config)
    with pytest.raises(KeyboardInterrupt, match="after step 3 of 20"):
        run(tiny_store(), config, out=tmp_path / "run", on_step=stop_at(3))
    monkeypatch.setattr(_closed_form_start, "_kept", {})
    monkeypatch.setattr(_closed_form_start, "gcca", None)
    torch.manual_seed(5)
    resumed = run(tiny_store(), config, out=tmp_path / "run", resume="required")
    assert digest_of(resumed) == digest_of(whole)
    assert without_time(resumed.history) == without_time(whole.history)


def test_training_changes_the_heads_but_not_the_kernel_features() -> None:
    start = run(tiny_store(), tiny_config(**KERNEL, epochs=0)).space
    trained = run(tiny_store(), tiny_config(**KERNEL, dropout=0.0)).space
    before, after = start.state_dict(), trained.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"heads"}
    # The seed changes the order of the batches, not the start.
    other = run(tiny_store(), tiny_config(**KERNEL, epochs=0, seed=4)).space
    assert bits(other.state_dict()) == bits(start.state_dict())


def test_random_weights_on_kernel_features_have_the_seed_of_the_run() -> None:
    options: dict[str, Any] = {"head": "kernel", "init_regularization": 0.01, "epochs": 1, "lr": 1e-12}
    first, second, other = (run(tiny_store(), tiny_config(**options, seed=seed)).space for seed in (0, 0, 1))
    assert bits(first.state_dict()) == bits(second.state_dict())
    assert bits(first.features.state_dict()) == bits(other.features.state_dict())
    assert bits(first.heads.state_dict()) != bits(other.heads.state_dict())
    assert (
        first.features.state_dict().keys()
        == gcca(tiny_store(), dim=8, regularization=0.01, spectrum_power=0).features.state_dict().keys()
    )


def test_random_weights_need_no_choice_of_the_power(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(_closed_form_start, "_kept", {})
    monkeypatch.setattr(
        _closed_form_start, "gcca", lambda store, **options: (asked.append(options), gcca(store, **options))[1]
    )
    for regularization in (0.01, "auto"):
        config = tiny_config(head="kernel", init_regularization=regularization)
        start = _closed_form_start.closed_form_start(tiny_store(), config.replace(modalities=["image", "text"]))
        assert start is not None
        assert (start.facts["selection"] is None) == (regularization == 0.01)
    assert [options["spectrum_power"] for options in asked] == [0.0, "auto"]


def test_a_closed_form_that_is_too_large_replaces_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[Any, Any] = {}
    monkeypatch.setattr(_closed_form_start, "_kept", kept)
    config = tiny_config(**KERNEL).replace(modalities=["image", "text"])
    for dim in range(3, 8):
        _closed_form_start.closed_form_start(tiny_store(), config.replace(dim=dim))
    assert [space.dim for space, _ in kept.values()] == [4, 5, 6, 7]
    size = _closed_form_start._bytes(next(iter(kept.values()))[0])
    monkeypatch.setattr(_closed_form_start, "_MOST_KEPT_BYTES", size - 1)
    _closed_form_start.closed_form_start(tiny_store(), config.replace(dim=8))
    assert [space.dim for space, _ in kept.values()] == [4, 5, 6, 7]


def test_kernel_features_of_many_rows_are_computed_for_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tiny_store(), tiny_config(**KERNEL, dropout=0.0))
    monkeypatch.setattr("unialign.train._training_data._KERNEL_BYTES", 0)
    streamed = run(tiny_store(), tiny_config(**KERNEL, dropout=0.0))
    for name, tensor in whole.space.state_dict().items():
        torch.testing.assert_close(streamed.space.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_training_continues_a_space_with_kernel_heads(tmp_path: Path) -> None:
    gcca(tiny_store(), dim=8, regularization=0.01, spectrum_power=0).save_pretrained(tmp_path)
    start = ua.Space.from_pretrained(tmp_path)
    config = tiny_config(head="kernel", epochs=1, lr=1e-12, dropout=0.0, weight_decay=0)
    trained = run(tiny_store(), config, init_from=start).space
    assert trained.kernel_sizes == start.kernel_sizes
    for name, tensor in start.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor, rtol=0, atol=1e-9)
    with pytest.raises(ConfigError, match="init_from and init='gcca' both set the initial weights"):
        run(tiny_store(), tiny_config(**KERNEL), init_from=start)
    with pytest.raises(ConfigError, match="has no kernel features yet"):
        run(tiny_store(), config, init_from=ua.Space(DIMS, dim=8, head="kernel"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "gcca"}, "init='gcca' needs head='linear' or 'kernel'.*'mlp'"),
        ({"init": "ridge", "head": "kernel"}, "init='ridge' needs head='linear'.*'kernel'"),
        ({"epochs": 0}, "epochs must be at least 1 for random initial weights"),
        ({"init": "gcca", "head": "linear", "input_norm": "unit"}, "needs input_norm='standardize'"),
        ({"init": "gcca", "head": "linear", "frozen": {"image": "whiten"}}, "cannot be combined with frozen"),
        ({"init_regularization": 0}, "init_regularization must be a positive"),
        ({"init_regularization": "best"}, "init_regularization must be a positive"),
        ({"init_spectrum_power": -0.5}, "init_spectrum_power must be"),
        ({"landmarks": 1}, "landmarks must be"),
        ({"init": "pca"}, "unknown init 'pca'"),
    ],
)
def test_invalid_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)
