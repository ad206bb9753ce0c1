"""The folder of a run: what stands in it, and whether this run may continue or begin there."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from unialign._checks import check_choice
from unialign.config import Resume, TrainConfig
from unialign.errors import CheckpointError, ConfigError, DataError
from unialign.io import lock_folder, write_yaml
from unialign.train._checkpoint import Snapshot, discard_partial, load_checkpoint, newest_checkpoint
from unialign.train._log import read_log

__all__ = ["RunFolder"]


class RunFolder:
    """Paths of a run folder: `config.yaml`, `log.jsonl`, `checkpoints/`, and the folder of what was trained.

    Args:
        path: the folder.
        result: name of the folder that the trained model goes to.
        defaults: every setting of such a run at its default; None: those of `TrainConfig`.
        bookkeeping: settings that may differ between a run and its resumption.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        result: str = "space",
        defaults: Mapping[str, Any] | None = None,
        bookkeeping: Sequence[str] = TrainConfig.bookkeeping(),
    ) -> None:
        self.path = Path(path)
        self.config, self.log = self.path / "config.yaml", self.path / "log.jsonl"
        self.checkpoints, self.result = self.path / "checkpoints", self.path / result
        self._defaults = TrainConfig().to_dict() if defaults is None else defaults
        self._bookkeeping = bookkeeping
        self._lock = ExitStack()

    @property
    def has_result(self) -> bool:
        """Whether the trained model was written, which is the last thing a run does."""
        return (self.result / "config.json").exists()

    def begin(self, resume: str, facts: dict[str, Any]) -> Snapshot | None:
        """Decide where to start; returns the checkpoint to continue from, or None for the first step.

        Args:
            facts: `training` (the configuration as a dict) and `data` (name, fingerprint, items) of the run to come.

        Raises:
            ConfigError: a run is there and `resume` is "never".
            CheckpointError: nothing to resume with "required"; another configuration; an altered checkpoint.
            DataError: other data.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"out={str(self.path)!r} is a file; give a folder")
        newest = newest_checkpoint(self.checkpoints)
        started = newest is not None or self.log.exists() or self.result.exists()
        if resume == "never" and started:
            state = "a finished run" if self.has_result else "an unfinished run"
            step = "" if newest is None else f" (newest checkpoint: {newest.name})"
            raise ConfigError(
                f"{self.path} holds {state}{step}; nothing was changed. Continue it with resume='auto', "
                f"or choose another folder"
            )
        if newest is None:
            if resume == "required":
                raise CheckpointError(
                    f"{self.path} has no complete checkpoint to resume from; start with resume='auto'"
                )
            if started:
                self._check_same(self._logged_facts() or self._result_facts(), facts, self.path)
            return None
        snapshot = load_checkpoint(newest)
        self._check_same(snapshot.facts, facts, newest)
        return snapshot

    def prepare(self, settings: dict[str, Any]) -> None:
        """Make the folder, keep others out, clear away what a crash left half written, and write `config.yaml`.

        Raises:
            ConfigError: another process trains there at this moment.
            CheckpointError: the file system refuses.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(lock_folder(self.path, doing="training"))
            discard_partial(self.checkpoints)
            discard_partial(self.path)
        except OSError as error:
            raise CheckpointError(f"cannot write to {self.path}: {error.strerror or error}") from error
        write_yaml(self.config, settings, error=CheckpointError)

    def close(self) -> None:
        """Let others in."""
        self._lock.close()

    def _logged_facts(self) -> dict[str, Any]:
        records = read_log(self.log)
        return records[0] if records and records[0].get("kind") == "start" else {}

    def _result_facts(self) -> dict[str, Any]:
        """What the trained model says of itself; {} where there is none that can be read."""
        try:
            found = json.loads((self.result / "config.json").read_text("utf-8"))["metadata"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def _check_same(self, there: dict[str, Any], here: dict[str, Any], source: Path) -> None:
        data = there.get("data")
        if isinstance(data, dict) and data.get("fingerprint") != here["data"]["fingerprint"]:
            raise DataError(
                f"{source} was made with the data {data.get('name')!r} of fingerprint {data.get('fingerprint')}, this "
                f"run has {here['data']['name']!r} of fingerprint {here['data']['fingerprint']}; use the same data, "
                f"or choose another folder"
            )
        settings = there.get("training")
        if not isinstance(settings, dict):
            return
        if there.get("start") != here.get("start"):
            began, begins = (_start_in_words(facts.get("start")) for facts in (there, here))
            raise CheckpointError(
                f"{source} was made {began}, this run begins {begins}; use the same start, or choose another folder"
            )
        # A setting that came later than the version that wrote this was at its default.
        settings = {**self._defaults, **settings}
        for name in sorted(settings.keys() | here["training"].keys()):
            if name not in self._bookkeeping and settings.get(name) != here["training"].get(name):
                raise CheckpointError(
                    f"{source} was made with {name}={settings.get(name)!r}, this run has "
                    f"{name}={here['training'].get(name)!r}; use the same setting, or choose another folder"
                )


def _start_in_words(start: Any) -> str:
    weights = start.get("weights") if isinstance(start, dict) else None
    return "from random weights" if weights is None else f"from the space with weights of sha256 {weights}"


def check_resume(resume: str, out: object) -> None:
    """`ConfigError` unless `resume` is known and has a folder to act on."""
    check_choice("resume", resume, get_args(Resume))
    if resume == "required" and out is None:
        raise ConfigError("resume='required' needs out=, the folder of the run to continue")
