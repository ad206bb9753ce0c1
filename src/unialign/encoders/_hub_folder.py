"""Find the folder of a pretrained model, which may be in the cache of the Hugging Face Hub."""

import os
from collections.abc import Sequence
from pathlib import Path

from unialign._optional import optional_module
from unialign.encoders._request import Request
from unialign.errors import ConfigError, DataError
from unialign.io import is_hub_id

__all__ = ["model_folder"]

_TRUE = ("1", "on", "yes", "true")


def model_folder(request: Request, *, patterns: Sequence[str], hub_id: str | None = None) -> tuple[Path, str | None]:
    """Return the folder, and the commit if the folder is in the cache of the Hub. `hub_id` is the repository, if it is
    not the name of the encoder.
    """
    spec = request.spec
    if request.folder is not None:
        return request.folder, spec.revision
    if spec.folder is not None:
        if spec.folder.is_file():
            raise DataError(
                f"the encoder {str(spec)!r} needs a folder, but {spec.name} is a file; pass the folder of the model"
                + (", or a file whose name ends with .onnx" if spec.kind == "onnx" else "")
            )
        if not spec.folder.is_dir():
            raise DataError(f"the encoder {str(spec)!r} needs the folder {spec.name}, which does not exist")
        return spec.folder, None
    repository = spec.name if hub_id is None else hub_id
    if not is_hub_id(repository):
        raise ConfigError(
            f"{spec.name!r} in {str(spec)!r} is not the name of a model; expected 'owner/name' of the Hugging Face "
            f"Hub, or a folder that starts with './', '~' or '/'"
        )
    hub = optional_module("huggingface_hub", f"the encoder {str(spec)!r} of the Hugging Face Hub", "hub")
    offline = _is_offline() if request.offline is None else request.offline
    try:
        folder = Path(
            hub.snapshot_download(
                repository, revision=spec.revision, allow_patterns=list(patterns), local_files_only=offline
            )
        )
    except Exception as error:  # the Hub client raises many exceptions
        what = "is not in the local cache, and downloads are disabled" if offline else "cannot be downloaded"
        raise DataError(f"the encoder {str(spec)!r} {what}: {' '.join(str(error).split())}") from error
    # A folder of the cache is named by its commit, so a branch name is never saved.
    return folder, folder.name if folder.parent.name == "snapshots" else spec.revision


def _is_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
