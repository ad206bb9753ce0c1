"""Folder of a run: `config.yaml`, `log.jsonl`, `checkpoints/` and the trained model."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

from unialign._checks import check_choice
from unialign.config import Config, ProgressMode, Resume, differing_settings
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.io import checked_path, discard_leftovers, lock_folder, read_json, write_yaml
from unialign.train._checkpoint import STATE, Snapshot, discard_incomplete, load_checkpoint, newest_checkpoint
from unialign.train._log import read_log

# Entry of the facts of a run with the references of the initial encoders, if encoders are trained.
ENCODERS = "initial_encoders"
# Folders of a run with the features of its items, and with the table of the items.
FEATURES, TABLE = "store", "items"
_LONGEST = 40


class RunDir:
    """Paths of a run, and checks before it starts or resumes. A resumed run must have the same facts and, except for
    bookkeeping, the same settings.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Config,
        *,
        facts: dict[str, Any],
        settings: dict[str, Any],
        result: str = "space",
    ) -> None:
        self.path = Path(path)
        self.log = self.path / "log.jsonl"
        self.checkpoints, self.result = self.path / "checkpoints", self.path / result
        self.config, self.facts, self.settings = config, facts, settings

    @property
    def has_result(self) -> bool:
        """Writing the model is the last action of a run."""
        return (self.result / "config.json").exists()

    def find_checkpoint(self, resume: Resume) -> Snapshot | None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"out must be a folder, but {str(self.path)!r} is a file")
        for folder in (self.checkpoints, self.result):
            if folder.exists() and not folder.is_dir():
                raise ConfigError(f"{folder} must be a folder, but is a file; move the file, or choose another out")
        newest = self._newest(resume)
        if newest is None:
            if self._is_started(newest):
                self._check_same_run(self._logged_facts() or self._result_facts(), self.path)
            return None
        snapshot = load_checkpoint(newest)
        self._check_same_run(snapshot.facts, newest)
        return snapshot

    def _newest(self, resume: Resume) -> Path | None:
        newest = newest_checkpoint(self.checkpoints)
        if resume == "never" and self._is_started(newest):
            state = "a finished run" if self.has_result else "an unfinished run"
            step = "" if newest is None else f" (newest checkpoint: {newest.name})"
            raise ConfigError(
                f"{self.path} holds {state}{step}; nothing was changed. Continue it with resume='auto', "
                f"or choose another folder"
            )
        if newest is None and resume == "required":
            raise CheckpointError(f"{self.path} has no complete checkpoint to resume from; start with resume='auto'")
        return newest

    def _is_started(self, newest: Path | None) -> bool:
        return newest is not None or self.log.exists() or self.result.exists()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the folder for the block, and remove partial files left by a crash."""
        with ExitStack() as lock:
            try:
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                lock.enter_context(lock_folder(self.path, doing="training"))
                discard_incomplete(self.checkpoints)
                discard_leftovers(self.path)
            except OSError as error:
                raise CheckpointError(f"cannot write to {self.path}: {error.strerror or error}") from error
            write_yaml(self.path / "config.yaml", self.settings, error=CheckpointError)
            yield

    def check_before_embedding(self, resume: Resume) -> None:
        """Raise the errors of `find_checkpoint` that do not depend on features."""
        newest = self._newest(resume)
        earlier = {} if newest is None else read_json(newest / STATE)
        earlier = earlier or self._logged_facts() or self._result_facts()
        _check_same_encoders(earlier.get(ENCODERS), self.facts.get(ENCODERS), newest or self.path)

    def _logged_facts(self) -> dict[str, Any]:
        records = read_log(self.log)
        return records[0] if records and records[0].get("kind") == "start" else {}

    def _result_facts(self) -> dict[str, Any]:
        """Return {} if the metadata of the trained model is missing or unreadable."""
        try:
            found = json.loads((self.result / "config.json").read_text("utf-8"))["metadata"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def _check_same_run(self, there: dict[str, Any], source: Path) -> None:
        here = self.facts
        _check_same_encoders(there.get(ENCODERS), here.get(ENCODERS), source)
        data = there.get("data")
        if isinstance(data, dict) and data.get("fingerprint") != here["data"]["fingerprint"]:
            raise DataError(
                f"{source} was made with the data {data.get('name')!r} (fingerprint {data.get('fingerprint')}), but "
                f"this run has {here['data']['name']!r} (fingerprint {here['data']['fingerprint']}); use the same "
                f"data, or choose another folder"
            )
        if isinstance(data, dict):
            _check_same_mixture(data.get("mixture"), here["data"].get("mixture"), source)
        settings = there.get("training")
        if not isinstance(settings, dict):
            return
        if there.get("init_from") != here.get("init_from"):
            began, begins = (_describe_initial_weights(facts.get("init_from")) for facts in (there, here))
            raise CheckpointError(
                f"{source} was made {began}, but this run begins {begins}; use the same init_from, or choose another "
                f"folder"
            )
        # The earlier run used the default values of settings that were added later.
        settings = type(self.config)().to_dict() | settings
        differing = {
            name: texts
            for name, texts in differing_settings(settings, here["training"]).items()
            if name not in self.config.bookkeeping()
        }
        if differing:
            old, new = (", ".join(f"{name}={texts[i]}" for name, texts in differing.items()) for i in (0, 1))
            raise CheckpointError(
                f"{source} was made with {old}; this run has {new}; use the same settings, or choose another folder"
            )


def _check_same_encoders(there: Any, here: Any, source: Path) -> None:
    """Compare the references of the initial encoders of a run that trains encoders."""
    if not isinstance(there, dict) or not isinstance(here, dict):
        return
    if set(there) != set(here):
        old, new = (", ".join(map(repr, sorted(names))) or "no modality" for names in (there, here))
        raise CheckpointError(
            f"{source} trained the encoders of {old}, but this run trains those of {new}; use the same `tune`, or "
            f"choose another folder"
        )
    changed = differing_settings(there, here)
    if changed:
        listed = "; ".join(f"{name}: {_short(old)} -> {_short(new)}" for name, (old, new) in changed.items())
        raise CheckpointError(
            f"{source} was made from other initial encoders ({listed}); use the same encoders, or choose another folder"
        )


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:16]}.."


def _check_same_mixture(there: Any, here: Any, source: Path) -> None:
    if there != here:
        made, given = (_described_mixture(mixture) for mixture in (there, here))
        raise CheckpointError(
            f"{source} was made with {made}, but this run has {given}; use the same mixture, or choose another folder"
        )


def _described_mixture(mixture: Any) -> str:
    if not isinstance(mixture, dict):
        return "data that are not a mixture"
    weights = ", ".join(f"{name}={source['weight']:g}" for name, source in mixture["sources"].items())
    return f"the weights {weights}, mode={mixture['mode']!r} and epoch_steps={mixture['epoch_steps']}"


def _describe_initial_weights(init_from: Any) -> str:
    weights = init_from.get("weights") if isinstance(init_from, dict) else None
    if weights is None:
        return "from random weights"
    trained = init_from.get("train")
    only = f" and trains {', '.join(map(str, trained))} only" if isinstance(trained, list) else ""
    return f"from the space with weights of sha256 {weights}{only}"


def check_run_arguments(out: object, resume: str, progress: str, on_step: object) -> None:
    if out is not None:
        checked_path(out, "out", error=ConfigError)
    if on_step is not None and not callable(on_step):
        raise ConfigError(f"on_step must be a function that takes a mapping, got {on_step!r}")
    check_choice("resume", resume, get_args(Resume))
    check_choice("progress", progress, get_args(ProgressMode))
    if resume == "required" and out is None:
        raise ConfigError("resume='required' needs out=, the folder of the run to continue")
