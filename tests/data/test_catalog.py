"""Data by name or path."""

from pathlib import Path

import pytest

from unialign import data
from unialign.data import EmbeddingStore
from unialign.errors import DataError


def test_names() -> None:
    assert data.list_datasets() == ("emoji", "digits")


def test_load_by_name() -> None:
    assert data.load_dataset("digits").name == "digits"


@pytest.mark.parametrize("kind", [str, Path])
def test_load_by_path(store: EmbeddingStore, kind: type) -> None:
    assert data.load_dataset(kind(store.path)).fingerprint == store.fingerprint


def test_a_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: EmbeddingStore) -> None:
    assert store.path is not None
    store.path.rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert data.load_dataset("digits").fingerprint != store.fingerprint
    assert data.load_dataset("./digits").fingerprint == store.fingerprint
    assert data.load_dataset(Path("digits")).fingerprint == store.fingerprint


@pytest.mark.parametrize("name", ["digit", "", "no/such/folder"])
def test_unknown_lists_the_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"'emoji', 'digits'|store\.json cannot be read"):
        data.load_dataset(name)


def test_folder_that_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"store\.json cannot be read"):
        data.load_dataset(tmp_path)
