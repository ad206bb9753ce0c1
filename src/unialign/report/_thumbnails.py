"""Embed each thumbnail of a page once, as a CSS class."""

import base64

from markupsafe import Markup

from unialign.report._folder import Thumbnails

__all__ = ["EmbeddedImages"]

# Keeps the page with its charts below 5 MB (base64 adds a third).
_BUDGET = 2_400_000


class EmbeddedImages:
    """Thumbnails as CSS classes, within a budget of bytes."""

    def __init__(self, thumbnails: Thumbnails) -> None:
        self._thumbnails = thumbnails
        self._known: dict[tuple[str, int], str] = {}
        self._rules: list[str] = []
        self._left = _BUDGET

    def css_class(self, modality: str, position: int) -> str:
        """Return the CSS class of a thumbnail, "" if there is none or the budget is exhausted."""
        key = (modality, position)
        if key not in self._known:
            self._known[key] = self._embedded(modality, position)
        return self._known[key]

    def _embedded(self, modality: str, position: int) -> str:
        data = self._thumbnails.read(modality, position)
        if data is None or len(data) > self._left:
            return ""
        self._left -= len(data)
        name = f"p{len(self._rules)}"
        encoded = base64.b64encode(data).decode("ascii")
        self._rules.append(f".{name}{{background-image:url(data:image/webp;base64,{encoded})}}")
        return name

    @property
    def css(self) -> Markup:
        # Safe: class names are counters, and base64 contains no markup.
        return Markup("\n".join(self._rules))
