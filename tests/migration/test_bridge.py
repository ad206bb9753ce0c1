"""Test `ua.bridge` on synthetic old and new models."""

import json
import os
import re

import numpy as np
import pytest
import torch
from migration_cases import first_ten, new_rows, overlap, rotation, sample, unit

import unialign as ua
from unialign.data import EmbeddingStore, Items
from unialign.errors import CheckpointError, ConfigError, DataError, NonFiniteError, ShapeError
from unialign.migration import Bridge, _bridge, _build, _level, _plan, _search, bridge, plan

Z = new_rows()
PAIRS = sample(len(Z), 240)
QUERIES = new_rows(items=1700)[1500:]


def build(old, **options):
    return bridge(old, Z[PAIRS], pairs=PAIRS, queries=QUERIES, **options)


def noisy(scale):
    return unit(Z) + scale * np.random.default_rng(5).standard_normal(Z.shape) / np.sqrt(Z.shape[1])


OLD = {
    "int8": np.round(Z * 400) / 400,
    "rotated": 3 * Z @ rotation(48),
    "first half": Z[:, :24],
    "noisy": noisy(0.4),
    "unrelated": np.random.default_rng(3).standard_normal((len(Z), 48)),
    "unrelated, of another dim": np.random.default_rng(3).standard_normal((len(Z), 20)),
}


@pytest.mark.parametrize("name", OLD)
def test_planted_cases_get_the_right_verdict(name):
    found = build(OLD[name])
    expected = {"int8": "switch now", "rotated": "switch now"}
    if name.startswith("unrelated"):
        assert found.verdict == "re-embed or stay"
    else:
        assert found.verdict == expected.get(name, "switch with C = 100")
    assert found.overlap.low <= found.overlap.estimate <= found.overlap.high
    truth = overlap(QUERIES, Z, found.apply())
    assert found.overlap.low - 0.01 <= truth <= found.overlap.high + 0.01
    assert found.text().startswith(f"Verdict: {found.verdict}.")


@pytest.mark.parametrize("queries", [None, QUERIES])
@pytest.mark.parametrize("pairs", [30, 240])
def test_pairs_in_the_wrong_order_look_unrelated(pairs, queries):
    rows = PAIRS[:pairs]
    text = "The pairs look unrelated: check the order of `--pairs` and NEW first."
    shuffled = np.random.default_rng(1).permutation(rows)
    found = bridge(OLD["noisy"], Z[rows], pairs=shuffled, queries=queries)
    assert found.verdict == "re-embed or stay"
    assert text in found.text()
    assert "does not improve much" not in found.text()
    assert "`--plan" not in found.text()
    assert text not in bridge(OLD["noisy"], Z[rows], pairs=rows, queries=queries).text()


def test_the_representation_is_short():
    shown = repr(build(OLD["noisy"]))
    assert shown.startswith("Bridge('switch with C = 100', method=")
    assert "pairs=240, items=1500" in shown
    assert len(shown) < 200


def test_dense_clusters_do_not_get_a_switch_without_embedding():
    rng = np.random.default_rng(0)
    center = 2 * rng.standard_normal((50, 40))[rng.integers(0, 50, 3300)] + rng.standard_normal((3300, 40))
    old = center @ rng.standard_normal((40, 64)) + 0.5 * rng.standard_normal((3300, 64))
    new = unit(center @ rng.standard_normal((40, 96)) + 0.5 * rng.standard_normal((3300, 96)))
    found = bridge(old[:3000], new[PAIRS], pairs=PAIRS, queries=new[3000:])
    assert found.verdict == "switch with C = 100"
    assert overlap(new[3000:], new[:3000], found.apply()) < 0.95


def test_int8_keeps_the_identity():
    found = build(OLD["int8"])
    assert found.method == "identity"
    np.testing.assert_allclose(found.apply(), unit(OLD["int8"]), atol=1e-6)


def test_the_result_does_not_depend_on_the_container():
    old = OLD["noisy"].astype(np.float32)
    first = build(old)
    for container in (torch.from_numpy(old), old.astype(np.float64)):
        again = build(container)
        assert again.overlap == first.overlap
        assert again.old_fingerprint == first.old_fingerprint


def test_pairs_are_joined_by_ids(tmp_path):
    old, keys = OLD["noisy"].astype(np.float32), np.array([f"item {i}" for i in range(len(Z))])
    np.savez(tmp_path / "old.npz", old=old, ids=keys)
    np.savez(tmp_path / "new.npz", new=Z[PAIRS].astype(np.float32), ids=keys[PAIRS])
    found = bridge(tmp_path / "old.npz", tmp_path / "new.npz", queries=QUERIES)
    by_key = bridge(tmp_path / "old.npz", Z[PAIRS].astype(np.float32), pairs=keys[PAIRS], queries=QUERIES)
    by_row = bridge(old, Z[PAIRS].astype(np.float32), pairs=PAIRS, queries=QUERIES)
    assert found.overlap == by_key.overlap == by_row.overlap
    np.testing.assert_array_equal(found.pairs, PAIRS)
    np.testing.assert_array_equal(found.apply(), by_row.apply(old))
    wrong = np.r_[keys[PAIRS[:-2]], ["zebra", "item"]]
    with pytest.raises(DataError, match=re.escape("no item with id 'zebra' (2 missing)")):
        bridge(tmp_path / "old.npz", Z[PAIRS], pairs=wrong)
    np.savez(tmp_path / "old.npz", old=old, ids=np.r_[keys[:-1], keys[:1]])
    with pytest.raises(DataError, match="ids of the old index repeat"):
        bridge(tmp_path / "old.npz", Z[PAIRS], pairs=keys[PAIRS])


@pytest.mark.parametrize("kind", ["text", "integers"])
def test_stores_are_joined_by_the_values_of_their_ids(tmp_path, kind):
    """Both stores list the same number of items in other orders; codes of text ids are 0, 1, ... in both."""
    numbers = np.arange(len(Z)) + 7
    ids = np.array([f"item {i}" for i in numbers]) if kind == "text" else numbers
    old, new = OLD["noisy"].astype(np.float32)[PAIRS], Z[PAIRS].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(PAIRS))
    index = EmbeddingStore.from_arrays({"a": old}, ids=ids[PAIRS])
    written = EmbeddingStore.write(tmp_path / "new", {"a": new[order]}, ids=ids[PAIRS][order])
    by_row = bridge(old, new[order], pairs=order, queries=QUERIES)
    for given in (written, written.path):
        found = bridge(index, given, queries=QUERIES)
        np.testing.assert_array_equal(found.pairs, order)
        assert found.overlap == by_row.overlap


def test_stores_of_embed_are_joined_by_the_keys_of_their_items(tmp_path):
    items = Items.from_records([{"id": f"k{i}", "text": f"word {i} {'abc'[i % 3] * (i % 7)}"} for i in range(60)])
    order = np.random.default_rng(0).permutation(60)
    options = {"progress": "none", "device": "cpu", "workers": 0}
    old = ua.embed(items, {"text": "builtin:chars?dim=12"}, tmp_path / "old", **options)
    new = ua.embed(items.rows_of(order), {"text": "builtin:bag?dim=8"}, tmp_path / "new", **options)
    np.testing.assert_array_equal(bridge(old, new).pairs, order)
    part = ua.embed(items.rows_of(order[:40]), {"text": "builtin:bag?dim=8"}, tmp_path / "part", **options)
    np.testing.assert_array_equal(bridge(old, part).pairs, order[:40])
    with pytest.raises(DataError, match="no item with the id of row"):
        bridge(part, new)


def test_ids_of_stores_that_do_not_identify_items():
    old, new = OLD["noisy"].astype(np.float32)[PAIRS], Z[PAIRS].astype(np.float32)
    ids = np.array([f"item {i}" for i in PAIRS])
    index = EmbeddingStore.from_arrays({"a": old}, ids=ids)
    cases = {
        "no ids in common": EmbeddingStore.from_arrays({"a": new}, ids=np.char.add("other ", ids)),
        "id 'x' repeats in 'new'": EmbeddingStore.from_arrays({"a": new}, ids=["x"] * len(new)),
        "'new' has none, or only row numbers": EmbeddingStore.from_arrays({"a": new}),
    }
    for message, given in cases.items():
        with pytest.raises(DataError, match=message):
            bridge(index, given)
    by_row = bridge(EmbeddingStore.from_arrays({"a": old}), EmbeddingStore.from_arrays({"a": new}), queries=QUERIES)
    np.testing.assert_array_equal(by_row.pairs, np.arange(len(PAIRS)))


def test_a_mask_marks_the_sampled_rows():
    mask = np.zeros(len(Z), bool)
    mask[PAIRS] = True
    ascending = np.flatnonzero(mask)
    found = bridge(OLD["noisy"], Z[mask], pairs=mask, queries=QUERIES)
    wanted = bridge(OLD["noisy"], Z[ascending], pairs=ascending, queries=QUERIES)
    np.testing.assert_array_equal(found.pairs, ascending)
    assert found.overlap == wanted.overlap
    np.testing.assert_array_equal(found.apply(), wanted.apply())
    with pytest.raises(ShapeError, match="one entry for each of the 1,500 rows"):
        bridge(OLD["noisy"], Z[mask], pairs=mask[:-1])
    with pytest.raises(ShapeError, match="marks 240 rows of the index, but there are 239 new rows"):
        bridge(OLD["noisy"], Z[mask][:-1], pairs=mask)


def test_without_queries_the_pairs_query_each_other():
    found = bridge(OLD["noisy"], Z[PAIRS], pairs=PAIRS)
    assert found.overlap.queries == len(PAIRS)
    near = build(OLD["noisy"])
    assert abs(found.overlap.estimate - near.overlap.estimate) < 0.12


def test_all_rows_can_be_pairs():
    found = bridge(OLD["noisy"][:100], Z[:100], queries=QUERIES)
    np.testing.assert_array_equal(found.pairs, np.arange(100))


def test_mapped_rows_are_written_in_blocks(tmp_path):
    np.save(tmp_path / "old.npy", OLD["noisy"].astype(np.float32))
    old = np.load(tmp_path / "old.npy", mmap_mode="r")
    found = build(old)
    written = found.apply(out=tmp_path / "mapped.npy")
    assert isinstance(written.base, np.memmap) or isinstance(written, np.memmap)
    np.testing.assert_array_equal(written, found.apply(old))
    np.testing.assert_allclose(np.linalg.norm(written, axis=1), 1, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mapped.npy", "old.npy"]
    true_rows = found.apply(new=Z[PAIRS])
    np.testing.assert_allclose(true_rows[PAIRS], Z[PAIRS], atol=1e-6)
    others = np.setdiff1d(np.arange(len(Z)), PAIRS)
    np.testing.assert_array_equal(true_rows[others], written[others])


def test_two_writers_of_the_mapped_rows_use_different_temporary_files(tmp_path):
    found, target = build(OLD["int8"], methods=["identity"]), tmp_path / "mapped.npy"
    (tmp_path / ".mapped.npy.part").write_text("of another writer")
    found.apply(out=target)
    with pytest.raises(NonFiniteError):
        found.apply(changed(OLD["int8"], 1400, np.nan), out=target)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mapped.npy.part", "mapped.npy"]
    np.testing.assert_array_equal(np.load(target), found.apply())


def test_search_embeds_each_candidate_once():
    found, calls = build(OLD["first half"]), []

    def embed(rows):
        calls.append(rows)
        return 7 * Z[rows]

    mapped, cache = found.apply(), {}
    plain = found.search(QUERIES[:20], mapped=mapped)
    np.testing.assert_array_equal(plain.rows, first_ten(QUERIES[:20], mapped.astype(np.float64)))
    assert plain.embedded == 0
    first = found.search(QUERIES[:20], mapped=mapped, embed=embed, cache=cache, candidates=60)
    again = found.search(QUERIES[:20], mapped=mapped, embed=embed, cache=cache, candidates=60)
    assert len(calls) == 1
    assert first.embedded == len(cache) == len(np.unique(calls[0]))
    assert again.embedded == 0
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_allclose(first.scores, np.take_along_axis(QUERIES[:20] @ Z.T, first.rows, 1), atol=1e-6)
    truth = first_ten(QUERIES[:20], Z)
    share = np.mean([len(set(a) & set(b)) for a, b in zip(first.rows, truth, strict=True)]) / 10
    assert share > np.mean([len(set(a) & set(b)) for a, b in zip(plain.rows, truth, strict=True)]) / 10
    full = found.search(QUERIES[:3], mapped=mapped, embed=embed, candidates=len(Z))
    np.testing.assert_array_equal(full.rows, truth[:3])


def test_search_checks_its_arguments():
    found = build(OLD["int8"])
    mapped = found.apply()
    with pytest.raises(ConfigError, match="candidates is 5, expected at least k = 10"):
        found.search(QUERIES, mapped=mapped, candidates=5, embed=lambda rows: Z[rows])
    with pytest.raises(ShapeError, match=re.escape("`embed` returned shape (3, 48)")):
        found.search(QUERIES[:1], mapped=mapped, embed=lambda rows: Z[:3])
    with pytest.raises(ShapeError, match="'queries' must have shape"):
        found.search(QUERIES[:, :5], mapped=mapped)
    with pytest.raises(ConfigError, match="k is 2000"):
        found.search(QUERIES[:1], 2000, mapped=mapped)
    for rows in ({"queries": QUERIES[:2].tolist(), "mapped": mapped}, {"queries": QUERIES[:2], "mapped": [[1.0] * 48]}):
        with pytest.raises(ShapeError, match=r"must be an array or tensor of shape \(rows, 48\), got list"):
            found.search(k=1, **rows)
    best = int(found.search(QUERIES[:1], 1, mapped=mapped).rows[0, 0])
    with pytest.raises(
        ShapeError, match=re.escape(f"`cache` holds a row of shape (7,) for row {best}, expected (48,)")
    ):
        found.search(QUERIES[:1], mapped=mapped, embed=lambda rows: pytest.fail("embedded"), cache={best: np.ones(7)})


def test_the_plan_takes_rows_near_centers():
    centers = np.eye(48)[:4]
    rows = np.repeat(centers, 50, axis=0) + 0.1 * np.random.default_rng(0).standard_normal((200, 48))
    chosen = plan(rows, 4, seed=0)
    assert sorted(chosen // 50) == [0, 1, 2, 3]
    for row in chosen:
        inside = rows[row // 50 * 50 : row // 50 * 50 + 50]
        mean = unit(unit(inside).mean(0)[None])[0]
        assert unit(rows[row][None])[0] @ mean >= np.quantile(unit(inside) @ mean, 0.9)
    found = build(OLD["noisy"])
    new = found.plan(30)
    assert len(np.unique(new)) == 30
    assert not set(new) & set(PAIRS)
    with pytest.raises(ConfigError, match="n is 2,000"):
        plan(OLD["noisy"], 2000)


def test_levels_of_known_items_and_labels():
    known = np.arange(200)
    queries = unit(Z[:200] + 0.02 * np.random.default_rng(1).standard_normal((200, 48)))
    old = OLD["unrelated"]
    found = bridge(old, Z[PAIRS], pairs=PAIRS, queries=queries, known=known, old_queries=old[:200])
    (level,) = found.levels
    assert level.old == 1.0
    assert level.mapped < 0.2
    assert "Staying with the old model is better" in found.text()
    labels = (Z[:, 0] > np.median(Z[:, 0])).astype(int)
    (level,) = bridge(OLD["int8"], Z[PAIRS], pairs=PAIRS, labels=labels).levels
    rows = unit(OLD["int8"])
    scores = rows[PAIRS] @ rows.T
    scores[np.arange(len(PAIRS)), PAIRS] = -9
    near = np.argsort(-scores, axis=1)[:, :10]
    assert level.old == pytest.approx((labels[near] == labels[PAIRS][:, None]).mean())
    assert level.mapped == pytest.approx(level.old, abs=0.02)
    assert level.candidates is None


def test_a_store_is_known_by_its_encoder(tmp_path):
    made = {"columns": {"text": {"encoder": "old model", "weights": "abc"}}}
    store = EmbeddingStore.from_arrays({"text": OLD["noisy"].astype(np.float32)}, provenance=made)
    found = bridge(store, Z[PAIRS], pairs=PAIRS, queries=QUERIES)
    assert found.encoders == (True, False)
    found.apply(store)
    store.save(tmp_path / "old")
    by_path = bridge(str(tmp_path / "old"), Z[PAIRS], pairs=PAIRS, queries=QUERIES)
    assert by_path.old_fingerprint == found.old_fingerprint
    made["columns"]["text"]["weights"] = "other"
    other = EmbeddingStore.from_arrays({"text": OLD["noisy"].astype(np.float32)}, provenance=made)
    with pytest.raises(DataError, match="the bridge was built for"):
        found.apply(other)


@pytest.mark.parametrize("name", ["int8", "rotated", "noisy"])
def test_a_saved_bridge_maps_equally(name, tmp_path):
    found = build(OLD[name], methods="auto" if name != "noisy" else ["kernel"])
    found.save(tmp_path / "bridge")
    loaded = Bridge.load(tmp_path / "bridge")
    assert loaded.to_dict() == found.to_dict()
    np.testing.assert_allclose(loaded.apply(OLD[name]), found.apply(), atol=2e-5)
    with pytest.raises(ConfigError, match="does not hold the old index"):
        loaded.apply()
    assert loaded.apply(OLD["unrelated"]).shape == Z.shape
    with pytest.raises(DataError, match=re.escape("leave out `new` for other rows")):
        loaded.apply(OLD["unrelated"], new=Z[PAIRS])
    assert not set(loaded.plan(5, OLD[name])) & set(PAIRS)
    with pytest.raises(ShapeError, match="the bridge maps rows of dim 48"):
        loaded.apply(OLD["first half"])
    assert loaded.apply(OLD[name][:3]).shape == (3, 48)


def test_damaged_files_are_rejected(tmp_path):
    found, folder = build(OLD["rotated"]), tmp_path / "bridge"
    with pytest.raises(CheckpointError, match=r"it has no bridge\.json"):
        Bridge.load(folder)
    found.save(folder)
    content = (folder / "bridge.safetensors").read_bytes()
    (folder / "bridge.safetensors").write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match="was altered"):
        Bridge.load(folder)
    (folder / "bridge.safetensors").write_bytes(b"\x80\x04" + content)
    with pytest.raises(CheckpointError, match="pickle"):
        Bridge.load(folder)
    found.save(folder)
    text = (folder / "bridge.json").read_text()
    (folder / "bridge.json").write_text(text.replace('"switch now"', '"stay"'))
    with pytest.raises(CheckpointError, match="was altered"):
        Bridge.load(folder)
    (folder / "bridge.json").unlink()
    (folder / "bridge.json").symlink_to("/etc/hostname")
    with pytest.raises(CheckpointError):
        Bridge.load(folder)


def test_a_map_of_the_wrong_kind_is_rejected(tmp_path):
    from unialign.io import read_json, write_json

    found = build(OLD["rotated"], methods=["ridge"])
    for change in ({"method": "mlp"}, {"method": "kernel"}, {"dims": [48, 47]}, {"settings": {}}, {"dims": None}):
        found.save(tmp_path)
        body = read_json(tmp_path / "bridge.json")
        body["map"] |= change
        (tmp_path / "bridge.json").unlink()
        write_json(tmp_path / "bridge.json", body)
        with pytest.raises(CheckpointError, match=re.escape("bridge.json")):
            Bridge.load(tmp_path)
    found.save(tmp_path)
    body = read_json(tmp_path / "bridge.json")
    del body["overlap"]["low"]
    (tmp_path / "bridge.json").unlink()
    write_json(tmp_path / "bridge.json", body)
    with pytest.raises(CheckpointError, match="does not describe a bridge"):
        Bridge.load(tmp_path)
    assert json.loads((tmp_path / "bridge.json").read_text())["library"] == "unialign"


def changed(rows, row, value):
    rows = rows.copy()
    rows[row] = value
    return rows


BAD = [
    ({"new": changed(Z[PAIRS], 7, np.nan)}, NonFiniteError, "'new' row 7 holds nan"),
    ({"new": changed(Z[PAIRS], 7, 0)}, NonFiniteError, "'new' row 7 has norm zero"),
    ({"old": changed(OLD["noisy"], PAIRS[3], 0)}, NonFiniteError, f"'old' row {PAIRS[3]} has norm zero"),
    ({"pairs": np.r_[PAIRS[:-1], PAIRS[0]]}, DataError, f"row {PAIRS[0]} of the index is paired 2 times"),
    ({"pairs": np.r_[PAIRS[:-1], 1500]}, DataError, "pair row 1500 is outside the index"),
    ({"pairs": PAIRS[:-1]}, ShapeError, "one entry for each of the 240 new rows"),
    ({"pairs": PAIRS.astype(str)}, DataError, "the old index has no ids"),
    ({"pairs": None}, DataError, "pass the row numbers or ids"),
    ({"new": Z[PAIRS[:8]], "pairs": PAIRS[:8]}, DataError, "got 8 pairs, expected at least 16"),
    ({"new": Z[0]}, ShapeError, "'new' must be a floating-point matrix"),
    ({"old": OLD["noisy"].astype(int)}, ShapeError, "'old' must be a floating-point matrix"),
    ({"queries": QUERIES[:, :9]}, ShapeError, "'queries' have dim 9, expected 48"),
    ({"goal": 1.5}, ConfigError, "goal must be a number above 0"),
    ({"candidates": 5}, ConfigError, "candidates must be an integer of at least 10"),
    ({"methods": "ridge"}, ConfigError, "methods must be 'auto' or a list"),
    ({"methods": ["rigde"]}, ConfigError, "did you mean 'ridge'"),
    ({"methods": []}, ConfigError, "methods is empty"),
    ({"methods": None}, ConfigError, "a list of names such as ['ridge'], got None"),
    ({"methods": 5}, ConfigError, "a list of names such as ['ridge'], got 5"),
    ({"methods": [["ridge"]]}, ConfigError, "unknown method ['ridge']"),
    ({"known": np.arange(200), "queries": None}, ConfigError, "pass `queries` as well"),
    ({"known": np.arange(5)}, ShapeError, "`known` must be one row number"),
    ({"known": np.full(200, 1500)}, DataError, "row numbers from 0 to 1499"),
    ({"old_queries": OLD["noisy"][:200]}, ConfigError, "pass both"),
    ({"labels": np.zeros(5, int)}, ShapeError, "`labels` must have one entry"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=[message for *_, message in BAD])
def test_wrong_input_gives_a_clear_error(options, error, message):
    arguments = {"old": OLD["noisy"], "new": Z[PAIRS], "pairs": PAIRS, "queries": QUERIES} | options
    with pytest.raises(error, match=re.escape(message)):
        bridge(arguments.pop("old"), arguments.pop("new"), **arguments)


def test_an_invalid_row_of_the_index_is_found():
    row = int(np.setdiff1d(np.arange(len(Z)), PAIRS)[-1])
    with pytest.raises(NonFiniteError, match=f"'old' row {row} holds inf"):
        build(changed(OLD["noisy"], row, np.inf))
    with pytest.raises(NonFiniteError, match=f"'old' row {row} holds inf"):
        build(OLD["noisy"]).apply(changed(OLD["noisy"], row, np.inf))


@pytest.mark.parametrize("pairs", [16, 17, 40])
def test_few_pairs_give_a_wide_interval(pairs):
    found = bridge(OLD["noisy"], Z[PAIRS[:pairs]], pairs=PAIRS[:pairs], queries=QUERIES)
    more = build(OLD["noisy"])
    assert found.overlap.high - found.overlap.low > more.overlap.high - more.overlap.low
    assert 0 <= found.overlap.low <= found.overlap.high <= 1


def test_tensors_that_require_gradients_are_accepted():
    found = build(OLD["int8"], methods=["identity"])

    def tensor(rows):
        return torch.tensor(rows, requires_grad=True)

    mapped = found.apply(new=tensor(Z[PAIRS]))
    plain = found.search(QUERIES[:4], mapped=mapped, embed=lambda rows: Z[rows])
    again = found.search(tensor(QUERIES[:4]), mapped=tensor(mapped), embed=lambda rows: tensor(Z[rows]))
    np.testing.assert_array_equal(plain.rows, again.rows)
    order = found.search(tensor(QUERIES[:4]), mapped=tensor(mapped))
    np.testing.assert_array_equal(order.rows, found.search(QUERIES[:4], mapped=mapped).rows)
    low = found.search(QUERIES[:4], mapped=mapped, embed=lambda rows: torch.tensor(Z[rows]).bfloat16())
    assert low.scores.shape == (4, 10)


def test_finished_blocks_of_embedded_rows_stay_in_the_cache(monkeypatch):
    monkeypatch.setattr(_search, "EMBED_ROWS", 16)
    found, calls, cache = build(OLD["int8"], methods=["identity"]), [], {}

    def embed(rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return Z[rows]

    with pytest.raises(RuntimeError, match="out of memory"):
        found.search(QUERIES[:1], mapped=found.apply(), embed=embed, cache=cache)
    assert len(cache) == 32
    assert found.search(QUERIES[:1], mapped=found.apply(), embed=embed, cache=cache).embedded == 68
    assert max(calls) == 16


def test_wrong_tasks_are_found_before_the_fit(monkeypatch):
    def fail(*_):
        raise AssertionError("the maps were fitted")

    monkeypatch.setattr(_build, "fit_candidates", fail)
    for options, error in (
        ({"known": np.arange(5)}, ShapeError),
        ({"known": np.arange(200), "old_queries": OLD["noisy"][:3]}, ShapeError),
        ({"labels": np.zeros(5, int)}, ShapeError),
    ):
        with pytest.raises(error):
            build(OLD["noisy"], **options)


def test_a_large_plan_takes_the_nearest_rows_of_each_cluster(monkeypatch):
    whole = plan(OLD["noisy"], 200)
    monkeypatch.setattr(_plan, "_BLOCK", 7)
    np.testing.assert_array_equal(plan(OLD["noisy"], 200), whole)
    monkeypatch.setattr(_plan, "_CENTERS", 4)
    rows = np.repeat(np.eye(48)[:4], 50, axis=0) + 0.1 * np.random.default_rng(0).standard_normal((200, 48))
    chosen = plan(rows, 22)
    assert len(np.unique(chosen)) == 22
    assert np.bincount(chosen // 50).tolist() in (
        [6, 6, 5, 5],
        [6, 5, 6, 5],
        [6, 5, 5, 6],
        [5, 6, 6, 5],
        [5, 6, 5, 6],
        [5, 5, 6, 6],
    )
    inside = unit(rows[:50]) @ unit(unit(rows[:50]).mean(0)[None])[0]
    assert inside[chosen[chosen < 50]].min() > np.median(inside)
    assert len(plan(rows, 200)) == 200


def test_more_pairs_than_the_limit_are_sampled(monkeypatch):
    for module in (_build, _bridge):
        monkeypatch.setattr(module, "FIT_PAIRS", 100)
    found = build(OLD["noisy"])
    assert len(found.pairs) == 240
    assert found.overlap.pairs == 100
    assert "100 random pairs of the 240" in found.text()
    assert not set(found.plan(30, OLD["noisy"])) & set(PAIRS)
    np.testing.assert_allclose(found.apply(OLD["noisy"], new=Z[PAIRS])[PAIRS], Z[PAIRS], atol=1e-6)
    with pytest.raises(DataError, match="differ from those"):
        found.apply(OLD["unrelated"], new=Z[PAIRS])


def test_rows_without_a_label_are_not_a_class():
    labels = (Z[:, 0] > np.median(Z[:, 0])).astype(int)
    hidden = np.random.default_rng(0).random(len(Z)) < 0.7
    labels[hidden] = -1
    (level,) = build(OLD["int8"], methods=["identity"], labels=labels).levels
    assert level.queries == (labels[PAIRS] >= 0).sum()
    kept = np.flatnonzero(~hidden)
    own = PAIRS[labels[PAIRS] >= 0]
    scores = unit(OLD["int8"])[own] @ unit(OLD["int8"])[kept].T
    scores[own[:, None] == kept] = -9
    near = kept[np.argsort(-scores, axis=1)[:, :10]]
    assert level.old == pytest.approx((labels[near] == labels[own][:, None]).mean())
    labels[PAIRS] = -1
    assert build(OLD["int8"], methods=["identity"], labels=labels).levels == ()
    assert build(OLD["int8"], methods=["identity"], labels=np.full(len(Z), -1)).levels == ()


def test_label_precision_uses_maps_that_have_not_seen_the_query():
    """Each pair has one duplicate, and only a map that was fitted on the pair can map the duplicate near the query."""
    rng = np.random.default_rng(0)
    pairs, items = 60, 120
    old = np.tile(rng.standard_normal((pairs, 100)), (2, 1)) + 1e-3 * rng.standard_normal((items, 100))
    new = rng.standard_normal((pairs, 30))
    found = bridge(old, new, pairs=np.arange(pairs), labels=np.tile(np.arange(pairs), 2), methods=["ridge"])
    (level,) = found.levels
    assert level.queries == pairs
    assert level.old == pytest.approx(0.1)
    chance = 0.1 * 10 / items
    assert level.mapped < 4 * chance


def test_the_search_of_levels_is_exact():
    rng = np.random.default_rng(0)
    queries, rows = unit(rng.standard_normal((9, 6))), unit(rng.standard_normal((50, 6)))
    search = _level._Search(queries, None, 7)
    for start, stop in ((0, 3), (3, 30), (30, 50)):
        search.add(slice(start, stop), rows[start:stop])
    np.testing.assert_array_equal(search.rows_Qk, np.argsort(-(queries @ rows.T), axis=1)[:, :7])


def test_a_crash_between_the_two_renames_leaves_a_complete_bridge(tmp_path, monkeypatch):
    first, second = build(OLD["rotated"], methods=["ridge"]), build(OLD["int8"], methods=["ridge"])
    first.save(tmp_path)
    replace = os.replace

    def crash(source, target):
        if str(target).endswith("bridge.json"):
            raise OSError("disk error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(CheckpointError, match="disk error"):
        second.save(tmp_path)
    monkeypatch.undo()
    assert Bridge.load(tmp_path).to_dict() == second.to_dict()
    first.save(tmp_path)
    assert Bridge.load(tmp_path).to_dict() == first.to_dict()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bridge.json", "bridge.safetensors"]


def test_the_root_namespace_has_the_function():
    assert ua.bridge is bridge
