"""Open Clip Art: drawings with a title."""

import html
from collections import Counter
from pathlib import Path
from typing import Any

from unialign.items import Items
from unialign.media import Kind
from unialign.named_data._named_data import NamedData, table

_KINDS: dict[str, Kind] = {"image": "image", "text": "text"}
_SHARED = 8
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LONGEST = 1 << 20


def read(folder: Path) -> Items:
    """List the drawings with the title that is stored in the PNG file.

    Drawings with a title that more than eight drawings share are left out, since such a title is the name of a series.
    """
    paths = sorted((folder / "png").rglob("*.png"), key=lambda path: path.as_posix().encode())
    titles = {path.relative_to(folder / "png").as_posix(): _title(path) for path in paths}
    uses = Counter(titles.values())
    records: list[dict[str, Any]] = [
        {
            "id": place.removesuffix(".png").removeprefix("png/"),
            "label": place.split("/")[1],
            "image": {"path": place},
            "text": title,
        }
        for place, title in titles.items()
        if title is not None and uses[title] <= _SHARED
    ]
    return table(DATA, records, _KINDS, folder)


def _title(path: Path) -> str | None:
    """Read the title from the text chunks before the pixels of a PNG file."""
    with path.open("rb") as file:
        if file.read(len(_SIGNATURE)) != _SIGNATURE:
            return None
        while len(header := file.read(8)) == 8:
            size, kind = int.from_bytes(header[:4]), header[4:]
            if kind == b"IDAT" or size > _LONGEST:
                return None
            data = file.read(size)
            file.seek(4, 1)  # checksum
            if kind == b"tEXt" and data.startswith(b"Title\0"):
                return html.unescape(data[6:].decode("latin-1")).strip() or None
    return None


DATA = NamedData(
    name="openclipart",
    title="drawings with a title",
    license="CC0-1.0",
    install="apt-get install --no-install-recommends openclipart-png",
    folder=Path("/usr/share/openclipart"),
    version="0.18",
    counts={"items": 3491, "image": 3491, "text": 3491},
    equal_texts=("text",),
    equal_files=("image",),
    read=read,
)
