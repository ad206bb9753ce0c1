"""Test the contents of stores that are read from a folder, created in memory, or saved and loaded again."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError

Maker = Callable[..., EmbeddingStore]


@pytest.fixture(params=["folder", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Maker:
    if request.param == "memory":
        return EmbeddingStore.from_arrays
    return lambda columns, **options: EmbeddingStore.write(tmp_path / "made", columns, **options)


def test_a_store_returns_all_its_content(make: Maker, columns: dict[str, Any], options: dict[str, Any]) -> None:
    store = make(columns, **options)
    assert store.items == 12
    assert store.columns == ("image", "text", "audio")
    assert store.modalities == ("text", "image")
    for name, array in columns.items():
        assert store.dim(name) == array.shape[1]
        assert store.array(name).dtype == array.dtype
        np.testing.assert_array_equal(store.array(name), array)
    assert store.present("image").all()
    np.testing.assert_array_equal(store.present("audio"), options["present"]["audio"])
    for kind in ("ids", "groups", "labels"):
        np.testing.assert_array_equal(getattr(store, kind), options[kind])
        assert getattr(store, kind).dtype == np.int64
    assert store.split.tolist() == [0] * 6 + [1] * 2 + [2] * 4
    assert store.rows("val").tolist() == [6, 7]
    assert store.rows("val").dtype == np.int64
    assert store.label_names == ("cat", "dog")
    assert store.item_names == tuple(options["names"])
    assert store.provenance == options["provenance"]
    assert store.assets == ("thumbnails.zip",)
    assert store.asset("thumbnails.zip") == b"not really a zip"
    store.verify()


def test_defaults(make: Maker, columns: dict[str, Any]) -> None:
    store = make(columns)
    assert store.modalities == ("image", "text", "audio")
    assert store.ids.tolist() == store.groups.tolist() == store.rows("train").tolist() == list(range(12))
    assert store.labels.tolist() == [-1] * 12
    assert store.rows("val").size == store.rows("test").size == 0
    assert store.item_names[11] == "item 11"
    assert (store.label_names, store.assets, store.provenance) == ((), (), {})


def test_arrays_cannot_be_written(make: Maker, columns: dict[str, Any], options: dict[str, Any]) -> None:
    store = make(columns, **options)
    for array in (store.array("image"), store.present("image"), store.present("audio"), store.ids, store.split):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    columns["image"][0] = 1


def test_absent_rows_keep_their_values(make: Maker, columns: dict[str, Any]) -> None:
    columns["text"][3] = np.nan
    columns["text"][4] = 0
    present = np.ones(12, dtype=bool)
    present[3:5] = False
    store = make(columns, present={"text": present})
    assert np.isnan(store.array("text")[3]).all()
    assert not store.array("text")[4].any()


def test_memory_and_folder_have_one_fingerprint(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any]
) -> None:
    in_memory = EmbeddingStore.from_arrays(columns, **options)
    assert EmbeddingStore.write(tmp_path / "a", columns, **options).fingerprint == in_memory.fingerprint
    assert in_memory.path is None
    assert (in_memory.name, EmbeddingStore.open(tmp_path / "a").name) == ("arrays", "a")


def test_name_outlives_the_folder(tmp_path: Path, columns: dict[str, Any]) -> None:
    EmbeddingStore.write(tmp_path / "a", columns, name="my data")
    (tmp_path / "a").rename(tmp_path / "b")
    assert EmbeddingStore.open(tmp_path / "b").name == "my data"


def test_tensors_are_accepted(make: Maker) -> None:
    x = torch.randn(5, 3, requires_grad=True)
    y = torch.nn.functional.normalize(torch.randn(3, 5), dim=0).half().T  # This array is not contiguous.
    store = make({"x": x, "y": y}, ids=torch.arange(5) // 2, present={"x": torch.ones(5, dtype=torch.bool)})
    np.testing.assert_array_equal(store.array("x"), x.detach().numpy())
    np.testing.assert_array_equal(store.array("y"), y.numpy())


@pytest.mark.parametrize("layout", ["fortran", "strided", "big-endian", "memory map"])
def test_any_memory_layout_is_accepted(layout: str, make: Maker, tmp_path: Path) -> None:
    array = np.arange(1, 25, dtype=np.float32).reshape(6, 4)
    np.save(tmp_path / "map.npy", array)
    given = {
        "fortran": np.asfortranarray(array),
        "strided": np.repeat(array, 2, axis=0)[::2],
        "big-endian": array.astype(">f4"),
        "memory map": np.load(tmp_path / "map.npy", mmap_mode="r"),
    }[layout]
    store = make({"x": given})
    np.testing.assert_array_equal(store.array("x"), array)
    assert store.array("x").dtype == np.dtype("=f4")
    assert store.fingerprint == EmbeddingStore.from_arrays({"x": array}).fingerprint


def test_columns_larger_than_a_chunk(tmp_path: Path) -> None:
    array = np.random.default_rng(1).normal(size=(700, 2000))  # The array has 11 MB, which takes several chunks.
    store = EmbeddingStore.write(tmp_path / "s", {"x": array})
    np.testing.assert_array_equal(store.array("x"), array)
    store.verify()


@pytest.mark.filterwarnings("ignore:id .* crosses splits")
@given(
    data=st.data(),
    items=st.integers(1, 9),
    splits=st.lists(st.sampled_from(["train", "val", "test"]), min_size=9, max_size=9),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip_of_anything(
    data: st.DataObject, items: int, splits: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    dtype = data.draw(st.sampled_from([np.float16, np.float32, np.float64]))
    array = data.draw(hnp.arrays(dtype, (items, data.draw(st.integers(1, 5)))))
    present = np.isfinite(array).all(axis=1) & array.any(axis=1)
    labels = data.draw(hnp.arrays(np.int64, items, elements=st.integers(-1, 2**62)))
    ids = data.draw(hnp.arrays(np.int64, items))
    path = tmp_path_factory.mktemp("any") / "s"
    options: dict[str, Any] = {"present": {"x": present}, "labels": labels, "ids": ids, "split": splits[:items]}
    EmbeddingStore.write(path, {"x": array}, **options)
    store = EmbeddingStore.open(path)
    np.testing.assert_array_equal(store.array("x"), array)
    np.testing.assert_array_equal(store.present("x"), present)
    np.testing.assert_array_equal(store.labels, labels)
    np.testing.assert_array_equal(store.ids, ids)
    assert [["train", "val", "test"][code] for code in store.split] == splits[:items]
    assert store.fingerprint == EmbeddingStore.from_arrays({"x": array}, **options).fingerprint


# --- selection of columns -------------------------------------------------------------------------------------------


def test_select_changes_the_default_modalities_only(make: Maker, columns: dict[str, Any]) -> None:
    store = make(columns)
    chosen = store.select(["audio", "image"])
    assert chosen.modalities == ("audio", "image")
    assert chosen.columns == store.columns
    assert chosen.fingerprint == store.fingerprint
    assert store.modalities == ("image", "text", "audio")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["image", "smell"], "unknown column 'smell'.*'image', 'text', 'audio'"),
        ([], "at least one"),
        (["text"] * 2, "no repeated names"),
        ("text", "list"),
    ],
)
def test_select_rejects(store: EmbeddingStore, chosen: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        store.select(chosen)


@pytest.mark.parametrize("method", ["array", "present", "dim"])
def test_unknown_column_lists_the_columns(store: EmbeddingStore, method: str) -> None:
    with pytest.raises(ConfigError, match="'smell'; the store has 'image', 'text', 'audio'"):
        getattr(store, method)("smell")


def test_unknown_split_and_asset(store: EmbeddingStore) -> None:
    with pytest.raises(ConfigError, match="'dev'; expected one of 'train', 'val', 'test'"):
        store.rows("dev")
    with pytest.raises(ConfigError, match=r"'sounds\.zip'; the store has 'thumbnails\.zip'"):
        store.asset("sounds.zip")


# --- the fingerprint ----------------------------------------------------------------------------------------------


def _change(columns: dict[str, Any], options: dict[str, Any], what: str) -> None:
    if what == "one number":
        columns["image"][5, 1] = np.nextafter(columns["image"][5, 1], np.float32(9))
    elif what == "dtype":
        columns["text"] = columns["text"].astype(np.float32)
    elif what == "column name":
        columns["sound"] = columns.pop("audio")
        options["present"] = {"sound": options["present"].pop("audio")}
    elif what == "presence":
        options["present"]["audio"][1] = False
    elif what == "provenance":
        options["provenance"] = {**options["provenance"], "source": "elsewhere"}
    elif what == "column provenance":
        options["provenance"] = {**options["provenance"], "columns": {"image": {"model": "other"}}}
    elif what == "split":
        options["split"] = ["train"] * 8 + ["test"] * 4
    elif what == "nothing":
        pass
    elif what == "order of columns":
        columns["image"] = columns.pop("image")
    elif what == "item names":
        options["names"] = None
    elif what == "modalities":
        options["default_modalities"] = ["audio"]
    else:
        options[what] = np.roll(options[what], 2)


@pytest.mark.parametrize(
    "what",
    [
        "one number",
        "dtype",
        "column name",
        "presence",
        "provenance",
        "column provenance",
        "ids",
        "groups",
        "labels",
        "split",
    ],
)
def test_fingerprint_changes_with(what: str, columns: dict[str, Any], options: dict[str, Any]) -> None:
    before = EmbeddingStore.from_arrays(columns, **options).fingerprint
    _change(columns, options, what)
    assert EmbeddingStore.from_arrays(columns, **options).fingerprint != before


@pytest.mark.parametrize("what", ["nothing", "order of columns", "item names", "modalities"])
def test_fingerprint_stays_with(what: str, columns: dict[str, Any], options: dict[str, Any]) -> None:
    before = EmbeddingStore.from_arrays(columns, **options).fingerprint
    _change(columns, options, what)
    assert EmbeddingStore.from_arrays(columns, **options).fingerprint == before


def test_explicit_defaults_have_the_same_fingerprint(columns: dict[str, Any]) -> None:
    spelled = EmbeddingStore.from_arrays(
        columns,
        present={"text": np.ones(12, dtype=bool)},
        ids=np.arange(12),
        labels=np.full(12, -1),
        split=["train"] * 12,
    )
    assert spelled.fingerprint == EmbeddingStore.from_arrays(columns).fingerprint


def test_check_fingerprint_names_both_revisions(store: EmbeddingStore) -> None:
    store.check_fingerprint(store.fingerprint)
    with pytest.raises(DataError, match=f"{store.fingerprint}.*{'0' * 64}.*use the expected revision"):
        store.check_fingerprint("0" * 64)


def test_verify_notices_a_change_in_memory(columns: dict[str, Any]) -> None:
    store = EmbeddingStore.from_arrays(columns)
    store.verify()
    columns["text"][2, 1] += 1
    with pytest.raises(DataError, match=r"text\.npy.*altered"):
        store.verify()


# --- cost ---------------------------------------------------------------------------------------------------------


def test_open_reads_one_file(store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = os.open

    def spy(path: Any, *rest: Any, **more: Any) -> int:
        opened.append(Path(path).name)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", spy)
    assert store.path is not None
    again = EmbeddingStore.open(store.path)
    _ = (again.items, again.modalities, again.dim("text"), again.fingerprint, again.label_names, repr(again))
    assert opened == ["store.json"]
    again.array("text")
    again.array("text")
    assert opened == ["store.json", "text.npy"]


def test_open_takes_milliseconds_at_any_size(store: EmbeddingStore, edit: Callable[..., None]) -> None:
    items, header = 500_000_000, 128
    folder = store.path
    assert folder is not None
    array = np.lib.format.open_memmap(folder / "arrays" / "text.npy", "w+", np.dtype("<f2"), (1, 64))
    del array
    with (folder / "arrays" / "text.npy").open("r+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (items, 64)})
        assert file.tell() == header
        file.truncate(header + items * 128)  # This creates a sparse file of 64 GB.

    def grow(body: dict[str, Any]) -> None:
        body["items"] = items
        body["columns"] = {"text": {**body["columns"]["text"], "dim": 64}}
        body["columns"]["text"]["array"]["bytes"] = header + items * 128
        body["default_modalities"] = ["text"]

    edit(folder, grow)
    start = time.perf_counter()
    huge = EmbeddingStore.open(folder)
    row = huge.array("text")[items - 1]
    assert time.perf_counter() - start < 0.5
    assert row.shape == (64,)


def test_no_torch(store: EmbeddingStore) -> None:
    script = f"""
import sys
from unialign import data
store = data.EmbeddingStore.open({str(store.path)!r})
store.verify()
assert store.array("image").shape == (12, 4)
assert "torch" not in sys.modules
"""
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )


def test_pickling_carries_no_arrays(tmp_path: Path) -> None:
    store = EmbeddingStore.write(tmp_path / "s", {"x": np.ones((10_000, 64))})
    store.array("x")
    packed = pickle.dumps(store.select(["x"]))
    assert len(packed) < 10_000
    np.testing.assert_array_equal(pickle.loads(packed).array("x")[-1], 1)
