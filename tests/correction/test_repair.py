"""Test repairs of planted gaps, the choice of the method, missing rows, and invalid input."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import unialign as ua
from unialign.correction import Repair, repair
from unialign.correction._candidates import bootstrap_weights, csls_score, references
from unialign.correction._csls import local_similarity
from unialign.correction._layers import fit_layers
from unialign.correction._rows import groups_of, read_rows, split_items
from unialign.data import EmbeddingStore, open_collection
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.metrics import mixed_pool

unit = torch.nn.functional.normalize


def healthy(items: int = 160, dim: int = 24, names: str = "ab", seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(len(names) + 1, items, dim, generator=generator, dtype=torch.float64)
    return {name: unit(draw[0] + 0.9 * draw[i + 1], dim=1) for i, name in enumerate(names)}


def with_gap(z: Mapping[str, Tensor], size: float = 1.2) -> dict[str, Tensor]:
    first = next(iter(z))
    shift = torch.zeros(z[first].shape[1], dtype=torch.float64)
    shift[0] = size
    return {name: unit(x + shift, dim=1) if name == first else x for name, x in z.items()}


def anisotropic(z: Mapping[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    first = next(iter(z))
    scales = 1 + torch.rand(z[first].shape[1], generator=generator, dtype=torch.float64)
    scales[1] = 3
    return with_gap({name: unit(x * scales, dim=1) if name == first else x for name, x in z.items()})


def balanced(z: Mapping[str, Tensor]) -> float:
    return mixed_pool(z, seeds=(0, 1)).overall.balanced


@pytest.mark.parametrize("plant", [with_gap, anisotropic])
def test_planted_gap_is_repaired(plant: object) -> None:
    fit, fresh = healthy(), healthy(seed=1)
    assert callable(plant)
    found = repair(plant(fit))
    assert found.choice in ("center", "coral")
    repaired = found.apply(plant(fresh))
    assert balanced(plant(fresh)) < 0.85 * balanced(fresh)
    assert balanced(repaired) >= 0.95 * balanced(fresh)
    (pair,) = [row for row in found.table if row["pair"] == "a-b"]
    assert pair["before"]["gap"] > 0.5
    assert pair["after"]["gap"] < 0.2
    assert pair["after"]["cross"]["mean"] > pair["before"]["cross"]["mean"]
    assert pair["before"]["share"]["mean"] > pair["after"]["share"]["mean"]


def test_healthy_space_is_unchanged() -> None:
    z = healthy(seed=2)
    found = repair(z)
    assert found.choice == "none"
    for name, x in z.items():
        torch.testing.assert_close(found.apply(z)[name], x, atol=1e-15, rtol=0)
    assert set(found.candidates) == {"none", "center", "coral", "center_csls"}
    assert "significantly" in found.candidates["center"]["reason"]


@pytest.mark.parametrize(("items", "dim"), [(80, 5), (6, 30)])
def test_layers_match_a_slow_reference(items: int, dim: int) -> None:
    z = anisotropic(healthy(items=items, dim=dim, names="abc"))
    layers = fit_layers("coral", z)
    shrunk = {}
    for name, x in z.items():
        rows = x.numpy()
        covariance = sum(np.outer(row - rows.mean(0), row - rows.mean(0)) for row in rows) / len(rows)
        shrunk[name] = 0.1 * covariance + 0.9 * np.trace(covariance) / dim * np.eye(dim)

    def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
        u, s, v = np.linalg.svd(matrix)
        return u @ np.diag(s**exponent) @ v

    target = power(sum(shrunk.values()) / 3, 0.5)
    for name, x in z.items():
        expected = (x.numpy() - x.numpy().mean(0)) @ power(shrunk[name], -0.5) @ target
        np.testing.assert_allclose(layers[name](x).numpy(), expected, atol=1e-10)
        centered = fit_layers("center", z)[name](x)
        np.testing.assert_allclose(centered.numpy(), x.numpy() - x.numpy().mean(0), atol=1e-14)


def test_csls_matches_a_slow_reference() -> None:
    z = with_gap(healthy(items=130, dim=6))
    reference = references(z)
    score = csls_score(reference)
    queries, rows = reference["a"][:4], reference["b"][:5]

    def local(x: Tensor, modality: str, same: bool) -> float:
        cosines = sorted((float(x @ y) for y in reference[modality] if not (same and torch.equal(x, y))), reverse=True)
        return sum(cosines[:10]) / 10

    for g, gallery in (("b", rows), ("a", queries)):
        found = score("a", queries, g, gallery)
        for i, q in enumerate(queries):
            for j, y in enumerate(gallery):
                expected = 2 * float(q @ y) - local(q, g, g == "a") - local(y, "a", g == "a")
                assert float(found[i, j]) == pytest.approx(expected, abs=1e-12)
    assert float(local_similarity(queries, rows[:1], same_modality=True)[0]) == pytest.approx(
        float(queries[0] @ rows[0])
    )


def test_scores_compare_modalities() -> None:
    z = with_gap(healthy())
    found = repair(z, methods=["none", "center", "center_csls"])
    assert found.index_choice in ("center", "center_csls")
    within = found.scores(z["a"][:50], z["a"][50:150], query_modality="a", gallery_modality="a")
    across = found.scores(z["a"][:50], z["b"][:50], query_modality="a", gallery_modality="b")
    raw = z["a"][:50] @ z["a"][50:150].mT
    assert float((raw.mean(1) > (z["a"][:50] * z["b"][:50]).sum(1)).double().mean()) > 0.5
    assert float((across.diagonal() > within.mean(1)).double().mean()) > 0.95
    local = found.local_similarity(z["b"][:50], modality="b", reference="a")
    assert local.shape == (50,)
    if found.index_choice == "center_csls":
        centered = found.apply({"a": z["a"][:50], "b": z["b"][:50]}, for_index=True)
        own = found.local_similarity(z["a"][:50], modality="a", reference="b")
        torch.testing.assert_close(across, 2 * centered["a"] @ centered["b"].mT - own[:, None] - local)


def test_label_precision_can_forbid_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    # In this space, the mean directions of the modalities identify the labels, so centering would hide them.
    z = with_gap(healthy())
    labels = torch.arange(160) % 4
    free = repair(z, labels=labels.numpy())
    assert free.choice != "none"
    assert free.table[0]["before"]["label_precision"] is not None

    import unialign.correction._candidates as module

    def lower(self: module.Candidate, name: str, pair: str | None, weights: Tensor) -> Tensor:
        values = original(self, name, pair, weights)
        return values - 0.1 if name == "label_precision" and self.method != "none" else values

    original = module.Candidate.resample
    monkeypatch.setattr(module.Candidate, "resample", lower)
    kept = repair(z, labels=labels.numpy())
    assert kept.choice == "none"
    assert "label precision" in kept.candidates["center"]["reason"]


def test_missing_rows_and_three_modalities() -> None:
    z = with_gap(healthy(names="abc"))
    rng = np.random.default_rng(0)
    present = {name: rng.random(160) > 0.3 for name in z}
    broken = {name: torch.where(torch.from_numpy(present[name])[:, None], x, torch.nan) for name, x in z.items()}
    found = repair(broken, present=present)
    assert found.choice in ("center", "coral")
    assert [row["pair"] for row in found.table] == ["all", "a-b", "a-c", "b-c"]
    assert found.metadata["rows"] == {name: int(mask.sum()) for name, mask in present.items()}
    repaired = found.apply(broken, present=present)
    for name, rows in repaired.items():
        length = torch.linalg.vector_norm(rows, dim=1)
        torch.testing.assert_close(length, torch.from_numpy(present[name]).double())


def test_few_rows_allow_centering_only() -> None:
    found = repair(with_gap(healthy(items=60)))
    assert set(found.candidates) == {"none", "center"}
    tiny = repair({name: x[:4] for name, x in with_gap(healthy()).items()})
    assert tiny.choice in ("none", "center")
    with pytest.raises(DataError, match="at least four items"):
        repair({name: x[:3] for name, x in healthy().items()})
    # At least two items are held out, and at least two are used to fit.
    for holdout, fit_items in ((1e-9, 58), (1 - 1e-9, 2)):
        assert repair(healthy(items=60), holdout=holdout).metadata["fitted"]["fit_items"] == fit_items
    only = repair(with_gap(healthy(items=60)), methods=["coral"])
    assert only.choice == "center"


def test_items_of_the_test_split_are_not_read() -> None:
    z = with_gap(healthy())
    split = np.array(["train"] * 80 + ["val"] * 40 + ["test"] * 40)
    changed = {name: torch.cat([x[:120], torch.full((40, 24), torch.nan, dtype=x.dtype)]) for name, x in z.items()}
    found = repair({**changed, "split": split})
    assert found.metadata["fitted"] == {"fit_items": 80, "held_out_items": 40}
    assert found.metadata["rows"] == {"a": 120, "b": 120}


def test_same_ids_are_on_the_same_side() -> None:
    z = healthy(items=100)
    ids = np.repeat(np.arange(50), 2)
    data = open_collection(dict(z.items()), ids=ids)
    fit, held = split_items(data, groups_of(data), 0.5, 0)
    assert not set(ids[fit]) & set(ids[held])
    assert len(fit) + len(held) == 100


def test_groups_are_held_out_and_resampled_as_a_whole() -> None:
    z = {name: x.numpy() for name, x in with_gap(healthy(items=120)).items()}
    groups, ids = np.arange(120) // 6, np.arange(120)
    ids[[6, 12]] = 0
    data = open_collection({**z, "groups": groups, "ids": ids})
    fit, held = split_items(data, groups_of(data), 0.5, 0)
    joined = np.where(groups < 3, 0, groups)
    assert not set(joined[fit]) & set(joined[held])
    assert len(fit) + len(held) == 120
    rows = read_rows(data, groups_of(data), held, None)
    weights = bootstrap_weights(rows, 0)
    same = torch.from_numpy(joined[held][:, None] == joined[held])
    equal = (weights[:, :, None] == weights[:, None]).all(0)
    assert torch.equal(equal, same)
    # Without groups, only items of the same id are resampled together.
    data = open_collection(z, ids=ids)
    alone = bootstrap_weights(read_rows(data, groups_of(data), held, None), 0)
    assert torch.equal((alone[:, :, None] == alone[:, None]).all(0), torch.from_numpy(ids[held][:, None] == ids[held]))


def test_held_out_items_of_one_group_choose_no_method() -> None:
    z = with_gap(healthy())
    split = np.repeat(["train", "val"], 80)
    found = repair({**z, "groups": np.arange(160) // 80, "split": split})
    assert found.choice == "none"
    assert "one group" in found.candidates["center"]["reason"]
    data = open_collection({**z, "groups": np.arange(160) // 54})
    assert len(split_items(data, groups_of(data), 0.1, 0)[0]) in (52, 54)


def test_errors_name_the_row_of_the_store(tmp_path: Path) -> None:
    z = {name: x.float().numpy() for name, x in with_gap(healthy()).items()}
    found = repair(z, methods=["center"])
    z["b"][33] = 1e-36
    store = EmbeddingStore.write(tmp_path / "store", z)
    with pytest.raises(NonFiniteError, match="'b' row 33 is too short"):
        found.apply_store(store, tmp_path / "out", batch_size=10)
    z["b"][33] = z["b"][34]
    store = EmbeddingStore.write(tmp_path / "store", z, overwrite="replace")
    found._layer("a").bias.copy_(-unit(torch.from_numpy(z["a"][57]), dim=0).double())
    with pytest.raises(NonFiniteError, match="'a' row 57 equals the mean"):
        found.apply_store(store, tmp_path / "out", batch_size=10)


def test_rows_of_extreme_length_keep_their_direction(tmp_path: Path) -> None:
    z = with_gap(healthy(items=60))
    long = {name: x.clone() for name, x in z.items()}
    long["a"][3], long["b"][4] = 1e200 * long["a"][3], 1e-200 * long["b"][4]
    found = repair(long)
    assert found.candidates["center"]["balanced"] == pytest.approx(repair(z).candidates["center"]["balanced"])
    store = EmbeddingStore.write(tmp_path / "store", {name: x.numpy() for name, x in long.items()})
    out = found.apply_store(store, tmp_path / "out")
    np.testing.assert_allclose(out.array("a"), found.apply(z)["a"].numpy(), atol=1e-6)


def test_equal_calls_give_equal_repairs(tmp_path: Path) -> None:
    z = with_gap(healthy())
    one, two = repair(z, seed=3), repair(z, seed=3)
    assert one.metadata == two.metadata
    assert all(torch.equal(one.apply(z)[name], two.apply(z)[name]) for name in z)


def test_stores_files_and_spaces_are_sources(tmp_path: Path) -> None:
    z = {name: x.float().numpy() for name, x in with_gap(healthy()).items()}
    np.savez(tmp_path / "z.npz", **z)
    store = EmbeddingStore.write(tmp_path / "store", z)
    of_file, of_store = repair(str(tmp_path / "z.npz")), repair(store)
    for name, rows in z.items():
        assert torch.equal(of_file.apply(z)[name], of_store.apply(z)[name])
        out = of_store.apply_store(store, tmp_path / f"out-{name}", batch_size=100)
        # Products of blocks have different rounding errors.
        np.testing.assert_allclose(out.array(name), of_store.apply({name: rows})[name].numpy(), atol=1e-6)
    space = ua.Space({"a": 24, "b": 24, "c": 3}, dim=8)
    found = repair(space, store)
    assert found.modalities == ("a", "b")
    assert found.dim == 8
    with pytest.raises(ConfigError, match="needs features"):
        repair(space)
    with pytest.raises(ConfigError, match="not a Space"):
        repair(store, store)
    with pytest.raises(ConfigError, match="no modality"):
        repair(ua.Space({"other": 3}), store)


def test_a_repair_folds_into_its_space(tmp_path: Path) -> None:
    features = with_gap(healthy())
    for head in ("linear", "mlp"):
        torch.manual_seed(0)
        space = ua.Space({"a": 24, "b": 24}, dim=8, head=head)
        found = repair(space, features, methods=["coral"])
        assert found.choice == "coral"
        folded = found.fold_into(space)
        folded.save_pretrained(tmp_path / head)
        loaded = ua.Space.from_pretrained(tmp_path / head)
        expected = found.apply(space.encode(features))
        for name, rows in loaded.encode(features).items():
            assert float((rows - expected[name]).abs().max()) < 1e-6
    unchanged = repair(space, features, methods=["none"]).fold_into(space)
    assert unchanged.output_affine == ()
    with pytest.raises(ConfigError, match="dim"):
        found.fold_into(ua.Space({"a": 24, "b": 24}, dim=4))
    with pytest.raises(ConfigError, match="'b'"):
        found.fold_into(ua.Space({"a": 24}, dim=8))


def test_invalid_input_is_rejected() -> None:
    z = healthy()
    bad = {"a": z["a"].clone(), "b": z["b"]}
    bad["a"][7] = torch.nan
    with pytest.raises(NonFiniteError, match="'a' row 7"):
        repair(bad)
    bad["a"][7] = 0
    with pytest.raises(NonFiniteError, match="norm zero"):
        repair(bad)
    with pytest.raises(ShapeError, match="two modalities"):
        repair({"a": z["a"]})
    with pytest.raises(ShapeError, match="different dims"):
        repair({"a": z["a"], "b": z["b"][:, :5]})
    with pytest.raises(DataError, match="'b' are equal"):
        repair({"a": z["a"], "b": torch.ones_like(z["b"])})
    count = len(z["a"])
    with pytest.raises(DataError, match=rf"got 0 and {count}, .* the {count} items .* have the same id or group"):
        repair(z, ids=np.zeros(count, np.int64))
    with pytest.raises(DataError, match="two items outside the splits `val` and `test`, got 0"):
        repair({**z, "split": np.array(["val"] * count)})
    with pytest.raises(ConfigError, match="holdout"):
        repair(z, holdout=1.0)
    for methods in (3, None, np.array(["none", "center"])):
        with pytest.raises(ConfigError, match="methods must be 'auto' or a list of names"):
            repair(z, methods=methods)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="method"):
        repair(z, methods=["centre"])
    with pytest.raises(ConfigError, match="index only"):
        repair(z, methods=["center_csls"])
    found = repair(with_gap(z))
    with pytest.raises(ConfigError, match="unknown modality 'c'"):
        found.apply({"c": z["a"]})
    with pytest.raises(ShapeError, match="dim 24"):
        found.apply({"a": z["a"][:, :5]})
    with pytest.raises(NonFiniteError, match="'a'"):
        found.apply(bad)


def test_a_row_that_equals_the_mean_is_named() -> None:
    z = with_gap(healthy(items=60))
    found = repair(z, methods=["center"])
    mean = found._layer("a").mean
    # A unit row equals the mean only if the mean has unit length.
    found._layer("a").bias.copy_(-unit(mean, dim=0))
    with pytest.raises(NonFiniteError, match="row 1 equals the mean"):
        found.apply({"a": torch.stack([z["a"][0], unit(mean, dim=0)])})


def test_the_text_has_the_table_and_a_legend(tmp_path: Path) -> None:
    found = repair(with_gap(healthy()))
    lines = found.text().splitlines()
    assert lines[0].startswith("The repair is ")
    assert lines[2].split() == ["pair", "balanced", "own", "cross", "share", "gap"]
    row = next(line for line in lines if line.startswith("a-b"))
    before, after = (found.table[-1][side]["balanced"]["mean"] for side in ("before", "after"))
    assert f"{100 * before:.1f} -> {100 * after:.1f}" in row
    for column in ("balanced", "own", "cross", "share", "gap"):
        assert any(line.startswith(f"{column}: ") for line in lines)
    found.save(tmp_path / "repair")
    loaded = Repair.load(tmp_path / "repair")
    assert loaded.text() == found.text()
    loaded.metadata.clear()
    with pytest.raises(ConfigError, match="no measurements"):
        loaded.text()


def test_repr_names_the_choice() -> None:
    assert repr(repair(healthy(items=60))) == "Repair(modalities=('a', 'b'), dim=24, choice='none')"
    assert issubclass(Repair, object)


@pytest.mark.slow
def test_spaces_without_a_gap_are_rarely_changed_and_never_harmed() -> None:
    changed, losses = 0, []
    for seed in range(40):
        z = healthy(items=500, dim=16, seed=100 + seed)
        found = repair({name: x[:200] for name, x in z.items()}, seed=seed)
        fresh = {name: x[200:] for name, x in z.items()}
        changed += found.choice != "none"
        losses.append(balanced(fresh) - balanced(found.apply(fresh)))
    # Each of two maps is compared with no change at level 5 %, and a map that is selected by chance changes little.
    assert changed <= 6
    assert max(losses) < 0.01
    assert sum(losses) / len(losses) < 0.001
