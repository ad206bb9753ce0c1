"""What made a column, as one hash."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from unialign.data import EmbeddingStore, column_identity, load
from unialign.errors import ConfigError

MADE: dict[str, Any] = {"encoder": "x", "weights": {"sha256": "a"}, "pooling": "mean", "input": "photographs"}

IDENTITIES = {
    "image": "aacbaaa715f670068048400ef2eb04aaa73d20930b8bb4e1b3b154c0e81931d6",
    "text": "6df8602d3b5610c12bfc318cbc6bf3dd72368b3e9a1beb2bbce1bf7e15ece47e",
}


def store(made: Any = None, *, seed: int = 0) -> EmbeddingStore:
    provenance = None if made is None else {"columns": {"image": made}}
    array = np.random.default_rng(seed).normal(size=(3, 2))
    return EmbeddingStore.from_arrays({"image": array}, provenance=provenance)


def test_the_encoder_counts_and_what_it_saw_does_not() -> None:
    same = column_identity(store(MADE), "image")
    assert column_identity(store(MADE, seed=1), "image") == same
    for left_out in ({"input": "drawings"}, {"licence": "MIT"}, {"packages": ["y==1"]}, {"synthetic": True}):
        assert column_identity(store(MADE | left_out), "image") == same
    for counted in ({"encoder": "y"}, {"weights": {"sha256": "b"}}, {"pooling": "max"}, {"reduction": {"width": 2}}):
        assert column_identity(store(MADE | counted), "image") != same


def test_it_is_the_hash_of_the_sorted_facts() -> None:
    text = '{"encoder":"x","pooling":"mean","weights":{"sha256":"a"}}'
    assert column_identity(store(MADE), "image") == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_the_facts_does_not_count() -> None:
    turned = dict(reversed(MADE.items()))
    assert column_identity(store(turned), "image") == column_identity(store(MADE), "image")


def test_a_signature_is_taken_as_it_is() -> None:
    assert column_identity(store(MADE | {"identity": "signed"}), "image") == "signed"
    # A pipeline of which nothing is known signs with None.
    assert column_identity(store(MADE | {"identity": None}), "image") != "signed"


@pytest.mark.parametrize("made", [None, {"input": "photographs"}])
def test_without_provenance_it_is_the_numbers(made: Any) -> None:
    assert column_identity(store(made), "image") == store(made).checksum("image")
    assert column_identity(store(made), "image") != column_identity(store(made, seed=1), "image")


def test_shipped_columns() -> None:
    emoji = load("emoji")
    # Saved decoders, spaces and projections hold these: another way to hash would make them strangers.
    for name, expected in IDENTITIES.items():
        assert column_identity(emoji, name) == expected
        made = emoji.provenance["columns"][name]
        kept = {key: made[key] for key in ("encoder", "weights", "pooling", "reduction")}
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == expected
    # The drawing is the same encoder with a reduction of its own: it has its own centre.
    assert column_identity(emoji, "image") != column_identity(emoji, "drawing")
    with pytest.raises(ConfigError, match="'video'"):
        column_identity(emoji, "video")
