"""InfoNCE as the first phase of training for objectives that do not learn from random weights."""

from unialign.losses import Objective, create

__all__ = ["infonce_for_warmup"]

_TEMPERATURE_OPTIONS = ("temperature", "temperature_mode", "temperature_bounds")


def infonce_for_warmup(objective: Objective, modalities: tuple[str, ...]) -> Objective:
    """InfoNCE with the anchor of an objective; all pairs where that is no modality or there is none.

    The temperature, its mode and its bounds are those of the objective if they divide cosines, otherwise InfoNCE's
    defaults: products of M vectors or singular values are on another scale.
    """
    config = objective.get_config()
    kept = _TEMPERATURE_OPTIONS if objective.temperature_kind == "cosines" else ()
    options = {key: config[key] for key in kept if key in config}
    anchor = config.get("anchor")
    return create("infonce", anchor=anchor if anchor in modalities else None, **options)
