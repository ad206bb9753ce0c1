"""Encoders of raw media whose features are those of a store's column; each needs its extra, and says so."""

from unialign.encoders._text import TextEncoder, text_encoder

__all__ = ["TextEncoder", "text_encoder"]
