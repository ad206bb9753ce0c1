from unialign.encoders._text import TextEncoder as TextEncoder, text_encoder as text_encoder

__all__ = ["TextEncoder", "text_encoder"]
