"""Download folders from the Hugging Face Hub, and upload folders."""

import os
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign.errors import CheckpointError, MissingDependencyError
from unialign.io._files import checked_path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(source: object) -> bool:
    """Return whether a string has the form `owner/name` of a Hub repository."""
    return isinstance(source, str) and _HUB_ID.fullmatch(source) is not None


def local_folder(
    source: str | os.PathLike[str],
    what: str,
    *,
    revision: str | None = None,
    allow_patterns: Sequence[str],
    ignore_patterns: Sequence[str] = (),
    cache: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
) -> Path:
    """Return a local folder; if `source` is an `owner/name` and not a folder, download it from the Hub.

    Args:
        what: content of the folder for error messages, such as `a saved space`.
        revision: branch, tag or commit on the Hub.
        allow_patterns, ignore_patterns: patterns of the files to download and to skip.
        cache: folder of downloaded files; None: that of `huggingface_hub`.
        offline: whether only files of earlier downloads are used. None: as set by the variable HF_HUB_OFFLINE.

    Raises:
        CheckpointError: `source` is neither a folder nor a repository that can be downloaded.
        MissingDependencyError: a download is required but `huggingface_hub` is not installed.
    """
    folder = checked_path(source, f"the folder of {what}", error=CheckpointError)
    if folder.is_dir():
        return folder
    if folder.exists() or not is_hub_id(source):
        raise CheckpointError(f"{source} is not a folder with {what}; check the path")
    options: dict[str, Any] = {"allow_patterns": list(allow_patterns)}
    if ignore_patterns:
        options["ignore_patterns"] = list(ignore_patterns)
    if cache is not None:
        options["cache_dir"] = checked_path(cache, "the cache", error=CheckpointError)
    if offline:
        options["local_files_only"] = True
    hub = _hub(f"there is no folder {str(source)!r}, and loading from the Hugging Face Hub needs huggingface_hub")
    try:
        return Path(hub.snapshot_download(source, revision=revision, **options))
    except Exception as error:  # the Hub client raises many exceptions, for example if there is no repository
        failed = "no earlier download can be used" if offline else "the download from the Hugging Face Hub failed"
        raise CheckpointError(f"there is no folder {str(source)!r}, and {failed} ({error})") from error


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    allow_patterns: Sequence[str],
    private: bool | None,
    token: str | None,
    revision: str | None,
    message: str,
) -> str:
    """Create a repository on the Hub unless it exists, upload a folder as one commit, and return the commit's URL.

    Args:
        allow_patterns: patterns of the files to upload.

    Raises:
        CheckpointError: `repo_id` is not an `owner/name`, or the Hub rejects the upload.
        MissingDependencyError: `huggingface_hub` is not installed.
    """
    if not is_hub_id(repo_id):
        raise CheckpointError(f"{repo_id!r} is not a repository on the Hugging Face Hub; expected 'owner/name'")
    hub = _hub("uploading to the Hugging Face Hub needs huggingface_hub")
    try:
        hub.create_repo(repo_id, private=private, token=token, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=list(allow_patterns),
            token=token,
            revision=revision,
            commit_message=message,
        )
    except Exception as error:  # the Hub client raises many exceptions, for example without network or permission
        raise CheckpointError(f"the upload to {repo_id!r} on the Hugging Face Hub failed ({error})") from error
    return str(commit)


def _hub(purpose: str) -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise MissingDependencyError(f"{purpose}: pip install 'unialign[hub]'") from None
