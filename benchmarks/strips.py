"""Reproduce the paper's interpolation figure: images between the name and the spoken name of a held-out concept.

    python -m benchmarks.strips

Requires `unialign[generate]`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import unialign as ua
from unialign.generation import Decoder, build_conditions, generate_images, load_decoder, read_thumbnails
from unialign.space import Space

FINDINGS = Path(__file__).resolve().parent.parent / "docs" / "findings"
FIGURES, RESULTS = FINDINGS / "figures", FINDINGS / "results" / "generation.json"
# Evenly spaced held-out concepts, and those whose name and spoken name combined are nearest to the true image.
EVEN, NEAREST = 12, 6
STEPS = 7
SIDE, GAP, NAMES, HEAD = 64, 4, 150, 26


def nearest_rows(space: Space, store: ua.data.EmbeddingStore, rows: np.ndarray) -> np.ndarray:
    """One row per group of items."""
    z = space.encode({name: store.array(name)[rows] for name in ("image", "text", "speech")})
    both = torch.nn.functional.normalize(z["text"] + z["speech"], dim=1)
    order = (both * z["image"]).sum(1).argsort(descending=True).tolist()
    found: dict[int, int] = {}
    for place in order:
        found.setdefault(int(store.groups[rows[place]]), int(rows[place]))
    return np.array(list(found.values())[:NEAREST])


def strip(space: Space, decoder: Decoder, store: ua.data.EmbeddingStore, row: int) -> torch.Tensor:
    way = build_conditions(space, store, items=[f"#{row}"], modalities=("text", "speech"), combine="path", steps=STEPS)
    return generate_images(space, decoder, store, way).images[:, 0]


def sheet(blocks: list[tuple[str, torch.Tensor, dict[str, torch.Tensor]]]) -> Image.Image:
    spaces = len(blocks[0][2])
    width = NAMES + SIDE + 4 * GAP + 90 + STEPS * (SIDE + GAP)
    height = HEAD + len(blocks) * (spaces * (SIDE + GAP) + 3 * GAP)
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    left = NAMES + SIDE + 4 * GAP + 90
    draw.text((NAMES, 4), "true", fill="#5a6470", font=font)
    draw.text((left, 4), "text", fill="#5a6470", font=font)
    draw.text((left + (STEPS - 1) * (SIDE + GAP), 4), "speech", fill="#5a6470", font=font)
    top = HEAD
    for name, true, strips in blocks:
        draw.multiline_text((4, top + 22), wrapped(name), fill="#1a1f25", font=font)
        page.paste(to_pil(true), (NAMES, top))
        for label, images in strips.items():
            draw.text((left - 86, top + 24), label, fill="#5a6470", font=font)
            for step, made in enumerate(images):
                page.paste(to_pil(made), (left + step * (SIDE + GAP), top))
            top += SIDE + GAP
        top += 3 * GAP
    return page


def wrapped(name: str, most: int = 20) -> str:
    lines = [""]
    for word in name.split():
        if len(lines[-1]) + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def to_pil(x: torch.Tensor) -> Image.Image:
    pixels = (x.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def main() -> None:
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text("utf-8"))
    arms = [results["study"]["analysis"]["chosen"], "infonce"]
    labels = {arm: results["objectives"][arm]["label"].split(",")[0] for arm in arms}
    store, decoder = ua.data.load_dataset("emoji"), load_decoder("emoji")
    settings = {arm: ua.TrainConfig.from_dict(results["objectives"][arm]["settings"]) for arm in arms}
    spaces = {arm: ua.fit(store, train, progress="none").space for arm, train in settings.items()}
    test = store.rows("test")
    even = test[np.linspace(0, len(test) - 1, EVEN).round().astype(int)]
    for name, rows in (("strips", even), ("strips-nearest", nearest_rows(spaces[arms[0]], store, test))):
        true = read_thumbnails(store, "image", rows, SIDE)
        blocks = [
            (
                store.item_names[row],
                true[i],
                {labels[arm]: strip(space, decoder, store, int(row)) for arm, space in spaces.items()},
            )
            for i, row in enumerate(rows)
        ]
        sheet(blocks).save(FIGURES / f"generation-{name}.png", optimize=True)
        print(name, [store.item_names[row] for row in rows])


if __name__ == "__main__":
    main()
