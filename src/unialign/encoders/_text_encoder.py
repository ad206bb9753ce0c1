"""Encode new texts in the coordinates of a store's text column, with the same encoder and verified weights.

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
from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.encoders._column_projection import Projection, find_projection
from unialign.errors import ConfigError, DataError, MissingDependencyError

# Columns have half precision, and library versions differ in the last digits of single precision.
_TOLERANCE = 1e-3


class TextEncoder:
    """Callable that maps texts to features in the coordinates of a column; created by `text_encoder`.

    Attributes:
        fingerprint: `encoder_fingerprint` of the column.
        dim: W.
    """

    def __init__(self, model: Any, projection: Projection, fingerprint: str) -> None:
        self._model, self._projection = model, projection
        self.fingerprint, self.dim = fingerprint, projection.dim

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Encode texts in the given order.

        Args:
            texts: list or tuple of N strings, case-insensitive. Long texts are truncated to 256 tokens with a warning.

        Returns:
            (N, W) float32 on the CPU, not normalized. Row i depends only on text i, up to float32 rounding.

        Raises:
            ConfigError: not a list of texts, or a text that is blank, not a string, or invalid Unicode.
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
            if len(text) <= most - 2:  # A token has at least one character, and two of the tokens are special ones.
                continue
            tokens = len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"])
            if tokens > most:
                warnings.warn(
                    f"text {place}, {text[:40]!r}..., has {tokens} tokens; the encoder reads the first {most}",
                    stacklevel=3,
                )


def text_encoder(store: EmbeddingStore, column: str = "text") -> TextEncoder:
    """Load the encoder of a text column, for new texts. Takes seconds and requires no network.

    The column's provenance specifies encoder and reduction. The installed weights must be bitwise equal, and the
    features of one text are compared with the column.

    Raises:
        ConfigError: no such column, or no encoder is available for its provenance.
        DataError: the installed weights differ from those of the column, or the libraries return other features.
        MissingDependencyError: without `unialign[text]`.
    """
    fingerprint = encoder_fingerprint(store, column)
    projection = find_projection(store, column, fingerprint)
    encoder = TextEncoder(_load(projection), projection, fingerprint)
    difference = float((encoder([projection.sample_text])[0] - projection.sample_W).abs().max())
    if not difference <= _TOLERANCE:
        version = import_module("sentence_transformers").__version__
        raise DataError(
            f"{projection.encoder} returns other features of {projection.sample_text!r} than the column {column!r} "
            f"holds: they differ by {difference:.2g}, expected at most {_TOLERANCE}. The weights are the same, so the "
            f"tokenizer or sentence-transformers {version} differs; install {', '.join(projection.packages)}"
        )
    return encoder


def _check_texts(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise ConfigError(f"texts is the single text {texts!r}; give a list, [{texts!r}]")
    if not isinstance(texts, Sequence) or isinstance(texts, bytes | bytearray):
        raise ConfigError(f"texts is of type {type(texts).__name__}; give a list or a tuple of strings")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise ConfigError(f"text {place} is {text!r} of type {type(text).__name__}; expected a string")
        if not text.strip():
            raise ConfigError(f"text {place} is {text!r}; omit blank texts")
        if has_surrogate(text):
            raise ConfigError(f"text {place} is {text!r}, which is not valid Unicode: it has half a surrogate pair")
    return list(texts)


def _load(projection: Projection) -> Any:
    # Check weights first, since importing sentence-transformers takes seconds.
    folder = Path(_extra(projection.module).get_model_path())
    projection.check_weights(folder)
    sentence_transformers = _extra("sentence_transformers")
    with _quiet():
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _extra(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"the encoder of new texts needs {module}, which cannot be imported ({error}): pip install 'unialign[text]'"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide progress bars while weights are loaded, and preserve the global random state."""
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
