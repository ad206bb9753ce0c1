"""Test the folder of an index: changes, generations, damage, limits of the disk, and hostile files."""

import os
import pickle
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua
from unialign.errors import ConfigError, DataError, NonFiniteError, ShapeError
from unialign.index import _index, _storage

DIM = 8
MODALITIES = ("image", "text", "audio")


def rows(count: int, seed: int = 0, modalities: tuple[str, ...] = MODALITIES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(count, DIM)).astype(np.float32) for name in modalities}


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[ua.Index]:
    with ua.Index.create(tmp_path / "index", dim=DIM, modalities=MODALITIES) as made:
        yield made


def filled(index: ua.Index, count: int = 30, seed: int = 0) -> dict[str, np.ndarray]:
    data = rows(count, seed)
    index.add(
        data,
        present={"text": np.arange(count) % 3 != 0, "audio": np.arange(count) % 5 == 0},
        labels=[None if n % 7 == 0 else "abc"[n % 3] for n in range(count)],
        metadata=[{"price": n, "name": f"n{n}", "flag": n % 2 == 0} if n % 4 else None for n in range(count)],
        previews=[{"text": ("text/plain", f"text {n}".encode())} if n % 2 else None for n in range(count)],
    )
    return data


def content(index: ua.Index) -> dict[str, Any]:
    """All that an index says about its items."""
    found = {}
    for item in index.items(limit=10_000):
        stored = index.get(item.key)
        found[item.key] = (
            item.name,
            item.label,
            dict(item.metadata),
            {name: row.tobytes() for name, row in stored.rows.items()},
            {name: index.preview(item.key, name) for name in index.modalities},
        )
    return found


def test_items_return_what_was_added(index: ua.Index) -> None:
    data = filled(index)
    assert len(index) == 30
    assert "29" in index
    assert "30" not in index
    item = index.get("10")
    assert item.label == "b"
    assert item.metadata == {"price": 10, "name": "n10", "flag": True}
    assert item.modalities == ("image", "text", "audio")
    for name in item.modalities:
        np.testing.assert_allclose(item.rows[name], unit(data[name][10]), atol=1e-6)
    assert index.get("3").modalities == ("image",)
    assert index.get("4").metadata == {}
    assert type(index.get("1").metadata["flag"]) is bool
    assert index.preview("1", "text") == ("text/plain", b"text 1")
    assert index.preview("2", "text") is None
    assert index.labels == {"c": 9, "a": 8, "b": 8}
    assert index.fields == ["flag", "name", "price"]
    assert [item.key for item in index.items(limit=2)] == ["0", "1"]
    assert [item.key for item in index.items(after="27", limit=5)] == ["28", "29"]
    assert [item.key for item in index.items(where="price > 26")] == ["27", "29"]
    assert index.verify() == []


def test_reopened_index_has_the_same_content(index: ua.Index) -> None:
    filled(index)
    expected = content(index)
    with ua.Index.open(str(index.path)) as reader:
        assert content(reader) == expected
        assert reader.generation == index.generation
        with pytest.raises(ConfigError, match="mode='w'"):
            reader.delete(keys=["1"])


def test_update_keeps_what_is_not_given(index: ua.Index) -> None:
    filled(index)
    new = np.arange(1, DIM + 1, dtype=np.float32)
    index.update("10", {"audio": new, "text": None}, metadata={"price": 7.5, "name": None})
    item = index.get("10")
    assert item.modalities == ("image", "audio")
    assert item.label == "b"
    assert item.metadata == {"price": 7.5, "flag": True}
    np.testing.assert_allclose(item.rows["audio"], unit(new), atol=1e-7)
    assert index.update("11", label="z") == (index.generation, 0, 1, 0)
    assert index.get("11").label == "z"
    assert index.preview("11", "text") == ("text/plain", b"text 11")
    index.update("11", {"text": new})
    assert index.preview("11", "text") is None, "a preview of a changed row is outdated"
    assert len(index) == 30
    assert index.verify() == []
    with pytest.raises(ConfigError, match="'3' would have no modality"):
        index.update("3", {"image": None})
    with pytest.raises(ConfigError, match="no item 'x'"):
        index.update("x", label="a")
    with pytest.raises(NonFiniteError, match=r"'image' row 0 \(item '5'\)"):
        index.update("5", {"image": np.full(DIM, np.nan)})


def test_conflicts(index: ua.Index) -> None:
    index.add(rows(2), keys=["a", "b"])
    before = index.generation
    with pytest.raises(ConfigError, match="already has an item 'b'"):
        index.add(rows(2, 1), keys=["c", "b"])
    assert index.generation == before
    assert "c" not in index
    assert index.add(rows(2, 1), keys=["c", "b"], on_conflict="skip")[1:] == (1, 0, 0)
    np.testing.assert_allclose(index.get("b").rows["text"], unit(rows(2)["text"][1]), atol=1e-6)
    assert index.add(rows(2, 2), keys=["d", "b"], on_conflict="replace")[1:] == (1, 1, 0)
    np.testing.assert_allclose(index.get("b").rows["text"], unit(rows(2, 2)["text"][1]), atol=1e-6)
    assert len(index) == 4
    assert index.verify() == []


def test_default_keys_are_new_numbers(index: ua.Index) -> None:
    index.add(rows(3))
    index.delete(keys=["0"])
    index.add(rows(2))
    with index.batch():
        index.add(rows(2))
        index.add(rows(1))
    assert sorted(item.key for item in index.items()) == ["1", "2", "3", "4", "5", "6", "7"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": {"smell": np.ones((1, DIM))}}, ConfigError, "unknown modality 'smell'"),
        ({"data": {"image": np.ones((1, DIM + 1))}}, ShapeError, "'image' has shape"),
        ({"data": {"image": np.zeros((1, DIM))}}, NonFiniteError, "'image' row 0 .item 'k'"),
        ({"keys": [""]}, ConfigError, "non-empty strings"),
        ({"keys": ["x\ud800"]}, ConfigError, "not valid Unicode"),
        ({"keys": ["a", "b"]}, ConfigError, "list of 1 strings"),
        ({"labels": ["\udfff"]}, ConfigError, "not valid Unicode"),
        ({"metadata": [{"price": float("nan")}]}, ConfigError, "must be finite"),
        ({"metadata": [{"price": 1 << 63}]}, ConfigError, "64 bits"),
        ({"metadata": [{"price": [1]}]}, ConfigError, "type list"),
        ({"metadata": [{"label": 1}]}, ConfigError, "`label` and `key`"),
        ({"metadata": []}, ConfigError, "one entry for each"),
        ({"on_conflict": "maybe"}, ConfigError, "on_conflict"),
    ],
)
def test_invalid_items_change_nothing(
    index: ua.Index, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"data": {"image": np.ones((1, DIM))}, "keys": ["k"]} | change
    with pytest.raises(error, match=message):
        index.add(given.pop("data"), **given)
    assert len(index) == 0
    assert index.generation == 0


def test_batch_is_one_commit_or_nothing(index: ua.Index) -> None:
    filled(index)
    before, generation = content(index), index.generation

    def stop() -> None:
        with index.batch():
            index.delete(keys=["1"])
            index.add(rows(1), keys=["x"])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert content(index) == before
    assert index.generation == generation
    with index.batch():
        index.delete(keys=["1", "2"])
        index.add(rows(2), keys=["x", "1"])
        index.update("x", label="new")
        index.update("5", metadata={"price": 99})
        index.delete(keys=["1"])
    assert index.generation == generation + 1
    assert "1" not in index
    assert index.get("x").label == "new"
    assert index.get("5").metadata["price"] == 99
    assert len(index) == 29
    assert index.verify() == []


def test_reader_keeps_its_generation_until_refresh(index: ua.Index) -> None:
    filled(index)
    expected = content(index)
    query = ua.query(vector=np.ones(DIM), modality="image")
    with ua.Index.open(str(index.path)) as reader:
        found = reader.search(query, k=5).keys
        index.delete(keys=[found[0]])
        index.update(found[1], {"image": -np.ones(DIM)})
        index.compact(everything=True)
        assert content(reader) == expected
        assert reader.search(query, k=5).keys == found
        assert reader.refresh()
        assert not reader.refresh()
        assert content(reader) == content(index)
        assert found[0] not in reader.search(query, k=5).keys


def test_compaction_keeps_the_content(index: ua.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        index.add(rows(20, seed), labels=["a"] * 20, metadata=[{"n": n} for n in range(20)])
    filled_keys = [str(n) for n in range(0, 80, 3)]
    index.delete(keys=filled_keys)
    expected = content(index)
    monkeypatch.setattr(_index, "MOST_ITEMS", 25)
    index.compact()
    assert content(index) == expected
    assert index.stats()["dead_items"] == 0
    assert index.stats()["parts"] == 3
    assert index.verify() == []
    generation = index.generation
    monkeypatch.setattr(_index, "_SMALL", 1)
    index.compact()
    assert index.generation == generation, "nothing is left to compact"


def test_small_parts_are_merged(index: ua.Index) -> None:
    for number in range(34):
        index.add(rows(1, number), keys=[f"k{number}"])
    assert index.stats()["parts"] <= 2
    assert len(index) == 34
    assert index.verify() == []


def test_retired_parts_leave_the_disk_later(index: ua.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(index)
    folder = index.path
    assert folder is not None
    index.delete(keys=["0", "1"])
    index.compact(everything=True)
    assert len(list((folder / "parts").iterdir())) == 2, "readers may need the old part"
    index.close()
    monkeypatch.setattr(_storage, "_GRACE", -1.0)
    with ua.Index.open(folder, mode="w") as again:
        assert len(list((folder / "parts").iterdir())) == 1
        assert again.preview("3", "text") == ("text/plain", b"text 3")
        assert len(again) == 28
        assert again.verify() == []


def test_orphans_are_deleted_by_the_next_writer(index: ua.Index) -> None:
    filled(index)
    folder = index.path
    assert folder is not None
    index.close()
    for name in ("parts/00000009-00000000", "derived/x", "calibrations/00000007", "parts/.z.0123456789ab.partial"):
        (folder / name).mkdir()
        (folder / name / "z.image.npy").write_bytes(b"x")
    ua.Index.open(folder).close()
    assert (folder / "derived/x").exists()
    with ua.Index.open(folder, mode="w") as again:
        assert len(list((folder / "parts").iterdir())) == 1
        assert not (folder / "derived/x").exists()
        assert again.verify() == []


def test_two_writers(index: ua.Index) -> None:
    filled(index)
    with pytest.raises(ConfigError, match="another run is writing the index"):
        ua.Index.open(str(index.path), mode="w")
    index.close()
    ua.Index.open(str(index.path), mode="w").close()
    with pytest.raises(ConfigError, match="open it again if it was closed"):
        index.get("1")


def test_first_items_calibrate(index: ua.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _index.CALIBRATED_FROM == 500
    monkeypatch.setattr(_index, "CALIBRATED_FROM", 100)
    shared = np.random.default_rng(0).normal(size=(120, DIM))
    index.add({"image": shared[:80] + 4, "text": shared[:80] - 4})
    assert index.calibration.method == "none"
    assert index.generation == 1
    index.add({"image": shared[80:] + 4, "text": shared[80:] - 4})
    assert index.calibration.reason != "the index is not calibrated"
    assert index.generation == 3
    folder = str(index.path)
    query = ua.query(item="5")
    expected = index.search(query)
    with ua.Index.open(folder) as reader:
        assert reader.calibration.method == index.calibration.method
        assert [(hit.key, hit.score) for hit in reader.search(query)] == [(hit.key, hit.score) for hit in expected]


def calibrated(index: ua.Index) -> Path:
    shared = np.random.default_rng(0).normal(size=(200, DIM))
    index.add({"image": shared + 1, "text": shared - 1})
    index.calibrate(method="center")
    folder = index.path
    assert folder is not None
    return folder


def test_damaged_derived_numbers_are_computed_again(index: ua.Index) -> None:
    folder = calibrated(index)
    expected = [(hit.key, hit.score) for hit in index.search(ua.query(item="5"))]
    target = next((folder / "derived").iterdir())
    (target / "inner.npy").unlink()
    with ua.Index.open(folder) as reader, pytest.warns(UserWarning, match=r"inner.npy.*computed again"):
        found = reader.search(ua.query(item="5"))
    assert [hit.key for hit in found] == [key for key, _ in expected]
    np.testing.assert_allclose([hit.score for hit in found], [score for _, score in expected], atol=1e-6)
    assert any("inner.npy" in problem for problem in index.verify())


def test_damaged_calibration_can_be_replaced(index: ua.Index) -> None:
    folder = calibrated(index)
    index.close()
    target = next((folder / "calibrations").iterdir())
    (target / "calibration.json").write_bytes(b"{")
    with pytest.raises(DataError, match="calibrate the index again"):
        ua.Index.open(folder)
    with pytest.warns(UserWarning, match="calibrate the index again"):
        writer = ua.Index.open(folder, mode="w")
    with writer:
        writer.calibrate(method="center")
        assert writer.verify() == []
    with ua.Index.open(folder) as reader:
        assert reader.calibration.method == "center"


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ 1 << bit]))


def test_verify_notices_every_flipped_bit_in_files(index: ua.Index) -> None:
    folder = calibrated(index)
    rng = np.random.default_rng(0)
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix in (".npy", ".json", ".safetensors")]
    assert len(files) >= 8
    for path in files:
        for _ in range(6):
            offset, bit = int(rng.integers(path.stat().st_size)), int(rng.integers(8))
            flip(path, offset, bit)
            assert any(path.name in problem for problem in index.verify()), (path, offset, bit)
            flip(path, offset, bit)
    assert index.verify() == []


def observed(folder: Path) -> dict[str, Any]:
    with ua.Index.open(folder) as reader:
        return content(reader) | {"": (reader.calibration.method, reader.generation, reader.labels, reader.fields)}


def test_flipped_bits_in_the_database_are_noticed_or_change_nothing(index: ua.Index, tmp_path: Path) -> None:
    filled(index, 25)
    index.delete(keys=["2", "9"])
    index.update("5", label="q")
    folder = index.path
    assert folder is not None
    index.close()
    expected = observed(folder)
    rng = np.random.default_rng(0)
    # Most of the bytes that are zero belong to no row.
    used = np.flatnonzero(np.frombuffer((folder / "index.sqlite").read_bytes(), np.uint8))
    noticed = 0
    for number in range(60):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        flip(copy / "index.sqlite", int(rng.choice(used)), int(rng.integers(8)))
        try:
            with ua.Index.open(copy) as reader:
                problems = reader.verify()
            if problems:
                noticed += 1
            else:
                assert observed(copy) == expected, number
        except DataError:
            noticed += 1
        shutil.rmtree(copy)
    assert noticed > 30


@pytest.mark.parametrize("damage", ["missing", "truncated", "link", "pickle", "objects", "huge", "fortran"])
def test_damaged_part(index: ua.Index, damage: str, tmp_path: Path) -> None:
    filled(index)
    folder = index.path
    assert folder is not None
    index.close()
    path = next((folder / "parts").iterdir()) / "z.image.npy"
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[:-4])
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(np.zeros(3)).ljust(len(data)))
    elif damage == "objects":
        np.save(path, np.full(29, None), allow_pickle=True)
        path.write_bytes(path.read_bytes()[: len(data)].ljust(len(data)))
    elif damage == "huge":
        header = data[:128].replace(b"(30, 8)", b"(9999999999, 8)")
        path.write_bytes(header[:127] + b"\n" + data[128:] if len(header) > 128 else header)
    elif damage == "fortran":
        path.write_bytes(data.replace(b"False", b"True "))
    with pytest.raises(DataError, match=r"z\.image\.npy cannot be used.*salvage"):
        ua.Index.open(folder)


def test_hostile_databases(index: ua.Index, tmp_path: Path) -> None:
    filled(index)
    folder = index.path
    assert folder is not None
    index.close()

    def altered(*statements: str) -> Path:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        with sqlite3.connect(copy / "index.sqlite") as database:
            for statement in statements:
                database.execute(statement)
        database.close()
        return copy

    with pytest.raises(DataError, match="does not have the tables"):
        ua.Index.open(altered("CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END"))
    with pytest.raises(DataError, match="does not have the tables"):
        ua.Index.open(altered("DROP TABLE previews", "CREATE VIEW previews AS SELECT * FROM items"))
    with pytest.raises(DataError, match="invalid part name"):
        ua.Index.open(altered("UPDATE parts SET name = '../../../etc'"))
    with pytest.raises(DataError, match="was altered"):
        ua.Index.open(altered("UPDATE meta SET value = '9' WHERE name = 'dim'"))
    (folder / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 4000)
    with pytest.raises(DataError, match="cannot be read"):
        ua.Index.open(folder)
    (folder / "index.sqlite").unlink()
    (folder / "index.sqlite").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="is not an index"):
        ua.Index.open(folder)
    with pytest.raises(DataError, match="is not an index"):
        ua.Index.open(tmp_path)


def test_existing_folders_are_not_replaced(index: ua.Index, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        ua.Index.create(str(index.path), dim=DIM, modalities=MODALITIES)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="exists"):
        ua.Index.create(tmp_path / "file", dim=DIM, modalities=MODALITIES)


@pytest.mark.parametrize("limit", [100, 700, 20_000])
def test_full_disk_changes_nothing(index: ua.Index, limit: int) -> None:
    filled(index)
    folder = index.path
    assert folder is not None
    expected, generation = content(index), index.generation
    before = sorted(path.name for path in (folder / "parts").iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = limit if limit < 1000 else (folder / "index.sqlite-wal").stat().st_size + 100
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write|cannot be written"):
            index.add(rows(200, 5), keys=[f"new {n}" for n in range(200)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert content(index) == expected
    assert index.generation == generation
    assert index.verify() == []
    assert sorted(path.name for path in (folder / "parts").iterdir()) == before
    index.add(rows(200, 5), keys=[f"new {n}" for n in range(200)])
    assert len(index) == 230
    assert index.verify() == []


def test_failed_calibration_does_not_fail_the_commit(index: ua.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_index, "CALIBRATED_FROM", 100)
    monkeypatch.setattr(_storage, "save_calibration", fail)
    with pytest.warns(UserWarning, match="changes are saved, but.*No space left"):
        assert index.add(rows(120)).added == 120
    assert len(index) == 120
    assert index.verify() == []
    monkeypatch.undo()
    monkeypatch.setattr(_index, "CALIBRATED_FROM", 100)
    index.add(rows(1))
    assert index.calibration.reason != "the index is not calibrated"


@pytest.mark.slow
def test_read_only_folder(index: ua.Index, tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a folder for reading")
    filled(index)
    expected = content(index)
    folder, target = index.path, tmp_path / "mounted"
    target.mkdir()

    def mount() -> None:
        command = ["mount", "--bind", "-o", "ro", str(folder), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")

    assert folder is not None
    index.close()
    mount()
    try:
        with ua.Index.open(target) as reader:
            assert content(reader) == expected
        del reader  # The mapped files of a closed index are released with it.
        with pytest.raises((DataError, ConfigError), match="cannot be written"):
            ua.Index.open(target, mode="w")
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)
    # A killed writer leaves commits in the write-ahead log.
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import numpy, os, unialign as ua; from unialign.index._catalog import Catalog;"
            f"Catalog.checkpoint = lambda self: None; i = ua.Index.open({str(folder)!r}, mode='w');"
            f"i.add({{'image': numpy.ones((1, {DIM}))}}, keys=['last']); os._exit(9)",
        ]
    )
    assert writer.wait() == 9
    (folder / "index.sqlite-shm").unlink()
    mount()
    try:
        with pytest.raises(DataError, match="commits that are not in it"):
            ua.Index.open(target)
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)
    with ua.Index.open(folder) as reader:
        assert "last" in reader


def test_in_memory_index_has_the_same_methods() -> None:
    store = ua.data.EmbeddingStore.from_arrays(rows(20))
    index = ua.Index.from_store(store, calibrate=False)
    filled_keys = [item.key for item in index.items()]
    assert len(filled_keys) == 20
    assert index.path is None
    index.add(rows(3, 9), keys=["a", "b", "c"], metadata=[{"n": 1}, None, None])
    index.update("a", {"text": None})
    index.delete(keys=["b", "0"])
    expected = content(index)
    index.compact(everything=True)
    assert content(index) == expected
    assert index.verify() == []
    assert index.get("a").modalities == ("image", "audio")


def test_store_round_trip(index: ua.Index, tmp_path: Path) -> None:
    filled(index)
    store = index.to_store(tmp_path / "store")
    with ua.Index.create(tmp_path / "second", dim=DIM, modalities=MODALITIES) as second:
        second.add(store)
        for key in ("0", "10", "29"):
            first, other = index.get(key), second.get(key)
            assert (first.label, first.modalities) == (other.label, other.modalities)
            for name in first.modalities:
                np.testing.assert_allclose(first.rows[name], other.rows[name], atol=1e-7)


@pytest.mark.slow
def test_refresh_during_commits_of_another_process(index: ua.Index) -> None:
    """A reader never sees a mixture of two generations: each commit moves one item to the next number."""
    index.add(rows(1), keys=["0"])
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import numpy, unialign as ua
with ua.Index.open({str(index.path)!r}, mode="w") as index:
    for number in range(25):
        with index.batch():
            index.delete(keys=[str(number)])
            index.add({{"image": numpy.ones((1, {DIM}))}}, keys=[str(number + 1)])
        if number % 10 == 5:
            index.compact(everything=True)
""",
        ]
    )
    folder = str(index.path)
    index.close()
    last, deadline = 0, time.monotonic() + 60
    with ua.Index.open(folder) as reader:
        while writer.poll() is None and time.monotonic() < deadline:
            reader.refresh()
            (item,) = reader.items()
            assert int(item.key) >= last
            assert len(reader) == 1
            last = int(item.key)
        reader.refresh()
        assert writer.wait() == 0
        assert [item.key for item in reader.items()] == ["25"]


def test_salvage_copies_what_is_undamaged(index: ua.Index, tmp_path: Path) -> None:
    filled(index)
    index.add(rows(10, 1), keys=[f"second {n}" for n in range(10)])
    index.delete(keys=["7"])
    expected = content(index)
    folder = index.path
    assert folder is not None
    index.close()
    first, second = sorted((folder / "parts").iterdir())
    flip(first / "z.image.npy", 200, 3)
    (first / "rows.audio.npy").unlink()
    (second / "z.text.npy").write_bytes(b"")
    with pytest.raises(DataError, match="salvage"):
        ua.Index.open(folder)
    found = ua.Index.salvage(folder, tmp_path / "out")
    with_text = {str(n) for n in range(30) if n % 3 and n != 7}
    assert found.items == len(with_text) + 10
    assert set(found.lost) == {str(n) for n in range(30) if n % 3 == 0}
    assert set(found.incomplete) == with_text | {f"second {n}" for n in range(10)}
    assert len(found.problems) == 3
    with ua.Index.open(tmp_path / "out") as copy:
        assert copy.verify() == []
        for key, item in content(copy).items():
            name, label, metadata, kept, previews = expected[key]
            modalities = ("image", "audio") if key.startswith("second") else ("text",)
            assert item == (name, label, metadata, {each: kept[each] for each in modalities}, previews)


def test_salvage_from_a_damaged_database(index: ua.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "CALIBRATED_FROM", 10_000)
    index.add(rows(2000), metadata=[{"text": "x" * 50} for _ in range(2000)], labels=["a"] * 2000)
    folder = index.path
    assert folder is not None
    index.close()
    with sqlite3.connect(folder / "index.sqlite") as database:
        query = "SELECT pageno FROM dbstat WHERE name = 'items' AND pagetype = 'leaf' ORDER BY path"
        try:
            pages = [row[0] for row in database.execute(query)]
        except sqlite3.OperationalError:
            pytest.skip("SQLite was built without dbstat")
    database.close()
    with (folder / "index.sqlite").open("r+b") as file:
        file.seek((pages[len(pages) // 2] - 1) * 4096)
        file.write(b"\xff" * 4096)
    found = ua.Index.salvage(folder, tmp_path / "out")
    assert 1900 < found.items < 2000
    assert any("database" in problem for problem in found.problems)
    with ua.Index.open(tmp_path / "out") as copy:
        assert copy.get("0").label == copy.get("1999").label == "a"
