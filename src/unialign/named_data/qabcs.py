"""Picture cards of qABCs: a picture, an English word, the spoken word and a sound effect."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unialign.items import Items
from unialign.media import Kind
from unialign.named_data._named_data import NamedData, table

_KINDS: dict[str, Kind] = {"image": "image", "text": "text", "speech_en": "audio", "sound": "audio"}
# A line such as `animals:a=bird==bird=sparrow` has a category, a letter, a word, a picture and, for some, a sound.
_LINE = re.compile(r"(?P<category>\w+):\w=(?P<word>[^=]+)==(?P<picture>[^=]+)(=(?P<sound>[^=]+))?")
_FILES = ("en/abc1.properties", "en/abc2.properties")


def read(folder: Path) -> Items:
    """List the words of the English cards; a word that occurs twice is one item."""
    cards = folder / "abcs"
    pictures = {path.stem: path for path in sorted((cards / "all" / "pics").rglob("*.png"))}
    found: dict[str, dict[str, Any]] = {}
    for category, word, picture, sound in _lines(cards):
        cells: dict[str, Path | None] = {
            "image": cards / "all" / "pics" / category / f"{picture}.png",
            "speech_en": cards / "en" / "sounds" / "words" / f"{word.replace(' ', '_')}.ogg",
            "sound": None if sound is None else cards / "all" / "noises" / f"{sound}.ogg",
        }
        if not cells["image"].is_file():  # type: ignore[union-attr]
            cells["image"] = pictures.get(picture)
        item = found.setdefault(word, {"id": word, "label": _label(cells["image"]), "text": word.replace("_", " ")})
        for modality, path in cells.items():
            if path is not None and path.is_file():
                item.setdefault(modality, {"path": path.relative_to(folder).as_posix()})
    return table(DATA, list(found.values()), _KINDS, folder)


def _lines(cards: Path) -> Iterator[tuple[str, str, str, str | None]]:
    for name in _FILES:
        path = cards / name
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            if match := _LINE.fullmatch(line.strip()):
                yield match["category"], match["word"].strip(), match["picture"], match["sound"]


def _label(picture: Path | None) -> str | None:
    return None if picture is None else picture.parent.name


DATA = NamedData(
    name="qabcs",
    title="picture cards: picture, English word, human speech, sound",
    license="GPL-3.0-or-later",
    install="apt-get install --no-install-recommends qabcs-data",
    folder=Path("/usr/share/qabcs"),
    version="1.0.2-6",
    counts={"items": 437, "image": 321, "text": 437, "speech_en": 129, "sound": 245},
    equal_texts=("text",),
    equal_files=("image", "sound"),
    read=read,
)
