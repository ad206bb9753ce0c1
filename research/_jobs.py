"""Create the training jobs of a study, and select settings by trials."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from research._plan import Arm, EvalHook, Options, Plan
from research._records import Record, read_record
from unialign.config import TrainConfig
from unialign.errors import DataError

__all__ = ["SELECTION", "Scheduler", "TrainingJob", "select_trial"]

SELECTION = "recall@1"


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """Picklable description of a training for a worker process, which opens the data.

    Attributes:
        purpose: `trial` for the selection of settings, `parent` for a space that trials of other arms continue, or
            `run` for the results.
        data: name or folder of the store.
        file: path of the record to write.
        trial: index of the trial among those of the arm.
        space: folder for the trained space; None if no other arm continues it.
        parent: job whose space this job continues.
    """

    arm: Arm
    purpose: Literal["trial", "parent", "run"]
    data: str
    fingerprint: str
    train: TrainConfig
    resamples: int
    keep: tuple[str, ...]
    file: Path
    trial: int | None = None
    space: Path | None = None
    parent: "TrainingJob | None" = None

    @property
    def seed(self) -> int:
        return self.train.seed

    @property
    def split(self) -> str:
        """The split to evaluate, which is the test split for runs and the validation split for other jobs."""
        return "test" if self.purpose == "run" else "val"

    @property
    def eval_hook(self) -> EvalHook | None:
        return self.arm.eval_hook if self.purpose == "run" else None

    def settings(self) -> dict[str, Any]:
        """Return all settings that determine the result, as a JSON object."""
        is_run = self.purpose == "run"
        return {
            "fingerprint": self.fingerprint,
            "train": self.train.to_dict(),
            "split": self.split,
            "anchor": self.arm.anchor,
            "transform": self.arm.transform and dataclasses.asdict(self.arm.transform),
            "init_from": self.parent and self.parent.settings(),
            "eval_hook": self.eval_hook and dataclasses.asdict(self.eval_hook),
            "resamples": self.resamples if is_run else None,
            "keep": list(self.keep) if is_run else None,
        }

    def read_back(self) -> Record | None:
        """Return the record if this job was completed earlier, or else None."""
        record = read_record(self.file, self.settings())
        lost = self.space is not None and not (self.space / "config.json").exists()
        return None if record is None or (lost and not record.failed) else record


@dataclass
class Scheduler:
    """Create the jobs of a study.

    Attributes:
        tuned: arm -> settings selected by its trials; set by the caller after the trials.
    """

    plan: Plan
    options: Options
    folder: Path
    tuned: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def total(self) -> int:
        """Return the total number of trainings."""
        trials = sum(len(arm.trials) for arm in self.plan.arms) + len(self._continued_by_trials())
        return trials * len(self.options.tuning_seeds) + len(self.plan.arms) * len(self.options.seeds)

    def trials(self, arms: Sequence[Arm]) -> list[TrainingJob]:
        """Return a job for each trial and tuning seed."""
        return [
            self._job(arm, seed, "trial", settings, i)
            for arm in arms
            for i, settings in enumerate(arm.trials)
            for seed in self.options.tuning_seeds
        ]

    def parents(self, arms: Sequence[Arm]) -> list[TrainingJob]:
        """Return jobs that train, with tuning seeds, the spaces that trials of other arms continue."""
        wanted = self._continued_by_trials()
        return [
            self._job(arm, seed, "parent") for arm in arms if arm.key in wanted for seed in self.options.tuning_seeds
        ]

    def runs(self, arms: Sequence[Arm]) -> list[TrainingJob]:
        """Return a job for each arm and seed, with the tuned settings of the arm."""
        return [self._job(arm, seed, "run") for seed in self.options.seeds for arm in arms]

    def settings(self, arm: Arm) -> Mapping[str, Any]:
        """Return the tuned settings of an arm, which are empty if it is not tuned."""
        return self.tuned.get(arm.tuned_as or arm.key, {})

    def _job(
        self,
        arm: Arm,
        seed: int,
        purpose: Literal["trial", "parent", "run"],
        settings: Mapping[str, Any] | None = None,
        trial: int | None = None,
    ) -> TrainingJob:
        parent = None
        if arm.init_from is not None:
            kind: Literal["parent", "run"] = "run" if seed in self.options.seeds else "parent"
            parent = self._job(self.plan.arm(arm.init_from), seed, kind)
        file = f"tuning/{arm.key}-{trial}" if purpose == "trial" else f"runs/{arm.key}"
        continued = purpose != "trial" and any(other.init_from == arm.key for other in self.plan.arms)
        return TrainingJob(
            arm=arm,
            purpose=purpose,
            trial=trial,
            data=self.options.stores.get(arm.data, arm.data),
            fingerprint=self.options.fingerprints[arm.data],
            train=arm.config(seed, self.settings(arm) if settings is None else settings),
            resamples=self.options.resamples,
            keep=self.plan.keep,
            file=self.folder / f"{file}-seed{seed}.safetensors",
            space=self.folder / "spaces" / f"{arm.key}-seed{seed}" if continued else None,
            parent=parent,
        )

    def _continued_by_trials(self) -> set[str]:
        """Return the arms that trials of other arms continue, directly or indirectly."""
        by_key = {arm.key: arm for arm in self.plan.arms}
        wanted: set[str] = set()
        pending = [arm.init_from for arm in self.plan.arms if arm.trials]
        while pending:
            key = pending.pop()
            if key is not None and key not in wanted:
                wanted.add(key)
                pending.append(by_key[key].init_from)
        return wanted


def select_trial(arm: Arm, seeds: Sequence[int], records: Mapping[tuple[int | None, int], Record]) -> dict[str, Any]:
    """Compare the trials of an arm by R@1, the mean over seeds and ordered pairs of modalities, and choose the best."""
    trials: list[dict[str, Any]] = []
    for i, settings in enumerate(arm.trials):
        found = [records[i, seed] for seed in seeds]
        failed = next((record.failed for record in found if record.failed), "")
        scores = [math.nan if record.failed else record.metrics[SELECTION] for record in found]
        mean = math.fsum(scores) / len(scores)
        trials.append({"settings": dict(settings), SELECTION: mean, "per_seed": scores})
        if failed:
            trials[-1]["failed"] = failed
    valid = [i for i, trial in enumerate(trials) if not math.isnan(trial[SELECTION])]
    if not valid:
        raise DataError(
            f"all {len(trials)} trials of {arm.key!r} failed; error of the first trial: {trials[0]['failed']}"
        )
    return {"trials": trials, "chosen": max(valid, key=lambda i: trials[i][SELECTION])}
