from unialign.integrations import (
    lightly_studio as lightly_studio,
    lightning as lightning,
    mteb as mteb,
    sentence_transformers as sentence_transformers,
    tracking as tracking,
    transformers as transformers,
)

__all__ = ["lightly_studio", "lightning", "mteb", "sentence_transformers", "tracking", "transformers"]
