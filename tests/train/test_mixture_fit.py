"""Test `fit` on a mixture: resuming, streaming, early stopping, closed forms, and items of media."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from train_cases import digest_of, run, stop_at, tiny_config, without_time
from unialign import evaluate
from unialign.closed_form import gcca
from unialign.config import EmbedConfig, MixtureMode, read_yaml
from unialign.data import EmbeddingStore, Items, Mixture
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.train import _features, _training_data, training_steps

DIMS = {"image": 6, "text": 5, "sound": 4}


def source(seed: int, items: int, *modalities: str, path: Path | None = None) -> EmbeddingStore:
    """Return a store with features of one latent for all sources; every fifth item is in the validation split."""
    latent = np.random.default_rng(seed).normal(size=(items, 3))
    noise, maps = np.random.default_rng(seed + 50), np.random.default_rng(99)
    columns = {}
    for name, dim in DIMS.items():
        matrix = maps.normal(size=(3, dim))
        if name in modalities:
            columns[name] = (latent @ matrix + 0.1 * noise.normal(size=(items, dim))).astype(np.float32)
    split = np.where(np.arange(items) % 5 == 4, "val", "train")
    if path is not None:
        return EmbeddingStore.write(path, columns, split=split)
    return EmbeddingStore.from_arrays(columns, split=split)


def mixture(mode: MixtureMode = "alternate", *, path: Path | None = None, **options: Any) -> Mixture:
    photos = source(1, 40, "image", "text", path=None if path is None else path / "photos")
    sounds = source(2, 30, "sound", "text", path=None if path is None else path / "sounds")
    return Mixture({"photos": photos, "sounds": sounds}, weights={"photos": 2}, mode=mode, **options)


@pytest.mark.parametrize("mode", ["alternate", "blend"])
def test_an_interrupted_run_ends_with_the_same_bits(mode: MixtureMode, tmp_path: Path) -> None:
    config = tiny_config(epochs=4, save_steps=None)
    whole = run(mixture(mode), config)
    with pytest.raises(KeyboardInterrupt):
        run(mixture(mode), config, out=tmp_path / "run", on_step=stop_at(3))
    resumed = run(mixture(mode), config, out=tmp_path / "run", resume="required")
    assert digest_of(resumed) == digest_of(whole)
    assert without_time(resumed.history) == without_time(whole.history)
    assert digest_of(run(mixture("blend" if mode == "alternate" else "alternate"), config)) != digest_of(whole)


def test_the_table_of_a_mixture_of_stores_trains_like_the_mixture() -> None:
    config = tiny_config(epochs=2)
    table = mixture().table
    assert isinstance(table, EmbeddingStore)
    assert digest_of(run(table, config)) == digest_of(run(mixture(), config))
    # 32 training rows of photos are 2 of 3 batches of 8: 6 batches are 3 steps of 2.
    assert training_steps(table, config) == 6
    longer = mixture(epoch_steps=5).table
    assert isinstance(longer, EmbeddingStore)
    assert training_steps(longer, config) == 10


@pytest.mark.parametrize("mode", ["alternate", "blend"])
def test_streamed_features_give_the_same_bits(mode: MixtureMode, tmp_path: Path, monkeypatch: Any) -> None:
    config = tiny_config(epochs=3)
    loaded = digest_of(run(mixture(mode, path=tmp_path), config))
    monkeypatch.setattr(_training_data, "_IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(_features, "_STAGE_BYTES", 600)
    in_files = mixture(mode).sources
    assert in_files
    stores = {name: EmbeddingStore.open(tmp_path / name) for name in ("photos", "sounds")}
    streamed = run(Mixture(stores, weights={"photos": 2}, mode=mode), config)
    assert digest_of(streamed) == loaded


def test_settings_and_facts_of_the_run(tmp_path: Path) -> None:
    both = mixture(path=tmp_path)
    result = run(both, tiny_config(epochs=1), out=tmp_path / "run")
    facts = result.space.metadata["data"]
    assert facts["fingerprint"] == both.fingerprint
    assert facts["mixture"] == both.sampling.to_dict()
    data = read_yaml(tmp_path / "run" / "config.yaml")["data"]
    assert data["sources"] == {name: str(tmp_path / name) for name in ("photos", "sounds")}
    assert data["mixture"]["sources"]["photos"]["weight"] == 2


def test_a_run_is_not_continued_with_other_shares_or_sources(tmp_path: Path) -> None:
    config = tiny_config(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(mixture(), config, out=tmp_path / "run", on_step=stop_at(2))
    changed = [mixture("blend"), mixture(epoch_steps=7), Mixture(mixture().sources, weights={"photos": 3})]
    for other in changed:
        with pytest.raises(CheckpointError, match=r"made with the weights photos=2, sounds=1.*but this run has"):
            run(other, config, out=tmp_path / "run", resume="auto")
    saved = mixture().table.save(tmp_path / "both")
    with pytest.raises(DataError, match="fingerprint"):
        run(saved, config, out=tmp_path / "run", resume="auto")


def test_early_stopping_scores_the_validation_items_of_all_sources() -> None:
    both = mixture()
    result = run(both, tiny_config(epochs=4, early_stopping_patience=4))
    scores = {record["step"]: record["validation"]["recall@1"] for record in result.history if "validation" in record}
    table = both.table
    assert isinstance(table, EmbeddingStore)
    measured = evaluate(table, result.space, split="val")
    assert measured.items == 8 + 6
    assert result.best_step in scores
    assert scores[result.best_step] == max(scores.values()) == pytest.approx(measured.metrics["recall@1"])


def test_the_metrics_of_a_source_are_those_of_its_own_store() -> None:
    both = mixture()
    space = run(both, tiny_config(epochs=2)).space
    for name, store in both.sources.items():
        assert isinstance(store, EmbeddingStore)
        own = evaluate(store, space, split="val")
        table = both.table
        assert isinstance(table, EmbeddingStore)
        rows = np.intersect1d(table.rows("val"), np.array(both.sampling.rows(name)))
        features = {m: table.array(m)[rows] for m in store.modalities}
        again = evaluate(space.encode(features))
        assert own.metrics["recall@1"] == pytest.approx(again.metrics["recall@1"])


def test_statistics_of_the_features_use_all_training_rows() -> None:
    both = mixture()
    space = run(both, tiny_config(epochs=1)).space
    rows = np.concatenate([store.array("text")[store.rows("train")] for store in both.sources.values()])  # type: ignore[union-attr]
    normalize: Any = space.features[space.modalities.index("text")]
    torch.testing.assert_close(normalize.mean, torch.from_numpy(rows.astype(np.float64).mean(0)).to(normalize.mean))


def test_a_closed_form_of_a_mixture_is_that_of_all_rows(tmp_path: Path) -> None:
    table = mixture().table
    assert isinstance(table, EmbeddingStore)
    saved = table.save(tmp_path / "both")
    options: dict[str, Any] = {"dim": 3, "regularization": 0.1, "spectrum_power": 0.0}
    spaces = [gcca(store, **options) for store in (table, saved)]
    torch.testing.assert_close(*(dict(space.state_dict()) for space in spaces))
    config = tiny_config(head="linear", init="gcca", epochs=0, dropout=0.0, dim=3)
    space = run(mixture(), config).space
    directions = evaluate(table, space, split="val").directions
    assert directions["image->text"]["recall@1"] > 0.3  # chance is 1 in 14
    assert directions["sound->text"]["recall@1"] > 0.3


def test_a_mixture_aligns_modalities_that_share_no_item() -> None:
    both = mixture("blend")
    config = tiny_config(epochs=60, dropout=0.0, objective="unialign", objective_options={"anchor": "text"})
    space = run(both, config).space
    new = source(7, 50, "image", "sound")
    found = evaluate(new, space, split="train").directions
    # Chance is 1 in 40; no training item has an image and a sound.
    assert found["image->sound"]["recall@1"] > 0.1
    assert found["sound->image"]["recall@1"] > 0.1


def test_sources_too_small_for_a_batch() -> None:
    data = Mixture({"photos": source(1, 40, "image", "text"), "sounds": source(2, 6, "sound", "text")}, mode="blend")
    with pytest.raises(ConfigError, match="the source 'sounds' has 5 training rows, but up to 8 of a batch of 16"):
        run(data, tiny_config(batch_size=16))


def items(name: str, modality: str, count: int) -> Items:
    records = [
        {
            "id": f"{name}{number}",
            "text": f"{number % 7} {modality} of item {number}",
            modality: np.random.default_rng(number).normal(size=4).astype(np.float32),
            "split": "train" if number % 4 else "val",
        }
        for number in range(count)
    ]
    return Items.from_records(records, kinds={modality: "array", "text": "text"})


@pytest.mark.parametrize("mode", ["alternate", "blend"])
def test_items_of_several_tables(mode: MixtureMode, tmp_path: Path) -> None:
    data = Mixture({"p": items("a", "pose", 20), "s": items("b", "pulse", 16)}, mode=mode)
    config = tiny_config(epochs=2, dropout=0.0, encoders={"text": "builtin:chars"})
    whole = run(data, config)
    assert whole.space.modalities == ("pose", "text", "pulse") or set(whole.space.modalities) == {
        "text",
        "pose",
        "pulse",
    }
    with pytest.raises(KeyboardInterrupt):
        run(data, config, out=tmp_path / "run", on_step=stop_at(2))
    resumed = run(data, config, out=tmp_path / "run", resume="required")
    assert digest_of(resumed) == digest_of(whole)
    facts = resumed.space.metadata["data"]["mixture"]
    assert facts["mode"] == mode
    assert {name: entry["items"] for name, entry in facts["sources"].items()} == {"p": 20, "s": 16}


def test_an_encoder_is_trained_on_the_texts_of_all_sources(tmp_path: Path) -> None:
    data = Mixture({"p": items("a", "pose", 20), "s": items("b", "pulse", 16)}, mode="blend")
    config = tiny_config(
        epochs=2, dropout=0.0, encoders={"text": "builtin:bag?dim=8"}, tune={"text": {"mode": "all", "lr": 0.01}}
    )
    options: dict[str, Any] = {"embedding": EmbedConfig(workers=0)}
    whole = run(data, config, **options)
    with pytest.raises(KeyboardInterrupt):
        run(data, config, out=tmp_path / "run", on_step=stop_at(2), **options)
    resumed = run(data, config, out=tmp_path / "run", resume="required", **options)
    assert digest_of(resumed) == digest_of(whole)
    module = whole.space.encoder("text").module
    initial = run(data, config.replace(tune={}), **options).space.encoder("text").module
    assert module is not None
    assert initial is not None
    changed = [
        not torch.equal(one, other) for one, other in zip(module.parameters(), initial.parameters(), strict=True)
    ]
    assert any(changed)


@pytest.mark.parametrize("repeats", [False, True])
def test_shared_ids_of_embedded_tables_are_joined_by_their_texts(tmp_path: Path, repeats: bool) -> None:
    """Regression test: stores had ids numbered by first appearance, so that unrelated items were joined."""
    from unialign.embedding import embed
    from unialign.items import Items

    ids = {"a": ["x", "x" if repeats else "w", "y", None], "b": ["q", "q" if repeats else "r", "z", "x"]}
    stores, tables = {}, {}
    for source, values in ids.items():
        records = [
            {"id": f"{source}{i}", "one": f"red {i}", "two": f"blue {i}", "ids": value}
            for i, value in enumerate(values)
        ]
        tables[source] = Items.from_records(records, kinds={"one": "text", "two": "text"})
        encoders = dict.fromkeys(("one", "two"), "builtin:bag?dim=4")
        stores[source] = embed(tables[source], encoders, tmp_path / source, progress="none", device="cpu")
        np.testing.assert_array_equal(stores[source].ids, tables[source].ids)
    for sources in (stores, tables):
        found = Mixture(sources, shared_ids=True).table.ids  # type: ignore[arg-type]
        expected = [0, 0, 1, 2, 3, 3, 4, 0] if repeats else [0, 1, 2, 3, 4, 5, 6, 0]
        np.testing.assert_array_equal(found, expected)
