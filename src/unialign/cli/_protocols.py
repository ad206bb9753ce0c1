"""Register the protocols of `unialign evaluate`: configuration, additional options, and implementing module."""

from dataclasses import dataclass

from unialign.config import Config, EvaluateConfig, GramConfig, OmniConfig


@dataclass(frozen=True)
class Protocol:
    """A protocol of evaluation.

    Attributes:
        config: its settings; `space`, `data` and `fingerprint` are among them, and `protocol`, except for "all".
        options: settings that only this protocol has, which become options of the command. Settings with the name of
            an option of "all" share this option.
        module: module with the function `evaluate(config, sources, options) -> int`, imported when it runs.
    """

    config: type[Config]
    options: tuple[str, ...]
    module: str


PROTOCOLS = {
    "all": Protocol(EvaluateConfig, (), "unialign.cli._evaluate"),
    "gram": Protocol(
        GramConfig,
        ("captions", "subset", "text", "joint", "benchmark"),
        "unialign.cli._evaluate_gram",
    ),
    "omni": Protocol(OmniConfig, ("modalities", "pool", "k"), "unialign.cli._evaluate_omni"),
}
