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
        return "test" if self.purpose == "run" else "val"

    @property
    def eval_hook(self) -> EvalHook | None:
        return self.arm.eval_hook if self.purpose == "run" else None

    def settings(self) -> dict[str, Any]:
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
        record = read_record(self.file, self.settings())
        lost = self.space is not None and not (self.space / "config.json").exists()
        return None if record is None or (lost and not record.failed) else record


@dataclass
class Scheduler:
    plan: Plan
    options: Options
    folder: Path
    tuned: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def total(self) -> int:
        trials = sum(len(arm.trials) for arm in self.plan.arms) + len(self._continued_by_trials())
        return trials * len(self.options.tuning_seeds) + len(self.plan.arms) * len(self.options.seeds)

    def trials(self, arms: Sequence[Arm]) -> list[TrainingJob]:
        return [
            self._job(arm, seed, "trial", settings, i)
            for arm in arms
            for i, settings in enumerate(arm.trials)
            for seed in self.options.tuning_seeds
        ]

    def parents(self, arms: Sequence[Arm]) -> list[TrainingJob]:
        wanted = self._continued_by_trials()
        return [
            self._job(arm, seed, "parent") for arm in arms if arm.key in wanted for seed in self.options.tuning_seeds
        ]

    def runs(self, arms: Sequence[Arm]) -> list[TrainingJob]:
        return [self._job(arm, seed, "run") for seed in self.options.seeds for arm in arms]

    def settings(self, arm: Arm) -> Mapping[str, Any]:
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
