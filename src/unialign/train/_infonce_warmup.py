"""InfoNCE as the first training phase, for objectives that do not learn from random weights."""

from unialign.losses import FusedTarget, Matryoshka, Objective, create

_TEMPERATURE_OPTIONS = ("temperature", "temperature_mode", "temperature_bounds")


def infonce_for_warmup(objective: Objective, modalities: tuple[str, ...]) -> Objective:
    """The temperature is copied only if the objective divides cosines by it, since products of M vectors and singular
    values have another scale.
    """
    if isinstance(objective, Matryoshka | FusedTarget):
        return objective.with_objective(infonce_for_warmup(objective.objective, modalities))
    config = objective.get_config()
    kept = _TEMPERATURE_OPTIONS if objective.temperature_kind == "cosines" else ()
    options = {key: config[key] for key in kept if key in config}
    anchor = config.get("anchor")
    return create("infonce", anchor=anchor if anchor in modalities else None, **options)
