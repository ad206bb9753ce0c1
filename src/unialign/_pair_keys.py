"""Build the keys of pairs of modalities."""

__all__ = ["pair_name"]


def pair_name(first: str, second: str) -> str:
    """Return the unique key `first-second` of a pair; names with a hyphen or quotation mark are quoted.

    Without quoting, ("a", "b-c") and ("a-b", "c") would have the same key.

    Example:
        >>> pair_name("image", "text"), pair_name("rna-seq", "text")
        ('image-text', "'rna-seq'-text")
    """
    return "-".join(repr(name) if any(mark in name for mark in "-'\"") else name for name in (first, second))
