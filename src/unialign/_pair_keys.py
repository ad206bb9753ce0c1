"""Keys of pairs of modalities."""

__all__ = ["pair_name"]


def pair_name(first: str, second: str) -> str:
    """Return `first-second`, unique for each pair: a name with a hyphen or a quotation mark is quoted.

    Without quotation marks ("a", "b-c") and ("a-b", "c") would be one key.

    Example:
        >>> pair_name("image", "text"), pair_name("rna-seq", "text")
        ('image-text', "'rna-seq'-text")
    """
    return "-".join(repr(name) if any(mark in name for mark in "-'\"") else name for name in (first, second))
