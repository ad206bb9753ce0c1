"""Files that are damaged, dangerous or unusual, and paths that lead to no file.

`CASES` has the cases of all kinds of media; `write_cases` writes their files.
"""

import os
from pathlib import Path

from media.hostile_case import ABSENT, Cases, HostileCase, nothing, sparse
from media.hostile_images import CASES as IMAGES
from media.hostile_sounds import CASES as SOUNDS
from media.hostile_tables import CASES as TABLES
from media.hostile_values import CASES as VALUES
from media.hostile_videos import CASES as VIDEOS
from media.media_files import PIXELS, image_bytes

__all__ = ["ABSENT", "CASES", "HostileCase", "write_cases"]

CASES = Cases(**IMAGES, **SOUNDS, **VIDEOS, **VALUES, **TABLES)


def write_cases(folder: Path) -> Path:
    """Write the files of all cases; return the root folder of their cells, which is inside `folder`."""
    root = folder / "root"
    root.mkdir(parents=True)
    for case in CASES.values():
        case.write(root)
    return root


def _outside(path: Path) -> None:
    target = path.parent.parent / "outside.png"
    target.write_bytes(image_bytes(PIXELS, "PNG"))
    path.symlink_to(target)


def _unreadable(path: Path) -> None:
    path.write_bytes(image_bytes(PIXELS, "PNG"))
    path.chmod(0)


_png = image_bytes(PIXELS, "PNG")
CASES.add("empty.png", "image", "empty", b"")
CASES.add("missing.png", "image", "missing-file", nothing)
CASES.add("below-a-file.png", "image", "missing-file", _png, {"path": "below-a-file.png/a.png"})
CASES.add("null.png", "image", "missing-file", nothing, {"path": "a\0.png"})
CASES.add("long.png", "image", "missing-file", nothing, {"path": "a" * 5000})
CASES.add("pipe.png", "image", "not-a-file", os.mkfifo)
CASES.add("folder.png", "image", "not-a-file", Path.mkdir)
CASES.add("outside.png", "image", "link-outside", _outside)
CASES.add("dots.png", "image", "link-outside", nothing, {"path": "../outside.png"})
CASES.add("absolute.png", "image", "link-outside", nothing, {"path": "/dev/null"})
CASES.add("loop.png", "image", "link-loop", lambda path: path.symlink_to(path.name))
CASES.add("dangling.png", "image", "missing-file", lambda path: path.symlink_to("nothing.png"))
CASES.add(
    "inside.png",
    "image",
    PIXELS,
    lambda path: (path.with_name("target.png").write_bytes(_png), path.symlink_to("target.png")),
)
CASES.add("sparse.png", "image", "too-large", sparse(2 << 30, _png))
CASES.add("member.tar", "image", PIXELS, bytes(512) + _png + bytes(99), {"path": "member.tar", "at": (512, len(_png))})
CASES.add("cut.tar", "image", "truncated", bytes(512) + _png, {"path": "cut.tar", "at": (512, len(_png) + 1)})
CASES.add("no-bytes.tar", "image", "empty", _png, {"path": "no-bytes.tar", "at": (5, 0)})
if os.geteuid():
    CASES.add("denied.png", "image", "unreadable", _unreadable)
