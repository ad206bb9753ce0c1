"""Build the section of a demo's page with images generated in each objective's space."""

import json
from pathlib import Path
from typing import Any

from unialign.data import THUMBNAILS, Thumbnails
from unialign.errors import DataError
from unialign.report._images import data_url, thumbnail_url
from unialign.report._schema import clean


def generated_images(folder: Path) -> dict[str, Any] | None:
    """Return the template context from `images/` in a demo's folder; None if it is missing.

    Raises:
        DataError: the folder is damaged.
    """
    root = folder / "images"
    if not (root / "images.json").exists():
        return None
    try:
        thumbnails = Thumbnails(root / THUMBNAILS)
        contents = clean(json.loads((root / "images.json").read_text("utf-8")))
        return {
            "rule": contents["rule"],
            "compared_by": contents["compared_by"],
            "cards": [_card(card, contents, root, thumbnails) for card in contents["cards"]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{root} is damaged ({error}); delete it, and run the demo again") from None


def _card(card: dict[str, Any], contents: dict[str, Any], root: Path, thumbnails: Thumbnails) -> dict[str, Any]:
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
                "similarity": f"{100 * copy['distance']:.0f} % off" if by_pixels else f"cosine {copy['cosine']:.2f}",
                "cosine": "" if cosine is None else f"{cosine:.2f}",
            }
        )
    return {
        "name": card["name"],
        "sources": " + ".join(card["sources"]),
        "truth": thumbnail_url(thumbnails, anchor, card["row"]),
        "rows": rows,
    }
