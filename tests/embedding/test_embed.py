"""Test what `embed` writes: features, presence, values of items, provenance and assets, for any number of workers."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import embed_prepare
import unialign as ua
from embed_cases import (
    Projection,
    content,
    image_encoder,
    small_encoders,
    small_items,
    text_encoder,
    text_items,
    write_image,
)
from media.media_files import video_bytes
from unialign.config import EmbedConfig
from unialign.data import EmbeddingStore, Thumbnails, encoder_fingerprint
from unialign.embedding import embed_with
from unialign.encoders import encode_media, references_of, wrap
from unialign.errors import ConfigError, DataError, MediaError, NonFiniteError
from unialign.items import Items
from unialign.media import Decoding, load_cell

SMALL = {"batch_size": 4, "part_cells": 8, "progress": "none", "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def items(folder: Path) -> Items:
    return small_items(folder)


@pytest.fixture(scope="module")
def store(items: Items, tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return ua.embed(items, small_encoders(), tmp_path_factory.mktemp("out") / "store", workers=0, **SMALL)


def test_rows_are_the_features_of_the_cells(items: Items, store: EmbeddingStore) -> None:
    for name, encoder in small_encoders().items():
        for row in range(len(items)):
            cell = items.cell(row, name)
            assert store.present(name)[row] == (cell is not None)
            if cell is None:
                assert not store.array(name)[row].any()
                continue
            media = load_cell(cell, items.kinds[name], roots=items.roots)
            expected = encode_media(encoder, [media])[0].numpy()
            np.testing.assert_allclose(store.array(name)[row], expected, rtol=0, atol=1e-6)


def test_values_of_items_are_in_the_store(items: Items, store: EmbeddingStore) -> None:
    assert store.modalities == items.modalities
    assert store.item_names == tuple(items.keys.tolist())
    for name in ("ids", "groups", "labels", "split"):
        np.testing.assert_array_equal(getattr(store, name), getattr(items, name))
    assert store.label_names == items.label_names == ("even", "odd")
    assert store.name == items.name
    store.verify()


def test_provenance_has_the_references_and_no_trace_of_the_run(items: Items, store: EmbeddingStore) -> None:
    encoders = small_encoders()
    columns = store.provenance["columns"]
    assert columns["image"]["encoder"] == "module:pixels"
    assert columns["image"]["input"] == {
        "items": items.fingerprint,
        "cells": 16,
        "cells_sha256": items.column("image")[0].sha256,
        "absent": int((~items.present("image")).sum()),
        "broken": {},
    }
    for name in encoders:
        assert encoder_fingerprint(store, name) == encoders[name].fingerprint
    assert references_of(store) == {name: encoder.reference for name, encoder in encoders.items()}
    assert store.provenance["data"] == {"name": items.name, "fingerprint": items.fingerprint, "license": "unknown"}
    text = json.dumps(store.provenance)
    assert str(store.path) not in text
    assert str(items.roots[0]) not in text


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_give_the_same_bytes(items: Items, store: EmbeddingStore, tmp_path: Path, workers: int) -> None:
    other = ua.embed(items, small_encoders(), tmp_path / "store", workers=workers, **SMALL)
    assert content(tmp_path / "store") == content(store.path)
    assert other.fingerprint == store.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_table_is_an_asset(items: Items, store: EmbeddingStore) -> None:
    assert store.asset("items.jsonl") == b"".join(items.lines())
    assert "broken.jsonl" not in store.assets


def test_thumbnails_of_images(items: Items, store: EmbeddingStore, tmp_path: Path) -> None:
    found = Thumbnails(store.asset("thumbnails.zip"))
    assert set(found) == {("image", row) for row in np.flatnonzero(store.present("image")).tolist()}
    write_image(tmp_path / "large.png", 1, side=200)
    large = Items.from_records([{"image": "large.png"}], kinds={"image": "image"}, root=tmp_path)
    encoders = {"image": image_encoder()}
    wide = ua.embed(large, encoders, tmp_path / "wide", workers=0, thumbnails=32, progress="none")
    with zipfile.ZipFile(wide.path / "assets" / "thumbnails.zip") as archive, archive.open("image/0.webp") as file:
        assert Image.open(file).size == (32, 32)
    without = ua.embed(large, encoders, tmp_path / "without", workers=0, thumbnails=None, progress="none")
    assert without.assets == ("items.jsonl", "marks.jsonl")


def test_ten_captions_of_a_video_encode_it_once(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(video_bytes(range(0, 200, 20)))
    records = [{"id": f"caption {i}", "clip": "clip.mp4", "text": f"caption {i}", "ids": "clip"} for i in range(10)]
    table = Items.from_records(records, kinds={"clip": "video", "text": "text"}, root=tmp_path)
    decoding = Decoding(frames=4)
    clip = wrap(Projection(9, 4), media="video", dim=4, prepare=embed_prepare.numbers, decoding=decoding)
    calls: list[int] = []
    clip.reference  # noqa: B018  the witness calls the module, too
    clip.module.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    store = ua.embed(table, {"clip": clip, "text": text_encoder()}, tmp_path / "store", workers=0, **SMALL)
    assert calls == [1]
    assert store.present("clip").all()
    assert len(np.unique(store.array("clip"), axis=0)) == 1
    assert len(set(store.ids.tolist())) == 1
    assert len(Thumbnails(store.asset("thumbnails.zip")).modalities) == 1


def test_vectors_are_stored_by_an_encoder_without_dim(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    table = Items.from_records([{"sensor": row.tolist()} for row in vectors], kinds={"sensor": "array"})
    store = ua.embed(table, None, tmp_path / "store", workers=0, **SMALL)
    np.testing.assert_array_equal(store.array("sensor"), vectors)
    assert store.provenance["columns"]["sensor"]["encoder"] == "builtin:identity"


def test_an_equal_call_opens_the_finished_store(items: Items, store: EmbeddingStore) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    again = ua.embed(items, small_encoders(), store.path, workers=0, **SMALL)
    assert again.fingerprint == store.fingerprint
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before


def test_another_store_at_the_path_is_not_replaced(items: Items, store: EmbeddingStore, tmp_path: Path) -> None:
    other = small_encoders() | {"text": text_encoder(dim=7)}
    with pytest.raises(DataError, match=r"already exists.*dim of 'text': 5 -> 7.*overwrite='replace'"):
        ua.embed(items, other, store.path, workers=0, **SMALL)
    with pytest.raises(DataError, match=r"dtype: 'float32' -> 'float16'"):
        ua.embed(items, small_encoders(), store.path, workers=0, dtype="float16", **SMALL)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not a store"):
        ua.embed(items, other, tmp_path / "folder", workers=0, **SMALL)
    with pytest.raises(DataError, match="is not a store"):
        ua.embed(items, other, tmp_path / "folder", workers=0, overwrite="replace", **SMALL)
    assert (tmp_path / "folder" / "notes.txt").read_text() == "mine"
    with pytest.raises(DataError, match="is not a store"):
        ua.embed(items, other, tmp_path / "folder" / "notes.txt", workers=0, **SMALL)
    assert not (tmp_path / ".folder.embed").exists()


def test_overwrite_replaces_a_store(items: Items, tmp_path: Path) -> None:
    ua.embed(text_items(["a"]), {"text": text_encoder()}, tmp_path / "store", workers=0, progress="none")
    store = ua.embed(items, small_encoders(), tmp_path / "store", workers=0, overwrite="replace", **SMALL)
    assert store.items == len(items)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_float16_features(items: Items, store: EmbeddingStore, tmp_path: Path) -> None:
    half = ua.embed(items, small_encoders(), tmp_path / "half", workers=0, dtype="float16", **SMALL)
    assert half.array("text").dtype == np.float16
    np.testing.assert_array_equal(half.array("image"), store.array("image").astype(np.float16))


def test_features_that_are_not_finite_stop_the_run(tmp_path: Path) -> None:
    table = text_items(["fine", "worse"])
    broken = text_encoder()
    broken.module.forward = lambda x: (x[:, :5].float() - ord("f")).clamp(max=0) / (x[:, :1] != ord("f"))
    with pytest.raises(
        NonFiniteError, match=r"module:letters of 'text' computed NaN .* value 'fine' \(cell 0 of 'text'\)"
    ):
        ua.embed(table, {"text": broken}, tmp_path / "a", workers=0, progress="none")

    broken = text_encoder()
    with torch.no_grad():
        broken.module.weight[0] = torch.nan
    with pytest.raises(NonFiniteError, match="NaN or infinite features"):
        ua.embed(table, {"text": broken}, tmp_path / "c", workers=0, progress="none")
    large = text_encoder()
    large.module.forward = lambda x: torch.full((len(x), 5), 1e6)
    with pytest.raises(NonFiniteError, match="1e\\+06 does not fit into float16; use dtype='float32'"):
        ua.embed(table, {"text": large}, tmp_path / "b", workers=0, dtype="float16", progress="none")


def test_zero_features_make_a_cell_absent(tmp_path: Path) -> None:
    encoder = text_encoder()
    encoder.module.forward = lambda x: (x[:, :1] != ord("z")).float().expand(-1, 5)
    store = ua.embed(text_items(["a", "zero", "b"]), {"text": encoder}, tmp_path / "store", workers=0, progress="none")
    assert store.present("text").tolist() == [True, False, True]
    (line,) = map(json.loads, store.asset("broken.jsonl").splitlines())
    assert line == {
        "modality": "text",
        "cell": "value 'zero'",
        "source": {"value": "zero"},
        "items": ["1"],
        "count": 1,
        "code": "zero-features",
        "detail": "all features are zero",
    }


def test_broken_cells_are_listed_and_lose_nothing_else(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes((folder / "0.png").read_bytes()[:80])
    (tmp_path / "text.png").write_text("no image")
    write_image(tmp_path / "good.png", 3)
    names = ["cut.png", "good.png", "text.png", "missing.png", "cut.png"]
    records = [{"id": f"i{n}", "image": name, "text": f"t{n}"} for n, name in enumerate(names)]
    table = Items.from_records(records, kinds={"image": "image", "text": "text"}, root=tmp_path)
    for workers in (0, 1):
        store = ua.embed(table, small_encoders(), tmp_path / f"store{workers}", workers=workers, **SMALL)
        assert store.present("image").tolist() == [False, True, False, False, False]
        assert store.present("text").all()
        lines = [json.loads(line) for line in store.asset("broken.jsonl").splitlines()]
        assert [(line["items"], line["count"], line["code"]) for line in lines] == [
            (["i0", "i4"], 2, "truncated"),
            (["i2"], 1, "undecodable"),
            (["i3"], 1, "missing-file"),
        ]
        assert store.provenance["columns"]["image"]["input"]["broken"] == {
            "missing-file": 1,
            "truncated": 1,
            "undecodable": 1,
        }
    assert content(tmp_path / "store0") == content(tmp_path / "store1")
    with pytest.raises(MediaError, match=r"'image' of item 'i0' \(cut.png\)") as caught:
        ua.embed(table, small_encoders(), tmp_path / "strict", workers=0, on_broken="raise", **SMALL)
    assert caught.value.code == "truncated"


def test_too_many_broken_cells_stop_the_run_as_soon_as_it_is_certain(tmp_path: Path) -> None:
    texts = [f"missing{i}.png" for i in range(40)] + ["0.png"]
    write_image(tmp_path / "0.png", 0)
    table = Items.from_records([{"image": text} for text in texts], kinds={"image": "image"}, root=tmp_path)
    encoders = {"image": image_encoder()}
    with pytest.raises(
        DataError, match=r"at least 16 of 41 cells of 'image' are broken \(16 missing-file\), more than 10"
    ):
        ua.embed(table, encoders, tmp_path / "store", workers=0, **SMALL)
    assert not (tmp_path / "store").exists()
    # The first part is kept, and its broken cells count.
    assert len(list((tmp_path / ".store.embed" / "parts" / "image").iterdir())) == 2
    with pytest.raises(DataError, match=r"more than 20 \(max_broken 50.0 %\)"):
        ua.embed(table, encoders, tmp_path / "store", workers=0, max_broken=0.5, **SMALL)
    store = ua.embed(table, encoders, tmp_path / "store", workers=0, max_broken=1.0, **SMALL)
    assert store.present("image").sum() == 1


def test_a_modality_without_any_feature_stops_the_run(tmp_path: Path) -> None:
    table = Items.from_records([{"image": "a.png"}, {"image": "b.png"}], kinds={"image": "image"}, root=tmp_path)
    with pytest.raises(DataError, match="all 2 cells of 'image' are broken"):
        ua.embed(table, {"image": image_encoder()}, tmp_path / "store", workers=0, max_broken=1.0, **SMALL)
    empty = Items.from_records([{"image": None, "text": "a"}], kinds={"image": "image", "text": "text"})
    with pytest.raises(DataError, match="no item has a cell of 'image'"):
        ua.embed(empty, small_encoders(), tmp_path / "store", workers=0, **SMALL)


def test_hashes_of_files(folder: Path, items: Items, tmp_path: Path) -> None:
    store = ua.embed(items, small_encoders(), tmp_path / "store", workers=1, hash=True, **SMALL)
    lines = [json.loads(line) for line in store.asset("files.jsonl").splitlines()]
    hashes = content(folder)
    names = [cell.path for cell in items.column("image")[0]]
    assert {line["source"]["path"]: line["sha256"] for line in lines} == {name: hashes[name] for name in names}


def test_columns_of_another_store_are_reused(items: Items, store: EmbeddingStore, tmp_path: Path) -> None:
    config = EmbedConfig(batch_size=4, part_cells=8, threads=1, workers=0)
    other = small_encoders() | {"text": text_encoder(dim=9)}
    outcome = embed_with(config, items, other, tmp_path / "store", reuse=store, progress="none")
    assert (outcome.reused, outcome.computed) == (2, 2)
    fresh = ua.embed(items, other, tmp_path / "fresh", workers=0, **SMALL)
    assert content(outcome.store.path) == content(fresh.path)
    # A table with other rows, but the same cells.
    shuffled = items.rows_of(np.argsort([0 if row < 17 else 1 for row in range(len(items))], stable=True)).with_ids(
        None
    )
    outcome = embed_with(config, shuffled, small_encoders(), tmp_path / "rows", reuse=store, progress="none")
    assert outcome.reused > 0
    fresh = ua.embed(shuffled, small_encoders(), tmp_path / "rows-fresh", workers=0, **SMALL)
    assert content(outcome.store.path) == content(fresh.path)
    # Other settings: nothing is copied.
    outcome = embed_with(config.replace(dtype="float16"), items, small_encoders(), tmp_path / "half", reuse=store)
    assert outcome.reused == 0


def test_a_finished_store_of_other_files_is_not_returned(tmp_path: Path) -> None:
    encoders = {"image": image_encoder()}
    for folder, seed in {"a": 0, "b": 100}.items():
        for i in range(9):
            write_image(tmp_path / folder / f"{i}.png", seed + i)
    first, second = (
        Items.from_records([{"image": f"{i}.png"} for i in range(9)], kinds={"image": "image"}, root=tmp_path / folder)
        for folder in ("a", "b")
    )
    options: Any = {"workers": 0, **SMALL}
    before_NW = np.array(ua.embed(first, encoders, tmp_path / "store", **options).array("image"))
    with pytest.raises(DataError, match=r"9 files differ from those that were encoded: 0\.png, .*another path"):
        ua.embed(second, encoders, tmp_path / "store", **options)
    write_image(tmp_path / "a" / "4.png", 50)
    with pytest.raises(DataError, match=r"1 file differs from those that were encoded: 4\.png; "):
        ua.embed(first, encoders, tmp_path / "store", **options)
    again = ua.embed(first, encoders, tmp_path / "store", allow_changed=True, **options)
    assert (again.array("image") != before_NW).any(axis=1).tolist() == [i == 4 for i in range(9)]
    assert ua.embed(first, encoders, tmp_path / "store", **options).fingerprint == again.fingerprint


def test_a_moved_folder_gives_the_finished_store(tmp_path: Path) -> None:
    encoders: Any = {"image": image_encoder()}
    write_image(tmp_path / "a" / "0.png", 0)
    records = [{"image": "0.png"}]
    table = Items.from_records(records, kinds={"image": "image"}, root=tmp_path / "a")
    store = ua.embed(table, encoders, tmp_path / "store", workers=0, **SMALL)
    (tmp_path / "a").rename(tmp_path / "moved")
    table = Items.from_records(records, kinds={"image": "image"}, root=tmp_path / "moved")
    assert ua.embed(table, encoders, tmp_path / "store", workers=0, **SMALL).fingerprint == store.fingerprint


def test_features_of_other_files_are_not_reused(tmp_path: Path) -> None:
    encoders: Any = {"image": image_encoder()}
    tables = []
    for folder in ("a", "b"):
        for i in range(16):
            write_image(tmp_path / folder / f"{i}.png", i if folder == "a" or i < 12 else 100 + i)
        records = [{"image": f"{i}.png"} for i in range(16)]
        tables.append(Items.from_records(records, kinds={"image": "image"}, root=tmp_path / folder))
    config = EmbedConfig(batch_size=4, part_cells=8, threads=1, workers=0)
    store = embed_with(config, tables[0], encoders, tmp_path / "a-store", progress="none").store
    outcome = embed_with(config, tables[1], encoders, tmp_path / "b-store", reuse=store, progress="none")
    assert (outcome.reused, outcome.computed) == (1, 1)
    fresh = ua.embed(tables[1], encoders, tmp_path / "fresh", workers=0, **SMALL)
    assert content(outcome.store.path) == content(fresh.path)


def test_broken_cells_of_a_finished_store_are_retried(folder: Path, tmp_path: Path) -> None:
    for i in range(9):
        write_image(tmp_path / f"{i}.png", i)
    whole = (tmp_path / "4.png").read_bytes()
    (tmp_path / "4.png").write_bytes(whole[:60])
    table = Items.from_records([{"image": f"{i}.png"} for i in range(9)], kinds={"image": "image"}, root=tmp_path)
    encoders = {"image": image_encoder()}
    store = ua.embed(table, encoders, tmp_path / "store", workers=0, **SMALL)
    assert not store.present("image")[4]
    (tmp_path / "4.png").write_bytes(whole)
    assert not ua.embed(table, encoders, tmp_path / "store", workers=0, **SMALL).present("image")[4]
    config = EmbedConfig(batch_size=4, part_cells=8, threads=1, workers=0, retry_broken=True)
    outcome = embed_with(config, table, encoders, tmp_path / "store", progress="none")
    assert outcome.store.present("image").all()
    assert (outcome.computed, outcome.reused) == (1, 1)
    fresh = ua.embed(table, encoders, tmp_path / "fresh", workers=0, **SMALL)
    assert content(tmp_path / "store") == content(fresh.path)


def test_errors_of_the_store_come_before_encoding(tmp_path: Path, items: Items) -> None:
    crossing = items.with_groups(["one"] * len(items))
    calls: list[int] = []
    encoders = small_encoders()
    encoders["image"].reference  # noqa: B018
    encoders["image"].module.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(DataError, match="group 0 crosses splits"):
        ua.embed(crossing, encoders, tmp_path / "store", workers=0, **SMALL)
    split = np.array(items.split)
    split[3] = -1
    with pytest.raises(DataError, match="1 of 23 items have no split, among them 'item 3'"):
        ua.embed(items.with_split(split), encoders, tmp_path / "store", workers=0, **SMALL)
    assert not calls


def test_options_are_checked(items: Items, tmp_path: Path) -> None:
    cases = {
        "part_cells": (10, "not a multiple of batch_size 4; use 8"),
        "max_broken": (2, r"a number in \[0, 1\]"),
        "workers": (-1, "workers"),
        "engine": ("spark", "engine"),
        "limits": ({"pixel": 3}, "unknown entry 'pixel' of limits"),
        "resume": ("must", "resume"),
        "ray_address": ("auto", "engine is 'local'"),
        "dtype": ("float64", "dtype"),
    }
    for name, (value, message) in cases.items():
        with pytest.raises(ConfigError, match=message):
            ua.embed(items, small_encoders(), tmp_path / "store", **{**SMALL, name: value})
    with pytest.raises(ConfigError, match="'text' has no encoder"):
        ua.embed(items, {"image": image_encoder()}, tmp_path / "store", **SMALL)


def test_the_root_folder_is_no_store() -> None:
    """Regression test: the name of the work folder beside "/" raised ValueError."""
    with pytest.raises(DataError, match="the store cannot be the root folder /"):
        ua.embed(text_items(["a"]), {"text": text_encoder()}, "/", workers=0, progress="none")


def test_restricted_licenses_must_be_accepted(tmp_path: Path) -> None:
    encoder = text_encoder()
    encoder._reference["license"] = "CC-BY-NC-ND-4.0"
    table = text_items(["a"])
    with pytest.raises(ConfigError, match=r"--accept-license CC-BY-NC-ND-4\.0"):
        ua.embed(table, {"text": encoder}, tmp_path / "store", workers=0, progress="none")
    store = ua.embed(
        table, {"text": encoder}, tmp_path / "store", workers=0, progress="none", accept_licenses=["CC-BY-NC-ND-4.0"]
    )
    assert store.provenance["columns"]["text"]["license"] == "CC-BY-NC-ND-4.0"
