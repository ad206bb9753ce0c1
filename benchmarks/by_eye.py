"""Draw the images of random held-out emoji, and count the grades of a rater who saw them with the names.

    python -m benchmarks.by_eye          draws the sheet and writes the table
    python -m benchmarks.by_eye table    writes only the table

The concepts are drawn with a fixed seed, before any image was seen. The grades in `results/by_eye.json` are entered
by hand, and belong to the shipped space and decoder. Requires `unialign[generate]`.
"""

import json
import sys
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import unialign as ua
from benchmarks.pages import RESULTS, ROOT, write_block
from unialign.data import EmbeddingStore
from unialign.generation import decode, load_decoder, load_space, read_thumbnails

__all__ = ["random_rows", "share", "table"]

RESULT, PAGE = RESULTS / "by_eye.json", ROOT / "docs" / "how-to" / "generate.md"
FIGURE = ROOT / "docs" / "findings" / "figures" / "generation-random.png"
CONCEPTS, SEED = 48, 0
SOURCES = {"self": "image", "drawing": "drawing", "text": "text", "speech": "speech"}
# From best to worst.
GRADES = {
    "concept": "shows the concept",
    "kind": "shows only something of the same kind",
    "other": "shows something else, or nothing recognizable",
}
COLUMNS, SIDE, NAMES, GAP, HEAD = 3, 48, 118, 2, 20


def random_rows(store: EmbeddingStore) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(SEED).choice(store.rows("test"), CONCEPTS, replace=False))


def sheet(store: EmbeddingStore) -> Image.Image:
    space, decoder, rows = load_space("emoji"), load_decoder("emoji"), random_rows(store)
    z = space.encode({name: store.array(name)[rows] for name in SOURCES.values()})
    images = {"true": read_thumbnails(store, "image", rows, decoder.size)}
    images |= {name: decode(space, decoder, z[modality]) for name, modality in SOURCES.items()}
    lines = -(-len(rows) // COLUMNS)
    width = NAMES + len(images) * (SIDE + GAP) + 4 * GAP
    page = Image.new("RGB", (COLUMNS * width, HEAD + lines * (SIDE + 2 * GAP)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for place, row in enumerate(rows):
        left, top = place // lines * width, HEAD + place % lines * (SIDE + 2 * GAP)
        name = "\n".join(textwrap.wrap(store.item_names[row], 17)[:3])
        draw.multiline_text((left + 2 * GAP, top + 4), name, fill="#1a1f25", font=font)
        for i, (kind, made) in enumerate(images.items()):
            at = left + NAMES + i * (SIDE + GAP)
            page.paste(_to_pil(made[place]), (at, top))
            if place % lines == 0:
                draw.text((at, 4), kind, fill="#5a6470", font=font)
    return page


def _to_pil(image_3SS: torch.Tensor) -> Image.Image:
    pixels = (255 * image_3SS.permute(1, 2, 0)).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def share(results: Mapping[str, Any], source: str, grade: str) -> float:
    return sum(item[source] == grade for item in results["items"]) / len(results["items"])


def table(results: Mapping[str, Any]) -> str:
    count = len(results["items"])
    lines = [f"| of {count} images, % | {' | '.join(SOURCES)} |", "|---|" + "---:|" * len(SOURCES)]
    for grade, meaning in GRADES.items():
        lines.append(f"| {meaning} | {' | '.join(f'{100 * share(results, s, grade):.0f}' for s in SOURCES)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    torch.set_num_threads(1)
    store = ua.data.load_dataset("emoji")
    if sys.argv[1:] != ["table"]:
        sheet(store).save(FIGURE, optimize=True)
    if RESULT.exists():
        results = json.loads(RESULT.read_text("utf-8"))
        rows = random_rows(store).tolist()
        if [item["row"] for item in results["items"]] != rows:
            raise ValueError(f"the rows of {RESULT} are not those of the sheet; grade the sheet again")
        write_block(PAGE, RESULT, table(results))


if __name__ == "__main__":
    main()
