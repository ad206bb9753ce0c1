"""Test that lost or damaged parts of the write-ahead log, and files deleted under a reader, are noticed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import unialign as ua
from unialign.errors import DataError
from unialign.index import _storage
from unialign.index._catalog import Catalog


def rows(count: int) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(count).normal(size=(count, 8))}


@pytest.fixture
def crashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy of an index whose writer was killed after three commits, before the log was moved into the database."""
    monkeypatch.setattr(Catalog, "checkpoint", lambda self: None)
    with ua.Index.create(tmp_path / "index", dim=8, modalities=["image"]) as index:
        for number in range(3):
            index.add(rows(20), keys=[f"{number}-{row}" for row in range(20)])
        shutil.copytree(tmp_path / "index", tmp_path / "copy")
    assert (tmp_path / "copy" / "index.sqlite-wal").stat().st_size > 0
    return tmp_path / "copy"


def test_an_undamaged_log_is_read(crashed: Path) -> None:
    with ua.Index.open(crashed, mode="w") as index:
        assert len(index) == 60
        assert index.verify() == []


@pytest.mark.parametrize("mode", ["r", "w"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_damaged_log_raises_and_no_rows_are_deleted(crashed: Path, damage: str, mode: str) -> None:
    log = crashed / "index.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[len(content) // 3] ^= 1
    parts = sorted(path.name for path in (crashed / "parts").iterdir())
    if damage == "removed":
        log.unlink()
        (crashed / "index.sqlite-shm").unlink(missing_ok=True)
    else:
        log.write_bytes(content if damage == "flipped" else content[: len(content) // 3])
    with pytest.raises(DataError, match="write-ahead log was damaged or removed"):
        ua.Index.open(crashed, mode=mode)
    assert sorted(path.name for path in (crashed / "parts").iterdir()) == parts


def test_a_commit_leaves_an_empty_log(tmp_path: Path) -> None:
    with ua.Index.create(tmp_path / "index", dim=8, modalities=["image"]) as index:
        index.add(rows(20))
        assert (tmp_path / "index" / "index.sqlite-wal").stat().st_size == 0


def test_a_removed_or_altered_record_is_reported(tmp_path: Path) -> None:
    with ua.Index.create(tmp_path / "index", dim=8, modalities=["image"]) as index:
        index.add(rows(20))
    record = tmp_path / "index" / _storage.COMMITTED
    content = record.read_text()
    for damaged in (content.replace("1", "2", 1), "{}", content[:5], None):
        record.unlink(missing_ok=True)
        if damaged is not None:
            record.write_text(damaged)
        with pytest.raises(DataError, match=_storage.COMMITTED):
            ua.Index.open(tmp_path / "index")


def test_a_reader_whose_files_were_deleted_says_so_until_it_is_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ua.Index.create(tmp_path / "index", dim=8, modalities=["image"]) as index:
        index.add(rows(40))
    with ua.Index.open(tmp_path / "index") as reader:
        with ua.Index.open(tmp_path / "index", mode="w") as index:
            index.delete(keys=["0", "1"])
            index.compact(everything=True)
        expected = reader.search(ua.query(item="7"), k=3).keys
        monkeypatch.setattr(_storage, "_GRACE", -1.0)
        ua.Index.open(tmp_path / "index", mode="w").close()
        for read in (
            lambda: reader.search(ua.query(vector=np.ones(8), modality="image")),
            lambda: reader.get("7"),
            reader.items,
        ):
            with pytest.raises(DataError, match="call `refresh`"):
                read()
        assert reader.refresh()
        assert set(reader.search(ua.query(item="7"), k=3).keys) & set(expected)
