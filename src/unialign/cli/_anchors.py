"""Choose the anchor of a training run: all pairs, or the first modality if an objective requires one."""

from collections.abc import Iterable, Sequence

from unialign.config import TrainConfig
from unialign.errors import ConfigError
from unialign.losses import display_name, needs_anchor, parameter_names

ANCHOR = "objective_options.anchor"


def has_anchor(objective: str) -> bool:
    return "anchor" in parameter_names(objective)


def describe_anchors(configs: Iterable[TrainConfig]) -> str:
    chosen = {str(c.objective_options.get("anchor", "all")) for c in configs if c.epochs and has_anchor(c.objective)}
    return f"anchor {' or '.join(sorted(chosen))}" if chosen else "no anchor"


def default_anchor(objective: str, modalities: Sequence[str]) -> str:
    return modalities[0] if needs_anchor(objective) == "modality" else "all"


def with_anchor(config: TrainConfig, modalities: Sequence[str]) -> tuple[TrainConfig, str]:
    """Return the configuration, and a note to the user ("" if the configuration is unchanged)."""
    needed = needs_anchor(config.objective)
    if needed == "no":
        return config, ""
    anchor, name = config.objective_options.get("anchor"), display_name(config.objective)
    if anchor is None:
        default = default_anchor(config.objective, modalities)
        choice = "all pairs" if default == "all" else f"{default}, the first modality of the data"
        note = f"note: {name} needs an anchor; using {choice} (--anchor changes this)"
        return config.override({ANCHOR: default}), note
    if needed == "modality" and anchor not in modalities:
        known = ", ".join(modalities)
        raise ConfigError(f"{name} needs a modality as anchor, got {anchor!r}; set --anchor to one of {known}")
    return config, ""
