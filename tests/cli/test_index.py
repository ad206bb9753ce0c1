"""Test `unialign index` and lists of items to remove."""

import csv
import json

import numpy as np
import pytest

import unialign as ua
from unialign.cli import main
from unialign.cli._fix_list import Fix, read_removed, write_fix_list
from unialign.errors import ConfigError


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((120, 16))
    z = {name: unit(latent + 0.1 * rng.standard_normal(latent.shape)) for name in ("image", "text")}
    has_text = np.arange(120) % 5 > 0
    ua.data.EmbeddingStore.write(
        "store",
        z,
        present={"text": has_text},
        names=[f"item-{i}" for i in range(120)],
        labels=np.arange(120) % 2,
        label_names=["even", "odd"],
        split=ua.data.random_split(120),
    )
    return tmp_path


def test_an_index_is_made_continued_changed_and_checked(here, capsys):
    assert main(["index", "store", "--out", "my-index"]) == 0
    printed = capsys.readouterr().out
    assert "added 120 items" in printed
    assert "my-index: 120 items, 2 modalities (image, text)" in printed
    assert main(["index", "store", "--out", "my-index"]) == 0
    assert "added 0 items" in capsys.readouterr().out
    assert main(["index", "my-index", "--delete-where", "label = 'odd'"]) == 0
    assert "deleted 60 items" in capsys.readouterr().out
    assert main(["index", "my-index", "--delete", "item-0", "item-2"]) == 0
    assert "deleted 2 items" in capsys.readouterr().out
    assert main(["index", "my-index", "--add", "store", "--on-conflict", "skip"]) == 0
    assert "added 62 items" in capsys.readouterr().out
    assert main(["index", "my-index", "--add", "store"]) == 2
    assert "item-" in capsys.readouterr().err
    assert main(["index", "my-index", "--add", "store", "--on-conflict", "replace"]) == 0
    assert "replaced 120" in capsys.readouterr().out
    assert main(["index", "my-index", "--calibrate", "center"]) == 0
    assert "correction: center" in capsys.readouterr().out
    assert main(["index", "my-index", "--compact", "--verify"]) == 0
    assert "all files match their checksums" in capsys.readouterr().out
    assert main(["index", "my-index", "--stats"]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert (stats["items"], stats["dead_items"]) == (120, 0)
    with ua.Index.open("my-index") as index:
        assert len(index) == 120


def test_a_damaged_part_is_found_and_the_rest_is_salvaged(here, capsys):
    assert main(["index", "store", "--out", "my-index"]) == 0
    (part,) = (here / "my-index/parts").glob("*/z.image.npy")
    content = bytearray(part.read_bytes())
    content[-3] ^= 1
    part.write_bytes(content)
    capsys.readouterr()
    assert main(["index", "my-index", "--verify"]) == 1
    printed = capsys.readouterr().out
    assert "z.image.npy" in printed
    assert printed.splitlines()[-1] == "1 problem found"
    assert main(["index", "my-index", "--salvage", "saved"]) == 0
    with ua.Index.open("saved") as saved:
        assert f"copied {len(saved)} items to saved" in capsys.readouterr().out
        assert len(saved) > 0
        assert saved.verify() == []


@pytest.mark.integrations
def test_approximate_candidates_are_built(here, capsys):
    pytest.importorskip("faiss")
    assert main(["index", "store", "--out", "my-index"]) == 0
    assert main(["index", "my-index", "--approximate", "hnsw", "--target", "image"]) == 0
    assert "hnsw for image: recall@10 " in capsys.readouterr().out
    with ua.Index.open("my-index") as index:
        query = ua.query(item="item-4")
        found = index.search(query, k=5, target="image", exact=False)
        assert not found.exact
        assert found.keys[0] == index.search(query, k=5, target="image").keys[0]


def test_a_split_can_be_indexed_alone(here, capsys):
    assert main(["index", "store", "--split", "test", "--out", "my-index"]) == 0
    store = ua.data.EmbeddingStore.open("store")
    with ua.Index.open("my-index") as index:
        keys = {item.key for item in index.items(limit=200)}
    assert keys == {store.item_names[row] for row in np.flatnonzero(store.split == 2)}
    left_out = 120 - len(keys)
    assert f"added {len(keys)} items, replaced 0, skipped {left_out} " in capsys.readouterr().out


def test_errors_say_what_to_do(here, capsys):
    assert main(["index", "store", "--verify"]) == 2
    assert "--verify needs the folder of an index, but store is not an index" in capsys.readouterr().err
    assert main(["index", "store", "--out", "my-index"]) == 0
    capsys.readouterr()
    for words, message in [
        (["my-index", "--out", "other"], "--space and --out apply only to new indexes"),
        (["my-index", "--delete-where", "label ="], "column 8: the filter ends; expected a value"),
        (["my-index", "--delete", "item-999"], "item-999"),
        (["my-index", "--without", "fix.csv"], "use --delete-listed"),
        (["nothing-here", "--out", "x"], "nothing-here"),
    ]:
        assert main(["index", *words]) == 2, words
        assert message in capsys.readouterr().err
    assert not (here / "x").exists()
    assert not (here / "other").exists()


def test_a_space_is_fitted_to_features_of_different_dims(here, capsys):
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((60, 4))
    features = {"image": shared @ rng.standard_normal((4, 12)), "text": shared @ rng.standard_normal((4, 8))}
    np.savez("features.npz", **features, split=ua.data.random_split(60))
    assert main(["index", "features.npz", "--out", "x"]) == 0
    assert "a space is fitted to 'features' by linear algebra (GCCA)" in capsys.readouterr().out
    with ua.Index.open("x") as index:
        assert index.space is not None
        assert index.search(ua.query(item="7", modalities=["text"]), k=1, target="image", exclude=())[0].modality


def planted(here):
    rng = np.random.default_rng(1)
    latent = rng.standard_normal((300, 32))
    z = {name: unit(latent + 0.05 * rng.standard_normal(latent.shape)) for name in ("image", "text", "audio")}
    z["text"][[10, 200]] = z["text"][[200, 10]]
    for rows in z.values():
        rows[77] = rows[50]
    z["audio"][5] = np.nan
    z["image"][6] = 0
    np.savez("planted.npz", **z, names=np.array([f"item-{i}" for i in range(300)]))
    return z


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_fix_list_has_the_planted_faults_and_removes_items(here, capsys, suffix):
    planted(here)
    assert main(["diagnose", "planted.npz", "--resamples", "100", "--fix-list", f"fix.{suffix}"]) == 0
    text = (here / f"fix.{suffix}").read_text()
    rows = {
        "csv": lambda: list(csv.DictReader(text.splitlines())),
        "json": lambda: json.loads(text)["items"],
        "jsonl": lambda: [json.loads(line) for line in text.splitlines()],
    }[suffix]()
    assert all(row["key"] == f"item-{row['row']}" for row in rows)
    found = {(row["finding"], row["key"]): row for row in rows}
    assert found["mispaired", "item-10"]["modality"] == "text"
    assert found["mispaired", "item-10"]["partner"] == "item-200"
    assert found["mispaired", "item-200"]["action"] == "check"
    assert found["copy", "item-77"]["action"] == "remove"
    assert ("copy", "item-50") not in found  # the first of equal items is kept
    assert (found["nan", "item-5"]["modality"], found["nan", "item-5"]["action"]) == ("audio", "remove")
    assert found["zero", "item-6"]["modality"] == "image"
    assert {key for finding, key in found if finding in ("nan", "zero", "mispaired", "copy")} == {
        f"item-{i}" for i in (5, 6, 10, 77, 200)
    }
    assert f"to remove: 3, in fix.{suffix}" in capsys.readouterr().out

    # An index is made without them, and they can be deleted from one.
    assert main(["index", "store", "--without", f"fix.{suffix}", "--out", "clean"]) == 0
    assert "added 117 items" in capsys.readouterr().out
    assert main(["index", "store", "--out", "dirty"]) == 0
    assert main(["index", "dirty", "--delete-listed", f"fix.{suffix}"]) == 0
    assert "deleted 3 items" in capsys.readouterr().out
    with ua.Index.open("clean") as clean, ua.Index.open("dirty") as dirty:
        assert [item.key for item in clean.items(limit=200)] == [item.key for item in dirty.items(limit=200)]
        assert "item-77" not in clean
        assert "item-50" in clean

    # A store is written without them.
    capsys.readouterr()
    assert main(["data", "drop", "store", "--keys", f"fix.{suffix}", "--out", "clean-store"]) == 0
    assert "clean-store: 117 items, 3 items left out" in capsys.readouterr().out
    store, dropped = (ua.data.EmbeddingStore.open(name) for name in ("store", "clean-store"))
    kept = [i for i in range(120) if i not in (5, 6, 77)]
    assert dropped.item_names == tuple(f"item-{i}" for i in kept)
    np.testing.assert_array_equal(dropped.array("image"), store.array("image")[kept])
    assert main(["data", "drop", "store", "--keys", f"fix.{suffix}", "--out", "clean-store"]) == 2
    assert "clean-store" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_keys_that_look_like_formulas_are_quoted_in_csv_only(tmp_path, suffix):
    keys = ["=1+1", "'quoted", "'=x", "-5", "@a", "plain", "caf\u00e9", "two\nlines", "'"]
    fixes = [Fix(row, key, "image", "nan", 1.0, "remove", "", "") for row, key in enumerate(keys)]
    file = tmp_path / f"fix.{suffix}"
    write_fix_list(file, [*fixes, Fix(9, "kept", "image", "hub", 7.0, "check", "", "")])
    assert read_removed(file) == keys
    assert ("'=1+1" in file.read_text("utf-8")) == (suffix == "csv")


def test_lists_that_cannot_be_used_are_errors(here, capsys):
    planted(here)
    assert main(["diagnose", "planted.npz", "--fix-list", "fix.txt"]) == 2
    assert "must end in .csv, .json or .jsonl" in capsys.readouterr().err
    assert main(["diagnose", "planted.npz", "--against", "planted.npz", "--fix-list", "fix.csv"]) == 2
    assert "cannot be combined with --against" in capsys.readouterr().err
    (here / "bad.csv").write_text("name\na\n")
    assert main(["index", "store", "--without", "bad.csv", "--out", "x"]) == 2
    assert "a column `key`" in capsys.readouterr().err


def test_a_store_without_items_keeps_everything_else(here):
    store = ua.data.EmbeddingStore.open("store")
    found = ua.data.without_items(store, ["item-3", "item-0"])
    kept = [i for i in range(120) if i not in (0, 3)]
    assert found.item_names == tuple(f"item-{i}" for i in kept)
    np.testing.assert_array_equal(found.array("text"), store.array("text")[kept])
    np.testing.assert_array_equal(found.present("text"), store.present("text")[kept])
    np.testing.assert_array_equal(found.labels, store.labels[kept])
    np.testing.assert_array_equal(found.split, store.split[kept])
    assert found.label_names == store.label_names
    found.save("smaller").verify()
    with pytest.raises(ConfigError, match="has no item 'item-x'"):
        ua.data.without_items(store, ["item-x"])
    with pytest.raises(ConfigError, match="no item is left"):
        ua.data.without_items(store, list(store.item_names))


def test_thumbnails_and_texts_of_emoji_follow_their_items():
    store = ua.data.load_dataset("emoji")
    found = ua.data.without_items(store, ["hedgehog"])
    row = store.item_names.index("snowman")
    new = found.item_names.index("snowman")
    assert new == row - 1
    before, after = (
        ua.Index.from_store(store.select(["image"]), calibrate=False),
        ua.Index.from_store(found.select(["image"]), calibrate=False),
    )
    for modality in before.modalities:
        assert before.preview("snowman", modality) == after.preview("snowman", modality)
    assert before.preview("snowman", "image") is not None
    assert "hedgehog" not in after
