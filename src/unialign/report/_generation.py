"""The page of generated images: each beside the image it should be and the training image it may be a copy of."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign.errors import DataError
from unialign.io import replace_file
from unialign.report._archive import Archive, address
from unialign.report._format import count
from unialign.report._schema import clean
from unialign.report._tables import plain_rows
from unialign.report._template import fill

__all__ = ["write_generation_report"]


def write_generation_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` about the images in `folder` and return its path; DataError if there are none."""
    root = Path(folder)
    try:
        results = json.loads((root / "results.json").read_text("utf-8"))
        images = results["images"]
        files = {name: (root / "images" / Path(name).name).read_bytes() for e in images for name in e["files"]}
        context = _context(clean(results), files, Archive(root))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{root} holds no generated images ({error}); run `unialign generate` again") from None
    target = root / "report.html"
    replace_file(target, fill("generation.html.j2", styles=("page.css", "generation.css"), context=context))
    return target


def _context(results: Mapping[str, Any], files: Mapping[str, bytes], thumbnails: Archive) -> dict[str, Any]:
    protocol, entries = results["protocol"], results["images"]
    anchor = protocol["anchor"]
    cards = [
        {
            "name": entry["name"],
            "parts": ", ".join(entry["parts"]),
            "split": {
                "train": "a training item: its image was seen",
                "val": "validation item",
                "test": "test item",
            }.get(entry["split"] or "", ""),
            "samples": [
                {
                    "made": address(files[name], "png"),
                    "twin": thumbnails.use(anchor, copy["row"]) if copy else "",
                    "said": f"{copy['name']}, {100 * copy['distance']:.0f} % off" if copy else "",
                }
                for name, copy in zip(entry["files"], entry["copies"] or [None] * len(entry["files"]), strict=True)
            ],
            "truth": [
                {"image": thumbnails.use(anchor, row), "name": name}
                for row, name in zip(entry["rows"], entry["names"], strict=True)
            ],
            "true_cosine": "" if entry["true_cosine"] is None else f"{entry['true_cosine']:.2f}",
            "nearest": [
                near | {"image": thumbnails.use(anchor, near["row"]), "cosine": f"{near['cosine']:.2f}"}
                for near in entry["nearest"]
            ],
        }
        for entry in entries
    ]
    made = sum(len(entry["files"]) for entry in entries)
    return {
        "title": f"Images from {results['data']['name']}",
        "facts": [
            count(len(entries), "condition"),
            count(made, "image"),
            f"{protocol['size']} × {protocol['size']} pixels",
            f"anchor {anchor}",
        ],
        "strip": protocol["interpolate"] is not None,
        "cards": cards,
        "compared": any(entry["copies"] for entry in entries),
        "not_compared": protocol.get("not compared with training images", ""),
        "protocol": plain_rows(protocol),
        "data": plain_rows(results["data"]),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }
