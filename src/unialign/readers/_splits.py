"""Names of splits in folders, files and columns."""

__all__ = ["SPLIT_NAMES"]

# Name -> split.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
