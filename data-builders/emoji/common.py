"""Paths, keys and small file helpers shared by every step."""

import json
import os
import re
import subprocess
from pathlib import Path

# Downloads and intermediate results stay outside the repository.
CACHE = Path(os.environ.get("EMOJI_CACHE", "emoji-cache")).resolve()
WORK = CACHE / "work"

NPM = {"@lobehub/fluent-emoji-3d": "1.1.0", "@iconify-json/fluent-emoji-flat": "1.2.6"}
DEBIAN = {
    "fonts-noto-color-emoji": "2.042-0+deb12u1",
    "unicode-cldr-core": "41-0.1",
    "unicode-data": "15.0.0-1",
}
FLUENT_3D = CACHE / "npm" / "lobehub-fluent-emoji-3d-1.1.0" / "assets"
FLUENT_FLAT = CACHE / "npm" / "iconify-json-fluent-emoji-flat-1.2.6" / "chars.json"
NOTO_FONT = CACHE / "deb" / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
CLDR = CACHE / "deb" / "usr/share/unicode/cldr/common"
EMOJI_TEST = CACHE / "deb" / "usr/share/unicode/emoji/emoji-test.txt"

# Twelve languages in eight scripts, each with a name for every concept in CLDR 41.
LANGUAGES = ("de", "fr", "es", "pt", "pl", "ru", "el", "ar", "hi", "ja", "ko", "zh")

SKIN_TONES = {0x1F3FB, 0x1F3FC, 0x1F3FD, 0x1F3FE, 0x1F3FF}


def key_of(text: str) -> str:
    """Return the code points in hex joined by '-', without the presentation selector."""
    return "-".join(f"{ord(c):04x}" for c in text if ord(c) != 0xFE0F)


def code_points(key: str) -> list[int]:
    return [int(part, 16) for part in key.split("-")]


def has_skin_tone(key: str) -> bool:
    # A lone swatch ("1f3fb") is a concept in Unicode only; drop it as well.
    return any(point in SKIN_TONES for point in code_points(key))


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def read_json(name: str):
    return json.loads((WORK / name).read_text(encoding="utf-8"))


def write_json(name: str, value) -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    (WORK / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")


def run(*command: str, cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True)
