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
    """Download the folder from the Hub if `source` is an `owner/name` and not a folder. If `offline` is None, the
    environment variable HF_HUB_OFFLINE is used.
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
    """Upload a folder as one commit, and return the URL of the commit."""
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
