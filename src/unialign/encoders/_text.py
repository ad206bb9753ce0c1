"""New texts in the coordinates of a store's text column: the same encoder, checked by its weights, the same reduction.

Shapes: `N` texts, `E` width of the encoder, `W` width of the column.
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
    """Callable: texts -> features in the coordinates of a column. Made by `text_encoder`.

    Attributes:
        identity: `encoder_fingerprint` of the column.
        width: W.
    """

    def __init__(self, model: Any, projection: Projection, identity: str) -> None:
        self._model, self._projection = model, projection
        self.identity, self.width = identity, projection.width

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, in the order given.

        Args:
            texts: list or tuple of N strings. The encoder reads the first 256 word pieces of each, in any case, and a
                warning names a text that has more.

        Returns:
            (N, W) float32 on the CPU, not normalised. Row i depends on text i alone, but for float32 rounding.

        Raises:
            ConfigError: no list of texts, or a text that is blank, no string, or not valid Unicode.
        """
        checked = _checked(texts)
        if not checked:
            return torch.zeros(0, self.width)
        self._warn_of_cut(checked)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            raw_NE = self._model.encode(checked, batch_size=32, convert_to_numpy=True, show_progress_bar=False)
            return self._projection(torch.from_numpy(raw_NE))

    def _warn_of_cut(self, texts: Sequence[str]) -> None:
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
    """The encoder that made a text column, for new texts. Takes seconds and nothing from the network.

    The column's provenance says which encoder and reduction that is. Its weights must be installed, to the bit, and
    what the installed libraries make of them is compared with the column once.

    Raises:
        ConfigError: no such column, or its provenance names no encoder and reduction that are known here.
        DataError: the installed weights are not those that made the column, or the libraries make other features.
        MissingDependencyError: without `unialign[text]`.
    """
    identity = encoder_fingerprint(store, column)
    projection = find_projection(store, column, identity)
    encoder = TextEncoder(_load(projection), projection, identity)
    difference = float((encoder([projection.witness])[0] - projection.witness_W).abs().max())
    if not difference <= _TOLERANCE:
        version = import_module("sentence_transformers").__version__
        raise DataError(
            f"{projection.encoder} gives other features of {projection.witness!r} than it gave for the column "
            f"{column!r}: they differ by {difference:.2g}, expected at most {_TOLERANCE}. The weights are the same, so "
            f"it is the tokeniser or sentence-transformers {version}; install {', '.join(projection.packages)}"
        )
    return encoder


def _checked(texts: Sequence[str]) -> list[str]:
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
    """No bar on the screen while the weights are loaded, and no global random numbers drawn."""
    log = _extra("transformers", projection).utils.logging
    hub = _extra("huggingface_hub", projection).utils
    shown, hub_hidden = log.is_progress_bar_enabled(), hub.are_progress_bars_disabled()
    log.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        # What transformers switches, it switches for the hub too.
        if shown:
            log.enable_progress_bar()
        if hub_hidden:
            hub.disable_progress_bars()
        else:
            hub.enable_progress_bars()
