from unialign.integrations import mteb as mteb, sentence_transformers as sentence_transformers

__all__ = ["mteb", "sentence_transformers"]
