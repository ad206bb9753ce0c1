from unialign.encoders._text_encoder import (
    TextEncoder as TextEncoder,
    quiet_loading as quiet_loading,
    text_encoder as text_encoder,
)

__all__ = ["TextEncoder", "text_encoder"]
