"""Append trials to `trials.jsonl`, so that a killed search continues after its last finished trial."""

import json
import os
from pathlib import Path

from unialign.errors import DataError
from unialign.tuning._trial import Trial

FILE = "trials.jsonl"


def read_trials(folder: Path) -> list[Trial]:
    """Return the trials of a results folder; an incomplete last line of a killed search is cut off.

    Raises:
        DataError: another line is damaged, or two lines have the same number and seed.
    """
    path = folder / FILE
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    trials: dict[tuple[int, int], Trial] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            trial = Trial.from_dict(json.loads(line))
        except (ValueError, DataError) as error:
            raise DataError(f"{path}, line {number}: {error}; delete the line to repeat its trial") from None
        if (trial.number, trial.seed) in trials:
            raise DataError(f"{path}, line {number} repeats trial {trial.number} with seed {trial.seed}; delete it")
        trials[trial.number, trial.seed] = trial
    return list(trials.values())


def append_trial(folder: Path, trial: Trial) -> None:
    """Write one line with a single call, and sync it to the disk."""
    line = json.dumps(trial.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with open(folder / FILE, "ab", buffering=0) as file:
            file.write(line.encode())
            os.fsync(file.fileno())
    except OSError as error:
        raise DataError(f"cannot write {folder / FILE}: {error.strerror or error}") from None
