"""From a plan to jobs: trials, the choice they lead to, and runs, wave by wave."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research._plan import Arm, Options, Plan
from research._records import Record
from research._worker import Job, job_of
from unialign.errors import DataError

__all__ = ["SELECTION", "Scheduler", "chosen_trial"]

SELECTION = "recall@1"


@dataclass
class Scheduler:
    """Makes the jobs of a study.

    Attributes:
        stores: name of a data set in the plan -> what workers open.
        fingerprints: name of a data set -> its revision.
        chosen: arm -> settings that its trials led to; filled as they end.
    """

    plan: Plan
    options: Options
    folder: Path
    stores: Mapping[str, str]
    fingerprints: Mapping[str, str]
    chosen: dict[str, Mapping[str, Any]]

    def total(self) -> int:
        """How many trainings the whole study has."""
        waves = self.plan.stages()
        starts = sum(len(self._tuned_starts(arms)) for arms in waves)
        trials = sum(len(arm.trials) for arm in self.plan.arms)
        return (trials + starts) * len(self.options.tuning_seeds) + len(self.plan.arms) * len(self.options.seeds)

    def trials(self, arms: Sequence[Arm]) -> list[Job]:
        """Every setting with every tuning seed; evaluated on the validation split."""
        return [
            self._job(arm, seed, settings, "trial", self.folder / "tuning" / f"{arm.key}-{i}-seed{seed}.safetensors", i)
            for arm in arms
            for i, settings in enumerate(arm.trials)
            for seed in self.options.tuning_seeds
        ]

    def starts(self, arms: Sequence[Arm]) -> list[Job]:
        """Spaces of the tuning seeds, for the trials of arms that continue these ones."""
        return [
            self._job(arm, seed, self.settings(arm), "start", self._file(arm.key, seed))
            for arm in self._tuned_starts(arms)
            for seed in self.options.tuning_seeds
        ]

    def runs(self, arms: Sequence[Arm]) -> list[Job]:
        """Every arm with every seed, with the settings chosen for it; evaluated on the test split."""
        return [
            self._job(arm, seed, self.settings(arm), "run", self._file(arm.key, seed))
            for seed in self.options.seeds
            for arm in arms
        ]

    def settings(self, arm: Arm) -> Mapping[str, Any]:
        """What tuning chose for an arm; nothing for one that is not tuned."""
        return self.chosen.get(arm.tuned_as or arm.key, {})

    def _job(
        self, arm: Arm, seed: int, settings: Mapping[str, Any], purpose: Any, file: Path, trial: int | None = None
    ) -> Job:
        start, identity = None, None
        if arm.start is not None:
            parent = self.plan.arm(arm.start)
            kind = "run" if seed in self.options.seeds else "start"
            start = self._space(parent.key, seed)
            identity = self._job(parent, seed, self.settings(parent), kind, self._file(parent.key, seed)).identity()
        followed = purpose != "trial" and any(other.start == arm.key for other in self.plan.arms)
        return job_of(
            arm,
            purpose=purpose,
            trial=trial,
            data=self.stores[arm.data],
            fingerprint=self.fingerprints[arm.data],
            train=arm.config(seed, settings),
            split="test" if purpose == "run" else "val",
            resamples=self.options.resamples,
            keep=self.plan.keep,
            look=arm.look if purpose == "run" else None,
            file=file,
            space=self._space(arm.key, seed) if followed else None,
            start=start,
            start_identity=identity,
        )

    def _tuned_starts(self, arms: Sequence[Arm]) -> list[Arm]:
        """Those of the arms that some other arm's trials, or its trials' starts, begin from."""
        wanted = {arm.start for arm in self.plan.arms if arm.trials}
        while more := {self.plan.arm(key).start for key in wanted if key is not None} - wanted:
            wanted |= more
        return [arm for arm in arms if arm.key in wanted]

    def _file(self, key: str, seed: int) -> Path:
        return self.folder / "runs" / f"{key}-seed{seed}.safetensors"

    def _space(self, key: str, seed: int) -> Path:
        return self.folder / "spaces" / f"{key}-seed{seed}"


def chosen_trial(arm: Arm, seeds: Sequence[int], records: Mapping[tuple[int | None, int], Record]) -> dict[str, Any]:
    """What an arm's trials found, and which settings they lead to: the best mean R@1 over all ordered pairs.

    Args:
        records: (trial, seed) -> record. A trial that failed with any seed is not chosen.

    Raises:
        DataError: all trials failed.
    """
    trials = list(_described(arm, seeds, records))
    scores = [-math.inf if math.isnan(trial[SELECTION]) else trial[SELECTION] for trial in trials]
    best = max(range(len(trials)), key=scores.__getitem__)
    if scores[best] == -math.inf:
        raise DataError(f"all {len(trials)} trials of {arm.key!r} failed; the first: {trials[0]['failed']}")
    return {"trials": trials, "chosen": best}


def _described(
    arm: Arm, seeds: Sequence[int], records: Mapping[tuple[int | None, int], Record]
) -> Iterator[dict[str, Any]]:
    for i, settings in enumerate(arm.trials):
        found = [records[i, seed] for seed in seeds]
        failed = next((record.failed for record in found if record.failed), "")
        scores = [math.nan if record.failed else record.metrics[SELECTION] for record in found]
        yield {
            "settings": dict(settings),
            SELECTION: math.fsum(scores) / len(scores),
            "per_seed": scores,
            **({"failed": failed} if failed else {}),
        }
