"""What a pair of modalities is called, wherever pairs are keys."""

__all__ = ["pair_name"]


def pair_name(first: str, second: str) -> str:
    """`first-second`, different for different pairs: names with a hyphen or a quotation mark stand in quotation marks.

    Joined plainly, ("a", "b-c") and ("a-b", "c") would be one key, and the second of them all that is left.

    Example:
        >>> pair_name("image", "text"), pair_name("rna-seq", "text")
        ('image-text', "'rna-seq'-text")
    """
    return "-".join(repr(name) if any(mark in name for mark in "-'\"") else name for name in (first, second))
