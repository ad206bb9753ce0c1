"""Error messages for users who pass media where embeddings are expected."""

from pathlib import Path

from unialign.errors import DataError
from unialign.readers._folder_files import by_suffix, list_files
from unialign.readers._gram_files import is_gram_folder
from unialign.readers._item_records import kind_of_name
from unialign.readers._suffix_rules import rule_name, suggested_rules
from unialign.readers._vggsound_files import is_vggsound_folder

__all__ = ["items_of_folder", "no_arrays"]

_MAX_RULES = 6


def no_arrays(path: Path) -> DataError:
    if path.is_dir():
        return DataError(f"{path} is {items_of_folder(path) or 'a folder without media'}")
    return DataError(f"{path} is {_archive(path)}")


def items_of_folder(path: Path) -> str:
    """Describe a folder of media files, and the commands that read it; "" without media files."""
    layout = "gram" if is_gram_folder(path) else "vggsound" if is_vggsound_folder(path) else ""
    if layout:
        return (
            f"a folder of media without embeddings, in the layout of {layout}. List its items with: unialign inspect "
            f"{path}; then encode them with: unialign embed {path}; or encode and train: unialign train {path} "
            f"--reader {layout}"
        )
    files = list_files(path).paths
    media = [name for name in files if kind_of_name(name)]
    if not media:
        return ""
    rules = " ".join(f"--rule {rule_name(suffix)}={suffix}" for suffix in list(suggested_rules(media))[:_MAX_RULES])
    return (
        f"a folder of media without embeddings: it has {by_suffix(files)}. List its items with: unialign inspect "
        f"{path} {rules}; then encode them with: unialign embed; or encode and train: unialign train {path} {rules}"
    )


def _archive(path: Path) -> str:
    return (
        f"an archive of media without embeddings; list its items with: unialign inspect {path}; then encode them with: "
        "unialign embed"
    )
