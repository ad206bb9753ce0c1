"""Validate a plan before training."""

from collections.abc import Mapping

from research._measures import MEASURES
from research._plan import Arm, Options, Plan
from research._transforms import TRANSFORMS
from unialign._checks import check_choice, check_integer
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation import METRICS
from unialign.train import check_fit

__all__ = ["check_plan", "min_resamples"]

_PRIMARY = sum(metric.primary for metric in METRICS.values())


def check_plan(plan: Plan, options: Options, stores: Mapping[str, EmbeddingStore]) -> None:
    keys = [arm.key for arm in plan.arms]
    if len(set(keys)) < len(keys) or not keys:
        raise ConfigError(f"a study needs at least one arm, and keys must be unique; got {', '.join(keys) or 'none'}")
    for key in keys:
        if not key or not all(c.isalnum() or c in "-_." for c in key) or key.startswith("."):
            raise ConfigError(
                f"the key of an arm must be a file name of letters, digits, '-', '_' and '.', got {key!r}"
            )
    budgets = {len(arm.trials) for arm in plan.arms if arm.trials}
    if len(budgets) > 1:
        raise ConfigError(f"all tuned arms must have the same number of trials, got {sorted(budgets)}")
    for name, store in stores.items():
        for split in ("val", "test") if budgets else ("test",):
            if (rows := len(store.rows(split))) < 2:
                raise DataError(f"{name!r} has {rows} items in its {split} split; at least 2 are required")
    for arm in plan.arms:
        _check_references(arm, plan)
        _check_settings(arm, options, stores[arm.data])
    plan.stages()  # Raises ConfigError if the arms form a cycle.
    _check_families(plan, options)
    for comparison in plan.comparisons:
        for key in (comparison.first, comparison.baseline):
            check_choice(f"arm of a comparison of {comparison.metric!r}", key, keys)


def min_resamples(baselines: int) -> int:
    """The smallest p-value is 2 / (R + 1), and Holm's correction multiplies it by the number of tests."""
    return max(100, 40 * _PRIMARY * baselines)


def _check_references(arm: Arm, plan: Plan) -> None:
    if arm.tuned_as is not None:
        check_choice(f"tuned_as of arm {arm.key!r}", arm.tuned_as, [other.key for other in plan.arms if other.trials])
        if arm.trials:
            raise ConfigError(f"arm {arm.key!r} has both trials and tuned_as={arm.tuned_as!r}; give only one")
    if arm.init_from is not None:
        check_choice(f"init_from of arm {arm.key!r}", arm.init_from, [other.key for other in plan.arms])
    if arm.transform is not None:
        check_choice(f"transform of arm {arm.key!r}", arm.transform.name, TRANSFORMS)
    if arm.eval_hook is not None:
        check_choice(f"eval_hook of arm {arm.key!r}", arm.eval_hook.name, MEASURES)
        check_integer(f"points of the eval_hook of arm {arm.key!r}", arm.eval_hook.points, low=1)


def _check_settings(arm: Arm, options: Options, store: EmbeddingStore) -> None:
    if arm.train.modalities is None:
        raise ConfigError(f"the settings of arm {arm.key!r} must contain modalities")
    seeds = (*options.seeds, *options.tuning_seeds) if arm.per_seed else options.seeds[:1]
    for settings in arm.trials or ({},):
        for seed in seeds:
            try:
                check_fit(store, arm.config(seed, settings))
            except ConfigError as error:
                raise ConfigError(f"arm {arm.key!r} with {dict(settings)}, seed {seed}: {error}") from None


def _check_families(plan: Plan, options: Options) -> None:
    for family in plan.families:
        for key in (family.first, *family.baselines):
            check_choice(f"arm of the family {family.name!r}", key, [arm.key for arm in plan.arms])
        first = plan.arm(family.first)
        for baseline in map(plan.arm, family.baselines):
            if (baseline.data, baseline.train.modalities) != (first.data, first.train.modalities):
                raise ConfigError(
                    f"{first.key!r} and {baseline.key!r} cannot be compared, since they differ in modalities or data"
                )
        least = min_resamples(len(family.baselines))
        if options.resamples < least:
            raise ConfigError(
                f"resamples must be at least {least} for the {len(family.baselines)} baselines of {family.name!r}, "
                f"since otherwise no difference can be significant after correction; got {options.resamples}"
            )
