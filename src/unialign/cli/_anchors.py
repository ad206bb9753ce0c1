"""Choose the anchor of a training: the given one, or the first modality if the objective needs one."""

from collections.abc import Iterable, Sequence

from unialign.config import TrainConfig
from unialign.errors import ConfigError
from unialign.losses import display_name, needs_anchor, parameter_names

ANCHOR = "objective_options.anchor"


def has_anchor(objective: str) -> bool:
    """Return whether an objective has an anchor."""
    return "anchor" in parameter_names(objective)


def describe_anchors(configs: Iterable[TrainConfig]) -> str:
    """Return a description such as `anchor text`, or `no anchor` if no objective has one."""
    chosen = {str(c.objective_options.get("anchor", "all")) for c in configs if has_anchor(c.objective)}
    return f"anchor {' or '.join(sorted(chosen))}" if chosen else "no anchor"


def with_anchor(config: TrainConfig, modalities: Sequence[str]) -> tuple[TrainConfig, str]:
    """Return the settings, with the first modality as anchor if one is needed but not given, and a note.

    Raises:
        ConfigError: the objective needs a modality as anchor and got something else.
    """
    needed = needs_anchor(config.objective)
    if needed == "no":
        return config, ""
    anchor, name = config.objective_options.get("anchor"), display_name(config.objective)
    if anchor is None:
        first = modalities[0]
        note = f"note: {name} needs an anchor; {first} is the data's first modality; --anchor names another"
        return config.override({ANCHOR: first}), note
    if needed == "modality" and anchor not in modalities:
        known = ", ".join(modalities)
        raise ConfigError(f"{name} needs a modality as anchor, got {anchor!r}: give --anchor, one of {known}")
    return config, ""
