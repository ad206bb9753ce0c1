from unialign.integrations import (
    lightning as lightning,
    mteb as mteb,
    sentence_transformers as sentence_transformers,
    tracking as tracking,
    transformers as transformers,
)

__all__ = ["lightning", "mteb", "sentence_transformers", "tracking", "transformers"]
