"""Draw forty random items with image, drawing, name, label and split, for visual inspection."""

import random

import numpy as np
from common import WORK, read_json
from PIL import Image, ImageDraw


def main() -> None:
    items, split = read_json("items_with_pictures.json"), read_json("groups.json")["split"]
    pictures = {kind: np.load(WORK / f"{kind}_pixels.npy", mmap_mode="r") for kind in ("image", "drawing")}
    sheet = Image.new("RGB", (5 * 250, 8 * 150), "white")
    draw = ImageDraw.Draw(sheet)
    for place, row in enumerate(random.Random(1).sample(range(len(items)), 40)):
        x, y = place % 5 * 250, place // 5 * 150
        for offset, kind in ((0, "image"), (110, "drawing")):
            sheet.paste(Image.fromarray(pictures[kind][row]).resize((104, 104)), (x + offset, y))
        draw.text((x + 2, y + 108), items[row]["name"][:40], fill="black")
        draw.text((x + 2, y + 124), f"{items[row]['label']} ({split[row]})", fill="gray")
    sheet.save(WORK / "contact_sheet.png")


if __name__ == "__main__":
    main()
