"""Recognize text files and read their lines with bounded memory."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unialign.errors import DataError
from unialign.io import open_regular

__all__ = ["is_text", "numbers_in", "text_format", "text_lines"]

_SNIFFED_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 24
# Text files with other suffixes are opened only by readers from other packages.
_TABLE_SUFFIXES = ("", ".txt", ".dat", ".tab")
_SUFFIX_FORMATS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_DELIMITERS = ("\t", ",", ";", "|")
_CONTROL = frozenset(range(32)) - {9, 10, 12, 13}


def is_text(head: bytes) -> bool:
    """Return whether `head` is UTF-8 text; its last character may be incomplete."""
    if not head or _CONTROL & set(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and error.start > 0
    return True


def text_format(path: Path, head: bytes) -> str:
    if not path.is_file() or not head or _CONTROL & set(head):
        return ""
    with open_regular(path) as file:
        start = file.read(_SNIFFED_BYTES)
    if not is_text(start):
        # A file in another encoding is recognized by its suffix, so that the error names the line.
        return "" if _CONTROL & set(start) else _SUFFIX_FORMATS.get(path.suffix.lower(), "")
    # The last line may be incomplete.
    text = start.decode("utf-8-sig", errors="ignore")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("# ")][:3]
    if not lines or lines[0].startswith(("<", "version https://git-lfs")):
        return ""
    if lines[0].lstrip()[:1] in ("{", "["):
        return "jsonl" if _is_json_line(lines[0], is_cut=len(lines) == 1 and len(start) == _SNIFFED_BYTES) else ""
    if path.suffix.lower() in (".csv", ".tsv"):
        return "csv"
    if _is_word2vec(lines):
        return "word2vec"
    return "csv" if path.suffix.lower() in _TABLE_SUFFIXES and _is_table(lines) else ""


def text_lines(path: Path) -> Iterator[str]:
    number = 0
    with open_regular(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path}, line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; write one item per line"
                )
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}, line {number} is not UTF-8 (byte {error.start}: 0x{line[error.start]:02x}); save the "
                    "file as UTF-8"
                ) from None


def numbers_in(cells: list[str]) -> int:
    return sum(_is_number(cell) for cell in cells)


def _is_json_line(line: str, *, is_cut: bool) -> bool:
    if is_cut:
        return re.match(r'\s*(\{\s*"|\[\s*[-+\d])', line) is not None
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(x, int | float) for x in value))


def _is_word2vec(lines: list[str]) -> bool:
    """Return whether the lines are word vectors; GloVe files have no header "N D"."""
    header = re.fullmatch(r"\d+ (\d+)\s*", lines[0])
    words = lines[1:2] if header else lines[:2]
    if not words or any("\t" in line or "," in line for line in words):
        return False
    cells = [line.rstrip().split(" ") for line in words]
    if header:
        return len(cells[0]) > int(header[1]) > 0
    first = cells[0]
    return len(first) > 8 and not _is_number(first[0]) and numbers_in(first[1:]) == len(first) - 1


def _is_table(lines: list[str]) -> bool:
    for delimiter in _DELIMITERS:
        counts = {line.count(delimiter) for line in lines[:2]}
        if len(counts) == 1 and counts != {0} and (len(lines) > 1 or numbers_in(lines[0].split(delimiter)) > 1):
            return True
    cells = lines[0].split()
    return len(cells) > 1 and numbers_in(cells) == len(cells)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
