"""Encode new texts in the coordinates of a store's text column, by the same encoder (checked by its weights).

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

from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.encoders._projection import Projection, find_projection
from unialign.errors import ConfigError, DataError, MissingDependencyError

__all__ = ["TextEncoder", "text_encoder"]

# The column is in half precision, and versions of the libraries differ in the last digits of single precision.
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
        """Encode texts, in the order given.

        Args:
            texts: list or tuple of N strings, in any case. Texts are truncated to 256 word pieces, with a warning.

        Returns:
            (N, W) float32 on the CPU, not normalized. Row i depends on text i alone, up to float32 rounding.

        Raises:
            ConfigError: not a list of texts, or a text that is blank, not a string, or not valid Unicode.
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
            if len(text) <= most - 2:  # a word piece has a character or more, and two mark the ends
                continue
            pieces = len(self._model.tokenizer(text, truncation=False, verbose=False)["input_ids"])
            if pieces > most:
                warnings.warn(
                    f"text {place}, {text[:40]!r}..., has {pieces} word pieces; the encoder reads the first {most}",
                    stacklevel=3,
                )


def text_encoder(store: EmbeddingStore, column: str = "text") -> TextEncoder:
    """Load the encoder that made a text column, for new texts. Takes seconds and needs no network.

    The column's provenance names the encoder and the reduction. The installed weights must be the same to the bit, and
    the features of one text are compared with the column.

    Raises:
        ConfigError: no such column, or no encoder is available for its provenance.
        DataError: the installed weights are not those that made the column, or the libraries return other features.
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
            raise ConfigError(f"text {place} is {text!r}; expected words, leave it out")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ConfigError(f"text {place} is {text!r}, which is not valid Unicode: {error.reason}") from None
    return list(texts)


def _load(projection: Projection) -> Any:
    # The weights first: importing sentence-transformers takes seconds.
    folder = Path(_extra(projection.module, projection).get_model_path())
    projection.check_weights(folder)
    sentence_transformers = _extra("sentence_transformers", projection)
    with _quiet(projection):
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def _extra(module: str, projection: Projection) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"features of new texts need {projection.encoder}, and {module} cannot be imported ({error}): "
            f"pip install 'unialign[text]'"
        ) from None


@contextmanager
def _quiet(projection: Projection) -> Iterator[None]:
    """Hide progress bars while weights are loaded, and keep the global random state."""
    log = _extra("transformers", projection).utils.logging
    hub = _extra("huggingface_hub", projection).utils
    was_shown, hub_was_hidden = log.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    log.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        # transformers switches the bars of huggingface_hub too.
        if was_shown:
            log.enable_progress_bar()
        if hub_was_hidden:
            hub.disable_progress_bars()
        else:
            hub.enable_progress_bars()
