"""Previews of the items of a store: thumbnails and texts, read when they are shown."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unialign.data import THUMBNAILS, EmbeddingStore, Thumbnails
from unialign.errors import ConfigError, DataError

Preview = tuple[str, bytes]

TEXTS = "texts.json"
_TABLE = "items.jsonl"
_TYPES = {"webp": "image/webp", "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg"}
_TEXT = "text/plain; charset=utf-8"
_MOST_CHARACTERS = 2000
_MOST_BYTES = 16 << 20
# SVG images could contain scripts.
_SHOWN = re.compile(r"(?:(?:image|audio|video)/(?!svg)[a-z0-9.+-]+|text/plain)(?:; ?charset=utf-8)?", re.ASCII)


class StorePreviews:
    """Map (row, modality) of a store to a preview: `(content type, content)`."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store
        self._images: Thumbnails | None = None
        self._texts: Mapping[str, Any] | None = None
        self._lines: list[Mapping[str, Any]] | None = None

    def read(self, row: int, modality: str) -> Preview | None:
        """Return the thumbnail of an image, drawing or video, the text of a text, or None."""
        found = self._thumbnails().read(modality, row)
        if found is not None:
            return _TYPES[found[1]], found[0]
        text = self._text(row, modality)
        return None if text is None else (_TEXT, text[:_MOST_CHARACTERS].encode("utf-8", "replace"))

    def modalities(self) -> set[str]:
        """Return the modalities with previews."""
        self._cells(0)
        cells = {name for line in self._lines or () for name in line}
        return self._thumbnails().modalities | set(self._text_columns()) | cells

    def _thumbnails(self) -> Thumbnails:
        if self._images is None:
            archive = self._store.asset(THUMBNAILS) if THUMBNAILS in self._store.assets else None
            name = f"{THUMBNAILS} of {self._store.name!r}"
            self._images = Thumbnails(archive, name) if archive is not None else _none()
        return self._images

    def _text(self, row: int, modality: str) -> str | None:
        values = self._text_columns().get(modality)
        if isinstance(values, list) and row < len(values) and values[row]:
            return str(values[row])
        cell = self._cells(row).get(modality)
        return cell if isinstance(cell, str) else None

    def _text_columns(self) -> Mapping[str, Any]:
        if self._texts is None:
            self._texts = {}
            if TEXTS in self._store.assets:
                self._texts = _columns(_load(self._store.asset(TEXTS), self._store.name), self._store.columns)
        return self._texts

    def _cells(self, row: int) -> Mapping[str, Any]:
        """Return the texts in the item table of a store that `unialign.embed` wrote."""
        if self._lines is None:
            self._lines = []
            if _TABLE in self._store.assets and self._store.provenance.get("made_by") == "unialign.embed":
                lines = self._store.asset(_TABLE).splitlines()
                self._lines = [_texts_of(_load(line, self._store.name)) for line in lines]
        return self._lines[row] if row < len(self._lines) else {}


def check_previews(previews: Mapping[str, Preview] | None, modalities: Sequence[str], key: str) -> dict[str, Preview]:
    """Return the previews of an item; raise ConfigError unless they are images, sounds, videos or plain texts."""
    if previews is None:
        return {}
    if not isinstance(previews, Mapping):
        raise ConfigError(f"the previews of {key!r} must be a mapping of modalities to (content type, content)")
    for name, preview in previews.items():
        if name not in modalities:
            raise ConfigError(f"{key!r} has a preview of {name!r}, which is not a modality of the index")
        if not isinstance(preview, tuple) or len(preview) != 2 or not isinstance(preview[1], bytes):
            raise ConfigError(f"the preview of {name!r} of {key!r} must be (content type, bytes)")
        if not isinstance(preview[0], str) or not _SHOWN.fullmatch(preview[0]):
            raise ConfigError(
                f"the preview of {name!r} of {key!r} has the content type {str(preview[0])[:100]!r}; expected "
                "image/..., audio/..., video/... or text/plain"
            )
        if len(preview[1]) > _MOST_BYTES:
            raise ConfigError(
                f"the preview of {name!r} of {key!r} has {len(preview[1])} bytes; the limit is {_MOST_BYTES}"
            )
    return dict(previews)


def _columns(loaded: Any, columns: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return column -> texts of the items; `names` maps languages to texts, and English names are the column `text`."""
    if not isinstance(loaded, dict):
        return {}
    names = loaded.get("names")
    languages = names if isinstance(names, dict) else {}
    found = {"text" if code == "en" else f"name_{code}": texts for code, texts in languages.items()}
    found |= {name: texts for name, texts in loaded.items() if name != "names"}
    return {name: texts for name, texts in found.items() if name in columns and isinstance(texts, list)}


def _texts_of(line: Any) -> Mapping[str, Any]:
    cells = line.get("cells") if isinstance(line, dict) else None
    values = {name: cell.get("value") for name, cell in (cells or {}).items() if isinstance(cell, dict)}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _load(content: bytes, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the texts of {name!r} are not valid JSON ({error}); write the store again") from None


def _none() -> Thumbnails:
    import io
    import zipfile

    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    return Thumbnails(empty.getvalue(), "no thumbnails")
