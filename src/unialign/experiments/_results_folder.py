"""Allow a single kind of result in a results folder, so that no command overwrites other results."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unialign.config import differing_settings, read_yaml
from unialign.errors import ConfigError, DataError
from unialign.io import LOCK_FILE, checked_path, discard_leftovers, is_leftover, lock_folder, write_yaml

Kind = Literal[
    "comparison", "run", "evaluation", "study", "diagnosis", "generation", "decoder", "bridge", "repair", "ranking",
    "inspection", "probe", "tuning",
]  # fmt: skip

# Name of the store that `prepare_data` writes into a results folder.
DATA_FOLDER = "data"
# Name of the store of embedded media in a results folder, and of the folder with its unfinished parts.
STORE_FOLDER = "store"
_STORE_PARTS = f".{STORE_FOLDER}.embed"
# Names of the item table of a run that trains encoders, and of the store with the features of the trained encoders.
ITEMS_FOLDER, EVALUATED_FOLDER = "items", "evaluated"
# Name of the folder of the searches of a comparison with tuned entries.
TUNING_FOLDER = "tuning"
# Key in config.yaml that identifies each kind of result.
_KEY_OF = {
    "comparison": "entries",
    "run": "train",
    "probe": "task",
    "evaluation": "space",
    "study": "study",
    "diagnosis": "files",
    "generation": "generation",
    "decoder": "decoder",
    "ranking": "results",
    "repair": "sources",
    "bridge": "old",
    "inspection": "items",
    "tuning": "search",
}
# Names that identify a results folder if config.yaml is missing.
_RESULTS = {"checkpoints", "decoder", "log.jsonl", "results.json", "runs", "space", "trials.jsonl"}


def open_run_dir(path: Path, kind: Kind, settings: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Create a results folder or open an existing one of the same kind, and delete temporary files of a killed command.

    Args:
        settings: settings that are written to `config.yaml` in a new folder. They must equal the settings in an
            existing folder.

    Returns:
        The content of an existing `config.yaml`; None in a new folder.

    Raises:
        ConfigError: the folder contains something else, which is not modified.
        DataError: the folder cannot be created.
    """
    found = check_run_dir(path, kind)
    if found is not None and settings is not None and found != settings:
        differing = differing_settings(found, settings)
        listed = "; ".join(
            f"{name} is {old} in the folder, but {new} was given" for name, (old, new) in differing.items()
        )
        raise ConfigError(f"{path} holds another {kind}: {listed}; choose another --out or delete it")
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(map(is_leftover, path.iterdir())):
            # A command that holds the lock may still be writing these files.
            with contextlib.suppress(ConfigError), lock_folder(path, doing="writing"):
                discard_leftovers(path)
    except OSError as error:
        raise DataError(f"cannot write to {path}: {error.strerror}; choose another --out") from error
    if found is None and settings is not None:
        write_yaml(path / "config.yaml", settings)
    return found


def check_run_dir(path: Path, kind: Kind) -> dict[str, Any] | None:
    checked_path(path, "the results folder", error=ConfigError)
    settings = path / "config.yaml"
    if settings.exists():
        try:
            found = read_yaml(settings)
        except ConfigError as error:
            raise ConfigError(f"{error}; delete {path} or choose another --out") from None
        if _KEY_OF[kind] not in found:
            holds = next((name for name, key in _KEY_OF.items() if key in found), "something else")
            raise ConfigError(f"{path} holds another kind of result ({holds}, not {kind}); choose another --out")
        return found
    if names := _names_in(path):
        if _RESULTS.isdisjoint(names):
            raise ConfigError(f"{path} holds {min(names)} and no {kind}; choose another --out")
        raise ConfigError(f"{path} holds results, but its config.yaml is missing; restore it or choose another --out")
    return None


def _names_in(path: Path) -> set[str]:
    if not path.is_dir():
        return set()
    checkpoints = path / "checkpoints"
    expected = {DATA_FOLDER, STORE_FOLDER, _STORE_PARTS, ITEMS_FOLDER, TUNING_FOLDER, LOCK_FILE}
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        expected.add(checkpoints.name)
    return {entry.name for entry in path.iterdir() if not is_leftover(entry)} - expected
