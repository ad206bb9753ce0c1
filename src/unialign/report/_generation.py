"""Show generated images next to true images and nearest training images."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unialign._plain_text import count
from unialign.data import THUMBNAILS, Thumbnails
from unialign.errors import DataError
from unialign.io import replace_file
from unialign.report._images import data_url, thumbnail_url
from unialign.report._schema import clean
from unialign.report._tables import plain_rows
from unialign.report._template import fill

_SPLITS = {
    "train": "training item, on whose image the decoder was trained",
    "val": "validation item",
    "test": "test item",
}


def write_generation_report(folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` for the images in `folder` and return its path.

    Raises:
        DataError: the folder does not contain generated images.
    """
    root = Path(folder)
    try:
        results = clean(json.loads((root / "results.json").read_text("utf-8")))
        names = [name for entry in results["images"] for name in entry["files"]]
        files = {name: data_url((root / "images" / Path(name).name).read_bytes(), "png") for name in names}
        context = _context(results, files, Thumbnails(root / THUMBNAILS))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{root} does not contain generated images ({error}); run `unialign generate` again") from None
    target = root / "report.html"
    replace_file(target, fill("generation.html.j2", styles=("page.css", "generation.css"), context=context))
    return target


def _context(results: Mapping[str, Any], files: Mapping[str, str], thumbnails: Thumbnails) -> dict[str, Any]:
    protocol, entries = results["protocol"], results["images"]
    return {
        "title": f"Images from {results['data']['name']}",
        "facts": [
            count(len(entries), "condition"),
            count(len(files), "image"),
            f"{protocol['size']} × {protocol['size']} pixels",
            f"anchor {protocol['anchor']}",
        ],
        "path": protocol["interpolate"] is not None,
        "cards": [_page_card(entry, protocol["anchor"], files, thumbnails) for entry in entries],
        "compared": any(entry["copies"] for entry in entries),
        "not_compared": protocol.get("not compared with training images", ""),
        "protocol": plain_rows(protocol),
        "data": plain_rows(results["data"]),
        "environment": plain_rows(results["environment"]),
        "reproduce": results["reproduce"],
    }


def _page_card(
    entry: Mapping[str, Any], anchor: str, files: Mapping[str, str], thumbnails: Thumbnails
) -> dict[str, Any]:
    return {
        "name": entry["name"],
        "parts": ", ".join(entry["parts"]),
        "split": _SPLITS.get(entry["split"] or "", ""),
        "samples": [
            {
                "image": files[name],
                "copy_image": thumbnail_url(thumbnails, anchor, copy["row"]) if copy else "",
                "caption": f"{copy['name']}, distance {100 * copy['distance']:.0f} %" if copy else "",
            }
            for name, copy in zip(entry["files"], entry["copies"] or [None] * len(entry["files"]), strict=True)
        ],
        "truth": [
            {"image": thumbnail_url(thumbnails, anchor, row), "name": name}
            for row, name in zip(entry["rows"], entry["names"], strict=True)
        ],
        "true_cosine": "" if entry["true_cosine"] is None else f"{entry['true_cosine']:.2f}",
        "nearest": [
            near | {"image": thumbnail_url(thumbnails, anchor, near["row"]), "cosine": f"{near['cosine']:.2f}"}
            for near in entry["nearest"]
        ],
    }


def generated_images(folder: Path) -> dict[str, Any] | None:
    root = folder / "images"
    if not (root / "images.json").exists():
        return None
    try:
        thumbnails = Thumbnails(root / THUMBNAILS)
        contents = clean(json.loads((root / "images.json").read_text("utf-8")))
        return {
            "rule": contents["rule"],
            "compared_by": contents["compared_by"],
            "cards": [_section_card(card, contents, root, thumbnails) for card in contents["cards"]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{root} is damaged ({error}); delete it, and run the demo again") from None


def _section_card(card: dict[str, Any], contents: dict[str, Any], root: Path, thumbnails: Thumbnails) -> dict[str, Any]:
    anchor = contents["anchor"]
    rows = []
    for key, image in card["images"].items():
        copy, cosine = image["copy"], image["true_cosine"]
        by_pixels = "distance" in copy
        rows.append(
            {
                "label": contents["labels"][key],
                "image": data_url((root / Path(image["file"]).name).read_bytes(), "png"),
                "copy_image": thumbnail_url(thumbnails, anchor, copy["row"]),
                "copy_name": copy["name"],
                "similarity": f"distance {100 * copy['distance']:.0f} %"
                if by_pixels
                else f"cosine {copy['cosine']:.2f}",
                "cosine": "" if cosine is None else f"{cosine:.2f}",
            }
        )
    return {
        "name": card["name"],
        "sources": " + ".join(card["sources"]),
        "truth": thumbnail_url(thumbnails, anchor, card["row"]),
        "rows": rows,
    }
