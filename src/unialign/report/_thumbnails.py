"""The images a page uses: each embedded once, as a CSS class that any number of tiles share."""

import base64

from markupsafe import Markup

from unialign.report._folder import Thumbnails

__all__ = ["EmbeddedImages"]

# Leaves room for the charts under the page's limit of 5 MB (base64 adds a third).
_BUDGET = 2_400_000


class EmbeddedImages:
    """Thumbnails inside the page, each once, as CSS classes."""

    def __init__(self, thumbnails: Thumbnails) -> None:
        self._thumbnails = thumbnails
        self._known: dict[tuple[str, int], str] = {}
        self._rules: list[str] = []
        self._left = _BUDGET

    def use(self, modality: str, position: int) -> str:
        """The CSS class of an image, "" where there is none (or no room left)."""
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
        # Safe to mark: names are counted here and base64 has no markup.
        return Markup("\n".join(self._rules))
