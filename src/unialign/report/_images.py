"""Embed thumbnails in a page."""

import base64

from markupsafe import Markup

from unialign.data import Thumbnails

# Maximum total number of characters of the thumbnails on a page, to keep the page with its charts below 5 MB.
_BUDGET = 3_200_000


def data_url(data: bytes, kind: str) -> str:
    return f"data:image/{'jpeg' if kind == 'jpg' else kind};base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail_url(thumbnails: Thumbnails, modality: str, number: int) -> str:
    found = thumbnails.read(modality, number)
    return "" if found is None else data_url(*found)


class EmbeddedImages:
    """Embeds each thumbnail once, as a CSS class."""

    def __init__(self, thumbnails: Thumbnails) -> None:
        self._thumbnails, self._left = thumbnails, _BUDGET
        self._names: dict[tuple[str, int], str] = {}
        self._rules: list[str] = []

    def css_class(self, modality: str, number: int) -> str:
        """Return "" if there is no thumbnail or the page would become too large."""
        key = (modality, number)
        if key not in self._names:
            url = thumbnail_url(self._thumbnails, modality, number)
            fits = 0 < len(url) <= self._left
            self._names[key] = f"p{len(self._rules)}" if fits else ""
            if fits:
                self._left -= len(url)
                self._rules.append(f".{self._names[key]}{{background-image:url({url})}}")
        return self._names[key]

    @property
    def css(self) -> Markup:
        # Markup is safe here, since class names are counters and base64 contains no special characters.
        return Markup("\n".join(self._rules))
