"""Show images in terminals that support the protocol of kitty or iTerm2."""

import base64
import io
import os
import sys
from typing import Literal

Protocol = Literal["kitty", "iterm2"]
_CHUNK = 4096


def image_protocol() -> Protocol | None:
    """Return the protocol of the terminal, from its environment; None if the output is not a terminal."""
    if not sys.stdout.isatty() or "TMUX" in os.environ:
        return None
    terminal, program = os.environ.get("TERM", ""), os.environ.get("TERM_PROGRAM", "")
    if "kitty" in terminal or "KITTY_WINDOW_ID" in os.environ or program == "ghostty":
        return "kitty"
    return "iterm2" if program in ("iTerm.app", "WezTerm") else None


def image_escape(content: bytes, protocol: Protocol, *, rows: int) -> str:
    """Return the escape sequence that shows an image with a height of `rows` lines; "" if it cannot be decoded."""
    try:
        png = _png(content)
    except (OSError, ValueError, ImportError):
        return ""
    data = base64.b64encode(png).decode()
    if protocol == "iterm2":
        return f"\033]1337;File=inline=1;height={rows};preserveAspectRatio=1:{data}\a"
    chunks = [data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    parts = []
    for place, chunk in enumerate(chunks):
        more = int(place < len(chunks) - 1)
        control = f"a=T,f=100,r={rows},m={more}" if place == 0 else f"m={more}"
        parts.append(f"\033_G{control};{chunk}\033\\")
    return "".join(parts)


def _png(content: bytes) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(content), formats=("PNG", "WEBP", "JPEG")) as image:
        image.convert("RGBA").save(out, "PNG")
    return out.getvalue()
