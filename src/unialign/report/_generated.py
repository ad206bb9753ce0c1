"""The section of a comparison about images that were made in each objective's space; empty where there are none."""

import json
from pathlib import Path
from typing import Any

from unialign.errors import DataError
from unialign.report._archive import Archive, address
from unialign.report._schema import clean

__all__ = ["generated_images"]

FOLDER = "images"


def generated_images(folder: Path) -> dict[str, Any] | None:
    """What the template needs of `images/` in the folder of a demo; None without it.

    Raises:
        DataError: it is there and damaged.
    """
    root = folder / FOLDER
    if not (root / "images.json").exists():
        return None
    try:
        contents = clean(json.loads((root / "images.json").read_text("utf-8")))
        return {
            "rule": contents["rule"],
            "twins": contents["twins"],
            "cards": [_card(card, contents, root, Archive(root)) for card in contents["cards"]],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"{root} is damaged ({error}); delete it, and run the demo again") from None


def _card(card: dict[str, Any], contents: dict[str, Any], root: Path, archive: Archive) -> dict[str, Any]:
    anchor = contents["anchor"]
    rows = []
    for key, shown in card["shown"].items():
        twin, cosine = shown["twin"], shown["true_cosine"]
        how = f"{100 * twin['distance']:.0f} % off" if "distance" in twin else f"cosine {twin['cosine']:.2f}"
        rows.append(
            {
                "label": contents["labels"][key],
                "made": address((root / Path(shown["file"]).name).read_bytes(), "png"),
                "twin": archive.use(anchor, twin["row"]),
                "twin_name": twin["name"],
                "twin_said": how,
                "cosine": "" if cosine is None else f"{cosine:.2f}",
            }
        )
    return {
        "name": card["name"],
        "sources": " + ".join(card["sources"]),
        "truth": archive.use(anchor, card["row"]),
        "rows": rows,
    }
