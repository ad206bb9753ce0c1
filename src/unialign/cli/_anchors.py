"""Which modality is the anchor of a training, said aloud: a default that nobody sees is a surprise."""

from collections.abc import Iterable, Sequence

from unialign.errors import ConfigError
from unialign.experiments import override
from unialign.losses import display_name, needs_anchor, parameter_names as objective_options
from unialign.train import TrainConfig

__all__ = ["ANCHOR", "anchor_words", "has_anchor", "with_anchor"]

ANCHOR = "objective_options.anchor"


def has_anchor(objective: str) -> bool:
    """Whether an objective has an anchor at all."""
    return "anchor" in objective_options(objective)


def anchor_words(configs: Iterable[TrainConfig]) -> str:
    """`anchor text`, or `no anchor` where no objective has one."""
    chosen = {str(c.objective_options.get("anchor", "all")) for c in configs if has_anchor(c.objective)}
    return f"anchor {' or '.join(sorted(chosen))}" if chosen else "no anchor"


def with_anchor(config: TrainConfig, modalities: Sequence[str]) -> tuple[TrainConfig, str]:
    """The settings with the first modality as anchor where one must be named and is not, and a note that says so.

    Raises:
        ConfigError: the anchor must be a modality and is none.
    """
    needed = needs_anchor(config.objective)
    if needed == "no":
        return config, ""
    anchor, name = config.objective_options.get("anchor"), display_name(config.objective)
    if anchor is None:
        first = modalities[0]
        note = f"note: {name} needs an anchor; {first} is the data's first modality, --anchor names another"
        return override(config, {ANCHOR: first}), note
    if needed == "modality" and anchor not in modalities:
        known = ", ".join(modalities)
        raise ConfigError(f"{name} needs a modality as anchor, got {anchor!r}: give --anchor, one of {known}")
    return config, ""
