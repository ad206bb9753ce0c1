"""Stamps of Tux Paint: pictures with an English caption, human speech in seven languages, and sound effects."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from unialign.items import Items
from unialign.media import Kind
from unialign.named_data._named_data import NamedData, table

_LANGUAGES = ("fr", "es", "ca", "bg", "ro", "ru")
# Suffix -> modality, longest first. The English voice has no language; `en_GB` names letters and digits.
_SUFFIXES = {
    **{f"_desc_{language}.ogg": f"speech_{language}" for language in _LANGUAGES},
    "_en_GB.ogg": "speech_en",
    "_desc.ogg": "speech_en",
    ".png": "image",
    ".txt": "text",
    ".ogg": "sound",
    ".wav": "sound",
}
_KINDS: dict[str, Kind] = {
    "image": "image",
    "text": "text",
    **{f"speech_{language}": "audio" for language in (*_LANGUAGES, "en")},
    "sound": "audio",
}


def read(folder: Path) -> Items:
    """List the stamps: files of one stem. A stem without a picture and a caption is not a stamp."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in sorted(folder.rglob("*"), key=lambda path: path.as_posix().encode()):
        place = path.relative_to(folder).as_posix()
        suffix = next((suffix for suffix in _SUFFIXES if place.endswith(suffix)), None)
        if suffix is None or not path.is_file():
            continue
        cell = _caption(path) if suffix == ".txt" else {"path": place}
        if cell:
            found[place.removesuffix(suffix)].setdefault(_SUFFIXES[suffix], cell)
    stamps = {stem: cells for stem, cells in found.items() if "image" in cells or "text" in cells}
    records = [{"id": stem, "label": stem.split("/")[0], **cells} for stem, cells in stamps.items()]
    return table(DATA, records, _KINDS, folder)


def _caption(path: Path) -> str:
    """Return the English caption, which is the first line; the other lines are translations."""
    lines = path.read_bytes().decode("utf-8-sig", errors="replace").splitlines()
    return lines[0].strip() if lines else ""


DATA = NamedData(
    name="tuxpaint",
    title="963 stamps: picture, English caption, spoken captions in seven languages, sound effects",
    license="GPL-2.0-or-later",
    install="apt-get install --no-install-recommends tuxpaint-stamps-default",
    folder=Path("/usr/share/tuxpaint/stamps"),
    version="2022.06.04-1",
    counts={
        "items": 963,
        "image": 796,
        "text": 952,
        "speech_fr": 927,
        "speech_es": 890,
        "speech_ca": 917,
        "speech_bg": 917,
        "speech_ro": 920,
        "speech_ru": 920,
        "speech_en": 179,
        "sound": 135,
    },
    equal_texts=("text",),
    equal_files=("image", *(f"speech_{language}" for language in _LANGUAGES)),
    read=read,
)
