"""Test `load_dataset` with names of built-in data sets, store folders, and files of embeddings."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from unialign import data, registry
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError, NonFiniteError
from unialign.readers import ArrayEntry, EmbeddingFile

ITEMS = 40


@pytest.fixture
def space() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"image": rng.normal(size=(ITEMS, 5)).astype(np.float32), "text": rng.normal(size=(ITEMS, 3))}


def test_names() -> None:
    assert data.list_datasets() == ("emoji", "digits")


def test_load_by_name() -> None:
    assert data.load_dataset("digits").name == "digits"
    assert data.load_dataset("digits", modalities=["kar"]).modalities == ("kar",)


@pytest.mark.parametrize("kind", [str, Path])
def test_load_by_path(store: EmbeddingStore, kind: type) -> None:
    assert data.load_dataset(kind(store.path)).fingerprint == store.fingerprint
    assert data.load_dataset([kind(store.path)]).fingerprint == store.fingerprint
    assert data.load_dataset(store) is store


def test_a_name_has_priority_over_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: EmbeddingStore
) -> None:
    assert store.path is not None
    store.path.rename(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert data.load_dataset("digits").fingerprint != store.fingerprint
    assert data.load_dataset("./digits").fingerprint == store.fingerprint
    assert data.load_dataset(Path("digits")).fingerprint == store.fingerprint


def test_unknown_names_list_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"'emoji', 'digits'.*did you mean 'digits'\?"):
        data.load_dataset("digit")
    with pytest.raises(DataError, match=r"'emoji', 'digits'.*check the path"):
        data.load_dataset("no/such/folder")
    for folder in ("", tmp_path):
        with pytest.raises(DataError, match=r"empty string|without store\.json"):
            data.load_dataset(folder)


def test_files_become_a_store(tmp_path: Path, space: dict[str, Any]) -> None:
    present = np.arange(ITEMS) % 3 > 0
    values = {"ids": np.arange(ITEMS) // 2, "labels": np.arange(ITEMS) % 4 - 1, "groups": np.arange(ITEMS) // 4}
    split = np.repeat([0, 1, 2, 0, 0], ITEMS // 5)
    expected = EmbeddingStore.from_arrays(space, present={"text": present}, split=split, **values)
    entries = space | values | {"present.text": present, "split": split}
    entries["labels"] = np.where(values["labels"] < 0, -7, values["labels"])
    np.savez(tmp_path / "a.npz", **entries)
    np.savez_compressed(tmp_path / "b.npz", **entries)
    save_file(entries, tmp_path / "c.safetensors")
    for source in ("a.npz", "b.npz", "c.safetensors"):
        store = data.load_dataset(tmp_path / source)
        assert store.fingerprint == expected.fingerprint
        assert store.name == source[0]
        assert sorted(store.modalities) == ["image", "text"]
        store.verify()
    np.save(tmp_path / "x.npy", space["image"])
    np.savez(tmp_path / "y.npz", **{key: value for key, value in entries.items() if key != "image"})
    store = data.load_dataset([f"image={tmp_path / 'x.npy'}", tmp_path / "y.npz"])
    assert store.fingerprint == expected.fingerprint == data.load_dataset(entries).fingerprint
    assert data.load_dataset(entries, modalities=["text"]).columns == ("text",)


def test_plain_arrays_of_a_file_are_mapped_and_not_loaded(tmp_path: Path, space: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", **space, split=np.zeros(ITEMS, np.int64))
    array = data.load_dataset(tmp_path / "a.npz").array("image")
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert isinstance(array.base, np.memmap) or type(array.base).__name__ == "mmap"


def test_files_without_a_split_get_a_random_one_that_keeps_items_of_an_id_together(
    tmp_path: Path, space: dict[str, Any]
) -> None:
    np.savez(tmp_path / "a.npz", **space, ids=[f"item {i // 2}" for i in range(ITEMS)])
    with pytest.warns(
        UserWarning, match=r"'a' has no array `split`, so the split is random: 70 % train, 10 % val, 20 % test, seed 0"
    ):
        store = data.load_dataset(tmp_path / "a.npz")
    np.testing.assert_array_equal(store.split, data.random_split(ITEMS, groups=np.arange(ITEMS) // 2))
    np.testing.assert_array_equal(store.ids, np.arange(ITEMS) // 2)
    assert "seed 0" in store.provenance["split"]


def test_texts_as_split_labels_and_names(tmp_path: Path, space: dict[str, Any]) -> None:
    split = np.array(["train"] * 20 + ["validation"] * 10 + ["test"] * 10)
    labels, names = np.array(["cat", "dog"] * 20), np.array([f"animal {i}" for i in range(ITEMS)])
    np.savez(tmp_path / "a.npz", **space, split=split, labels=labels, names=names)
    store = data.load_dataset(tmp_path / "a.npz")
    assert [len(store.rows(name)) for name in ("train", "val", "test")] == [20, 10, 10]
    assert store.label_names == ("cat", "dog")
    assert store.labels[:2].tolist() == [0, 1]
    assert store.item_names[7] == "animal 7"
    np.savez(tmp_path / "b.npz", **space, split=["train"] * 39 + ["holdout"])
    with pytest.raises(DataError, match=r"split: row 39 holds .*holdout"):
        data.load_dataset(tmp_path / "b.npz")


def test_a_reader_may_be_an_instance_or_a_registered_name(tmp_path: Path) -> None:
    class TextReader:
        name = "words"
        suffixes = (".words",)

        def can_read(self, path: Path, head: bytes) -> bool:
            return path.suffix == ".words"

        def open(self, path: Path) -> EmbeddingFile:
            return EmbeddingFile.at(path, self.name, [ArrayEntry.from_array("", np.loadtxt(path))])

    np.savetxt(tmp_path / "a.words", np.ones((ITEMS, 3)))
    with pytest.raises(DataError, match="unknown format"):
        data.load_dataset(tmp_path / "a.words")
    with pytest.warns(UserWarning, match="no array `split`"):
        assert data.load_dataset(tmp_path / "a.words", reader=TextReader()).modalities == ("a",)
    registry.register("readers", "words", TextReader)
    try:
        with pytest.warns(UserWarning, match="no array `split`"):
            assert data.load_dataset(tmp_path / "a.words").array("a").shape == (ITEMS, 3)
    finally:
        del registry._registered["readers", "words"]
    with pytest.raises(ConfigError, match="unknown reader 'npy2'"):
        data.load_dataset(tmp_path / "a.words", reader="npy2")


def test_saved_stores_are_equal_and_have_small_pickles(
    tmp_path: Path, store: EmbeddingStore, space: dict[str, Any]
) -> None:
    copy = store.save(tmp_path / "copy")
    assert copy.path == tmp_path / "copy"
    for found in (copy, EmbeddingStore.open(tmp_path / "copy")):
        found.verify()
        assert found.fingerprint == store.fingerprint
        assert (found.name, found.modalities, found.label_names) == (store.name, store.modalities, store.label_names)
        assert (found.item_names, found.assets, found.provenance) == (store.item_names, store.assets, store.provenance)
    with pytest.raises(DataError, match="already exists"):
        store.save(tmp_path / "copy")
    memory = EmbeddingStore.from_arrays(space, split=np.arange(ITEMS) % 3)
    saved = memory.save(tmp_path / "memory")
    assert saved.fingerprint == memory.fingerprint
    # A pickled store contains only the path, so worker processes map the files again.
    assert len(pickle.dumps(saved)) < 3000


def test_a_store_in_a_notebook(store: EmbeddingStore) -> None:
    text = store._repr_html_()
    assert "12 items (6 train, 2 val, 4 test)" in text
    assert "audio</th><td>2</td><td>float64</td><td>66.7%</td>" in text


def test_npy_files_may_be_named_by_a_reserved_key(tmp_path: Path, space: dict[str, Any]) -> None:
    present = np.arange(ITEMS) % 3 > 0
    values = {
        "labels": np.arange(ITEMS) % 4,
        "ids": np.arange(ITEMS),
        "groups": np.arange(ITEMS) // 2,
        "split": np.repeat(["train", "valid", "test", "dev"], ITEMS // 4),
        "names": np.array([f"animal {i}" for i in range(ITEMS)]),
        "present.text": present,
    }
    for name, value in (space | values).items():
        np.save(tmp_path / f"{name}.npy", value)
        np.save(tmp_path / f"file of {name}.npy", value)
    by_file = [tmp_path / f"{name}.npy" for name in space | values]
    by_name = [f"{name}={tmp_path / f'file of {name}.npy'}" for name in space | values]
    expected = data.load_dataset(space | values)
    for sources in (by_file, by_name):
        store = data.load_dataset(sources)
        assert store.modalities == ("image", "text")
        assert store.fingerprint == expected.fingerprint
        assert store.item_names == expected.item_names
    assert data.load_dataset(by_file).name == "image, text"
    assert len(store.rows("val")) == ITEMS // 2


def test_arrays_that_are_not_used_are_reported(tmp_path: Path, space: dict[str, Any]) -> None:
    split = np.repeat([0, 1, 2, 0, 0], ITEMS // 5)
    extra = {"label": np.arange(ITEMS), "captions": np.array(["a"] * ITEMS), "weights": np.ones(3)}
    np.savez(tmp_path / "a.npz", **space, **extra, split=split)
    with pytest.warns(UserWarning, match="unused arrays") as caught:
        data.load_dataset(tmp_path / "a.npz")
    (message,) = [str(warning.message) for warning in caught]
    assert "a.npz: label (40 integers; did you mean 'labels'?)" in message
    assert "a.npz: captions (40 texts)" in message
    assert "a.npz: weights (3 numbers)" in message
    for mistake, words in {
        "present.txt": "present.txt belongs to no modality; the modalities are image, text",
        "split": "split: row 0 holds 'holdout', expected one of 'train', 'val', 'test', 'validation', 'valid', 'dev'",
    }.items():
        values = np.array(["holdout"] * ITEMS) if mistake == "split" else np.ones(ITEMS, np.bool_)
        with pytest.raises(DataError, match=words):
            data.load_dataset({**space, "split": split, mistake: values})


def test_errors_name_the_file_and_the_fix(tmp_path: Path, space: dict[str, Any]) -> None:
    bad = space["image"].copy()
    bad[3] = np.nan
    for file, array, error, message in (
        ("bad.npy", bad, NonFiniteError, r"row 3 holds nan.*array `present\.bad` in files.*'bad' from .*bad\.npy"),
        ("my image.npy", space["image"], DataError, r"'my image' cannot be a file name.*write 'NAME=.*my image\.npy'"),
    ):
        np.save(tmp_path / file, array)
        with pytest.raises(error, match=message):
            data.load_dataset([tmp_path / file, {"text": space["text"], "split": np.zeros(ITEMS, np.int64)}])
