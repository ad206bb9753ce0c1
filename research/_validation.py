"""What can be known to be wrong with a plan before anything is trained."""

from collections.abc import Mapping, Sequence

from research._measures import MEASURES
from research._plan import Arm, Options, Plan
from research._transforms import CHANGES
from unialign._checks import check_choice, check_integer
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.evaluation import METRICS
from unialign.train import check_fit

__all__ = ["check_plan", "fewest_resamples"]

_HEADLINE = sum(metric.headline == "yes" for metric in METRICS.values())


def check_plan(plan: Plan, options: Options, stores: Mapping[str, EmbeddingStore]) -> None:
    """Refuse a plan that could not be carried out, or would not be fair.

    Raises:
        ConfigError: names that refer to nothing, unequal numbers of trials, settings that do not fit the data, too few
            resamples for any difference to be significant.
        DataError: a split that is needed has fewer than two items.
    """
    keys = [arm.key for arm in plan.arms]
    if len(set(keys)) < len(keys) or not keys:
        raise ConfigError(f"a study needs arms with different keys, got {', '.join(keys) or 'none'}")
    for key in keys:
        if not key or not all(c.isalnum() or c in "-_." for c in key) or key.startswith("."):
            raise ConfigError(f"arm {key!r} must be a file name of letters, digits, '-', '_' and '.'")
    budgets = {len(arm.trials) for arm in plan.arms if arm.trials}
    if len(budgets) > 1:
        raise ConfigError(f"every tuned arm must have as many trials as the others, got {sorted(budgets)}")
    for name, store in stores.items():
        for split in ("val", "test") if budgets else ("test",):
            if len(store.rows(split)) < 2:
                raise DataError(
                    f"{name!r} has {len(store.rows(split))} items in its {split} split; at least 2 are needed"
                )
    for arm in plan.arms:
        _check_references(arm, plan)
        _check_settings(arm, options, stores[arm.data])
    plan.stages()  # ConfigError for starts that lead nowhere
    _check_families(plan, options)
    _check_contrasts(plan)


def fewest_resamples(rivals: int) -> int:
    """With fewer no difference could be significant: the smallest p is 2 / (R + 1), and Holm multiplies it."""
    return max(100, 40 * _HEADLINE * rivals)


def _check_references(arm: Arm, plan: Plan) -> None:
    known = [other.key for other in plan.arms]
    if arm.tuned_as is not None:
        check_choice(f"tuned_as of arm {arm.key!r}", arm.tuned_as, [o.key for o in plan.arms if o.trials])
        if arm.trials:
            raise ConfigError(f"arm {arm.key!r} has trials of its own and tuned_as={arm.tuned_as!r}; give one of them")
    if arm.start is not None:
        check_choice(f"start of arm {arm.key!r}", arm.start, known)
    if arm.change is not None:
        check_choice(f"change of arm {arm.key!r}", arm.change.name, CHANGES)
    if arm.look is not None:
        check_choice(f"look of arm {arm.key!r}", arm.look.name, MEASURES)
        check_integer(f"points of the look of arm {arm.key!r}", arm.look.points, low=1)


def _check_settings(arm: Arm, options: Options, store: EmbeddingStore) -> None:
    if arm.train.modalities is None:
        raise ConfigError(f"arm {arm.key!r} must name its modalities")
    seeds: Sequence[int] = (*options.seeds, *options.tuning_seeds) if arm.per_seed else options.seeds[:1]
    for settings in arm.trials or ({},):
        for seed in seeds:
            try:
                check_fit(store, arm.config(seed, settings))
            except ConfigError as error:
                raise ConfigError(f"arm {arm.key!r} with {dict(settings)}, seed {seed}: {error}") from None


def _check_contrasts(plan: Plan) -> None:
    for contrast in plan.contrasts:
        for key in (contrast.first, contrast.rival):
            check_choice(f"arm of a contrast of {contrast.metric!r}", key, [arm.key for arm in plan.arms])


def _check_families(plan: Plan, options: Options) -> None:
    for family in plan.families:
        for key in (family.first, *family.rivals):
            check_choice(f"arm of the family {family.name!r}", key, [arm.key for arm in plan.arms])
        first = plan.arm(family.first)
        for rival in map(plan.arm, family.rivals):
            if (rival.data, rival.train.modalities) != (first.data, first.train.modalities):
                raise ConfigError(
                    f"{first.key!r} and {rival.key!r} are compared, but not on the same modalities and data"
                )
        least = fewest_resamples(len(family.rivals))
        if options.resamples < least:
            raise ConfigError(
                f"resamples must be at least {least} for the {len(family.rivals)} rivals of {family.name!r}, or no "
                f"difference could be significant after correction; got {options.resamples}"
            )
