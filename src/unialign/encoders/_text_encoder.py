"""Encode new texts with the encoder of a store's text column, after verifying its weights.

Shapes: `N` texts, `E` dimension of the encoder, `W` dimension of the column.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unialign._checks import has_surrogate
from unialign._optional import optional_module
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.encoders._column_projection import Projection, find_projection
from unialign.errors import ConfigError, DataError

# Columns are stored in float16, and library versions differ in the last digits of float32.
_TOLERANCE = 1e-3


class TextEncoder:
    """Map texts to features comparable with those of a store column; created by `text_encoder`.

    Attributes:
        fingerprint: `encoder_fingerprint` of the column.
        dim: dimension W of the features.
    """

    def __init__(self, model: Any, projection: Projection, fingerprint: str) -> None:
        self._model, self._projection = model, projection
        self.fingerprint, self.dim = fingerprint, projection.dim

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode texts in the given order.

        Args:
            texts: list or tuple of N strings; case is ignored. Texts of more than 256 tokens are truncated with a
                warning.

        Returns:
            Features of shape (N, W), float32 on the CPU, not normalized. Row i depends only on text i, up to float32
            rounding.

        Raises:
            ConfigError: `texts` is not a list or tuple, or a text is blank, not a string, or not valid Unicode.
        """
        checked = _check_texts(texts)
        if not checked:
            return torch.zeros(0, self.dim)
        self._warn_if_truncated(checked)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            raw_NE = self._model.encode(checked, batch_size=32, convert_to_numpy=True, show_progress_bar=False)
            return self._projection(torch.from_numpy(raw_NE))

    def _warn_if_truncated(self, texts: Sequence[str]) -> None:
        most = int(self._model.max_seq_length)
        for place, text in enumerate(texts):
            if len(text) <= most - 2:  # A token has at least one character, and two tokens are special.
                continue
            tokens = len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"])
            if tokens > most:
                warnings.warn(
                    f"text {place} ({text[:40]!r}...) has {tokens} tokens; only the first {most} are encoded",
                    stacklevel=3,
                )


def text_encoder(store: EmbeddingStore, column: str = "text") -> TextEncoder:
    """Load the encoder of a text column. Loading takes a few seconds and requires no network.

    The column's provenance specifies the encoder and the reduction. The installed weights must be bitwise equal to
    those used for the column, and the features of one text are compared with the stored features.

    Raises:
        ConfigError: the column does not exist, or no encoder is available for its provenance.
        DataError: the installed weights differ from those used for the column, or the installed libraries compute
            different features.
        MissingDependencyError: `unialign[text]` is not installed.
    """
    fingerprint = encoder_fingerprint(store, column)
    projection = find_projection(store, column, fingerprint)
    encoder = TextEncoder(_load(projection), projection, fingerprint)
    difference = float((encoder([projection.sample_text])[0] - projection.sample_W).abs().max())
    if not difference <= _TOLERANCE:
        version = import_module("sentence_transformers").__version__
        raise DataError(
            f"the features of {projection.sample_text!r} computed by {projection.encoder} differ from those of the "
            f"column {column!r} by {difference:.2g}, expected at most {_TOLERANCE}; the weights are the same, so the "
            f"tokenizer or sentence-transformers {version} differs: install {', '.join(projection.packages)}"
        )
    return encoder


def _check_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ConfigError(f"texts must be a list, got the single text {texts!r}; pass [{texts!r}]")
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray):
        raise ConfigError(f"texts must be a list or tuple of strings, got {type(texts).__name__}")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(f"text {place} must be a string, got {text!r} of type {type(text).__name__}")
        if not text.strip():
            raise ConfigError(f"text {place} must not be blank, got {text!r}")
        if has_surrogate(text):
            raise ConfigError(f"text {place} must be valid Unicode, got {text!r} with an unpaired surrogate")
    return list(texts)


def _load(projection: Projection) -> Any:
    # Check weights first, since importing sentence-transformers takes seconds.
    folder = Path(_extra(projection.module).get_model_path())
    projection.check_weights(folder)
    sentence_transformers = _extra("sentence_transformers")
    with quiet_loading():
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _extra(module: str) -> Any:
    return optional_module(module, "encoding texts", "text")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide progress bars and preserve the global random state while weights are loaded."""
    log = _extra("transformers").utils.logging
    hub = _extra("huggingface_hub").utils
    was_shown, hub_was_hidden = log.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    log.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        # transformers also toggles the progress bars of huggingface_hub.
        if was_shown:
            log.enable_progress_bar()
        if hub_was_hidden:
            hub.disable_progress_bars()
        else:
            hub.enable_progress_bars()
