"""Test `encoder_fingerprint`, which identifies the encoder of a column."""

import hashlib
import json
from typing import Any

import numpy as np
import pytest

from unialign.data import EmbeddingStore, encoder_fingerprint, load_dataset
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


def test_fingerprint_covers_the_encoder_and_not_its_input() -> None:
    same = encoder_fingerprint(store(MADE), "image")
    assert encoder_fingerprint(store(MADE, seed=1), "image") == same
    for left_out in ({"input": "drawings"}, {"license": "MIT"}, {"packages": ["y==1"]}, {"synthetic": True}):
        assert encoder_fingerprint(store(MADE | left_out), "image") == same
    for counted in ({"encoder": "y"}, {"weights": {"sha256": "b"}}, {"pooling": "max"}, {"reduction": {"width": 2}}):
        assert encoder_fingerprint(store(MADE | counted), "image") != same


def test_fingerprint_is_the_hash_of_sorted_entries() -> None:
    text = '{"encoder":"x","pooling":"mean","weights":{"sha256":"a"}}'
    assert encoder_fingerprint(store(MADE), "image") == hashlib.sha256(text.encode()).hexdigest()


def test_order_of_entries_does_not_matter() -> None:
    turned = dict(reversed(MADE.items()))
    assert encoder_fingerprint(store(turned), "image") == encoder_fingerprint(store(MADE), "image")


def test_a_signature_is_used_unchanged() -> None:
    assert encoder_fingerprint(store(MADE | {"fingerprint": "signed"}), "image") == "signed"
    assert encoder_fingerprint(store(MADE | {"fingerprint": None}), "image") != "signed"


@pytest.mark.parametrize("made", [None, {"input": "photographs"}])
def test_fingerprint_without_provenance_is_the_checksum(made: Any) -> None:
    assert encoder_fingerprint(store(made), "image") == store(made).checksum("image")
    assert encoder_fingerprint(store(made), "image") != encoder_fingerprint(store(made, seed=1), "image")


def test_shipped_columns() -> None:
    emoji = load_dataset("emoji")
    # Saved decoders and spaces contain these fingerprints and would be rejected if the hash changed.
    for name, expected in IDENTITIES.items():
        assert encoder_fingerprint(emoji, name) == expected
        made = emoji.provenance["columns"][name]
        kept = {key: made[key] for key in ("encoder", "weights", "pooling", "reduction")}
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == expected
    assert encoder_fingerprint(emoji, "image") != encoder_fingerprint(emoji, "drawing")
    with pytest.raises(ConfigError, match="'video'"):
        encoder_fingerprint(emoji, "video")
