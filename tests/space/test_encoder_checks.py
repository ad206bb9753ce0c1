"""Test that a space and a store of other encoders are not combined."""

from pathlib import Path

import pytest

import unialign as ua
from raw_spaces import encoder, store
from unialign.config import TrainConfig
from unialign.data import EmbeddingStore
from unialign.encoders import create
from unialign.errors import ConfigError, DataError
from unialign.space import Space

CONFIG = TrainConfig(epochs=1, batch_size=8, dim=4, hidden=8, save_steps=None)


def store_of(name: str | None, dim: int = 32) -> EmbeddingStore:
    """Return the store with the provenance of another text encoder, or of none."""
    columns = dict(store().provenance["columns"])
    if name is None:
        columns["text"] = {"encoder": "mine"}
    else:
        made = create(name, device="cpu")
        columns["text"] = {"fingerprint": made.fingerprint, "reference": made.reference}
    arrays = {modality: store().array(modality) for modality in store().modalities}
    present = {modality: store().present(modality) for modality in store().modalities}
    split = ["train" if row % 3 else "test" for row in range(store().items)]
    return EmbeddingStore.from_arrays(arrays, present=present, split=split, provenance={"columns": columns})


OTHER = "builtin:chars?dim=32&seed=1"


@pytest.fixture(scope="module")
def space() -> Space:
    return ua.fit(store(), CONFIG, progress="none").space


def test_init_from(space: Space) -> None:
    with pytest.raises(
        ConfigError, match=r"init_from was made from features of 'text' by builtin:chars .* but the store"
    ):
        ua.fit(store_of(OTHER), CONFIG, init_from=space, progress="none")
    again = ua.fit(store(), CONFIG, init_from=space, progress="none").space
    assert again.encoders == space.encoders
    unknown = ua.fit(store_of(None), CONFIG, init_from=space, progress="none").space
    assert list(unknown.encoders) == ["image", "sensor"]


def test_columns_of_another_encoder(space: Space, tmp_path: Path) -> None:
    message = r"made from features of 'text' by builtin:chars \(fingerprint \w{12}\), but the column of 'arrays' has"
    with pytest.raises(DataError, match=message):
        space.encode_store(store_of(OTHER), tmp_path / "embedded")
    assert not (tmp_path / "embedded").exists()
    with pytest.raises(DataError, match=message):
        ua.evaluate(store_of(OTHER), space=space, sample=4)
    derived = space.encode_store(store_of(None), tmp_path / "embedded")
    assert derived.items == store().items
    assert ua.encoders.references_of(derived) == {}
    assert ua.encoders.references_of(store())["text"]["fingerprint"] == encoder("text").fingerprint


def test_a_repair_keeps_the_encoders(space: Space, tmp_path: Path) -> None:
    embedded = space.encode_store(store(), tmp_path / "embedded")
    repaired = ua.repair(embedded, methods=("center",), holdout=0.5).fold_into(space)
    assert repaired.encoders == space.encoders
    assert repaired.encode({"text": ["a red cat"]})["text"].any()
    repaired.save_pretrained(tmp_path / "space")
    assert Space.from_pretrained(tmp_path / "space").encode({"text": ["a red cat"]})["text"].any()
