"""Read media from data URIs. URLs are never fetched."""

import base64
import binascii

from unialign.errors import ConfigError

_MODALITIES = {"image": "image", "audio": "audio", "video": "video"}


def read_data_uri(text: object, what: str) -> tuple[str, bytes]:
    """Return the kind of media (`image`, `audio` or `video`) and the content of a base64 data URI.

    Raises:
        ConfigError: the text is not a base64 data URI of such media.
    """
    if not isinstance(text, str) or not text.startswith("data:"):
        raise ConfigError(
            f"{what} must be a data URI, such as data:image/png;base64,...; the service does not fetch URLs"
        )
    header, comma, content = text[5:].partition(",")
    media_type, *options = header.split(";")
    kind = media_type.partition("/")[0].lower()
    if not comma or "base64" not in options:
        raise ConfigError(f"{what} must be a base64 data URI, such as data:image/png;base64,...")
    if kind not in _MODALITIES:
        raise ConfigError(f"{what} has the type {media_type[:40]!r}; expected image/*, audio/* or video/*")
    try:
        return kind, base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"{what} is not valid base64 ({error})") from None
