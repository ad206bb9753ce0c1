"""Dialogs of Fish Fillets NG: lines as text in several languages, and recorded speech in Czech and Dutch."""

import re
from pathlib import Path
from typing import Any

from unialign.items import Items
from unialign.media import Kind
from unialign.named_data._named_data import NamedData, table

_SPEECH = ("cs", "nl")
_TEXTS = ("cs", "nl", "de", "fr", "es", "it")
_KINDS: dict[str, Kind] = {
    "text": "text",
    **{f"speech_{language}": "audio" for language in _SPEECH},
    **{f"text_{language}": "text" for language in _TEXTS},
}
# The scripts are parsed with regular expressions, never executed. `dialogId` has a name, a font and the English line;
# `dialogStr` follows with the translation.
_STRING = r'"((?:[^"\\]|\\.)*)"'
_CALL = re.compile(
    rf"dialogId\(\s*{_STRING}\s*,\s*{_STRING}\s*,\s*{_STRING}\s*\)(?:\s*dialogStr\(\s*{_STRING}\s*\))?", re.DOTALL
)


def read(folder: Path) -> Items:
    """List the lines of all levels; a line without a name in the scripts is skipped."""
    records = []
    for level in sorted(path for path in (folder / "script").iterdir() if path.is_dir()):
        lines = {name: {"text": english} for name, english, _ in _lines(level / "dialogs_en.lua") if english}
        for language in _TEXTS:
            for name, _, translated in _lines(level / f"dialogs_{language}.lua"):
                if name in lines and translated:
                    lines[name][f"text_{language}"] = translated
        for name, cells in lines.items():
            record: dict[str, Any] = {"id": f"{level.name}/{name}", "group": level.name, "label": level.name, **cells}
            for language in _SPEECH:
                place = f"sound/{level.name}/{language}/{name}.ogg"
                if (folder / place).is_file():
                    record[f"speech_{language}"] = {"path": place}
            records.append(record)
    return table(DATA, records, _KINDS, folder)


def _lines(path: Path) -> list[tuple[str, str, str]]:
    """Return (name, English line, translation)."""
    if not path.is_file():
        return []
    calls = _CALL.finditer(path.read_text("utf-8", errors="replace"))
    return [(_plain(call[1]), _plain(call[3]), _plain(call[4] or "")) for call in calls]


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: " " if match[1] == "n" else match[1], text).strip()


DATA = NamedData(
    name="fillets",
    title="lines of a game: text in seven languages, recorded Czech and Dutch speech",
    license="GPL-2.0-or-later",
    install="apt-get install --no-install-recommends fillets-ng-data fillets-ng-data-cs fillets-ng-data-nl",
    folder=Path("/usr/share/games/fillets-ng"),
    version="1.0.1",
    counts={
        "items": 1869,
        "text": 1869,
        "speech_cs": 1714,
        "speech_nl": 1528,
        "text_cs": 1853,
        "text_nl": 1832,
        "text_de": 1833,
        "text_fr": 1490,
        "text_es": 1489,
        "text_it": 1519,
    },
    equal_texts=(),
    equal_files=(),
    read=read,
)
