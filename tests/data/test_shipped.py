"""Test that the built-in data sets equal the released files byte for byte, and that their splits are valid."""

import sys
from pathlib import Path

import numpy as np
import pytest

from unialign import data
from unialign.data import EmbeddingStore
from unialign.errors import DataError, MissingDependencyError
from unialign.experiments import recipe
from unialign.generation import load_decoder, load_space

FINGERPRINTS: dict[str, str] = {
    "digits": "af07c2b5bf1885d94d6cdc36f768896fc7a98858145ee6b0f97b48720f5b21a1",
    "emoji": "d85b6cbe2d6d0dcf7a2c759e97d978689d34caa7063d824bbd340a3b1da54bea",
}
MAX_BYTES = {"digits": 3_000_000, "emoji": 20_000_000}


@pytest.fixture(params=data.list_datasets())
def shipped(request: pytest.FixtureRequest) -> EmbeddingStore:
    return data.load_dataset(request.param)


def test_hashes(shipped: EmbeddingStore) -> None:
    shipped.verify()
    shipped.check_fingerprint(FINGERPRINTS[shipped.name])


def test_size(shipped: EmbeddingStore) -> None:
    assert shipped.path is not None
    files = [file for file in shipped.path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= MAX_BYTES[shipped.name]


def test_split(shipped: EmbeddingStore) -> None:
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(len(shipped.rows(split)) / shipped.items - share) < 0.03
    pairs = np.unique(np.stack([shipped.groups, shipped.split]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1], "a group crosses splits"


def test_present_rows_have_a_direction(shipped: EmbeddingStore) -> None:
    for column in shipped.columns:
        rows = shipped.array(column)[shipped.present(column)].astype(np.float64)
        assert len(rows) > 0
        assert np.isfinite(rows).all()
        assert (np.linalg.norm(rows, axis=1) > 0).all()


def test_provenance_and_license(shipped: EmbeddingStore) -> None:
    text = repr(shipped.provenance)
    assert "licen" in text.lower()
    assert set(shipped.provenance["columns"]) == set(shipped.columns)
    for machine_path in ("/root", "/home", "/work", "/tmp"):
        assert machine_path not in text


def test_names_and_labels(shipped: EmbeddingStore) -> None:
    assert len(set(shipped.item_names)) > 0.95 * shipped.items
    assert shipped.labels.min() >= -1
    assert shipped.labels.max() < len(shipped.label_names)


def test_digits() -> None:
    digits = data.load_dataset("digits")
    dims = {name: digits.dim(name) for name in digits.modalities}
    assert dims == {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}
    for split, each in (("train", 140), ("val", 20), ("test", 40)):
        assert np.bincount(digits.labels[digits.rows(split)]).tolist() == [each] * 10
    assert digits.item_names[123] == "digit 0 #0123"
    copies = np.flatnonzero(digits.ids != np.arange(2000))
    assert len(copies) == 6
    for column in digits.columns:
        np.testing.assert_array_equal(digits.array(column)[copies], digits.array(column)[digits.ids[copies]])


def test_emoji() -> None:
    emoji = data.load_dataset("emoji")
    assert len(emoji.modalities) == 5
    assert emoji.items > 1000
    assert len(emoji.label_names) > 1


def test_files_loaded_by_name_are_a_separate_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """If `unialign-datasets` is not installed, loading a data set by name raises an error with the install command."""
    library = Path(data.__file__).parents[1]
    files = [path for path in library.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert max(path.stat().st_size for path in files) < 100_000
    monkeypatch.setitem(sys.modules, "unialign_datasets", None)
    assert data.list_datasets() == ("emoji", "digits")
    for load in (data.load_dataset, load_space, load_decoder, recipe):
        with pytest.raises(MissingDependencyError, match=r"pip install 'unialign\[demo\]'.*\./unialign-datasets"):
            load("emoji")
    with pytest.raises(DataError, match="did you mean 'emoji'"):
        data.load_dataset("emojy")
