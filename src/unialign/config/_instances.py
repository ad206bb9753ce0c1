"""Accept an objective instance where a name is expected."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from unialign import registry
from unialign.errors import ConfigError


@runtime_checkable
class ConfigurableModule(Protocol):
    """An objective whose `get_config` returns its constructor arguments."""

    name: str

    def get_config(self) -> dict[str, Any]: ...


def name_and_options(instance: ConfigurableModule) -> tuple[str, dict[str, Any]]:
    """Register the class of the instance under its name in this process."""
    made_of, name = type(instance), instance.name
    options = instance.get_config()
    if not isinstance(options, Mapping):
        raise ConfigError(f"{made_of.__name__}.get_config() must return a dict of its options, got {options!r}")
    try:
        rebuilt: Any = made_of(**options)
        again = rebuilt.get_config()
    except Exception as error:
        raise ConfigError(f"{made_of.__name__}(**get_config()) raises {type(error).__name__}: {error}") from error
    if again != options:
        raise ConfigError(f"{made_of.__name__}(**get_config()) has the options {again!r}, expected {options!r}")
    before, after = (dict(getattr(module, "state_dict", dict)()) for module in (instance, rebuilt))
    if before.keys() != after.keys() or any(not bool((before[key] == after[key]).all()) for key in before):
        raise ConfigError(
            f"this {made_of.__name__} has trained parameters, which settings cannot store; pass a new instance"
        )
    if registry.is_built_in("objectives", name):
        if registry.load("objectives", name) is not made_of:
            raise ConfigError(f"{made_of.__name__}.name is {name!r}, the name of a built-in objective; rename it")
    else:
        registry.register("objectives", name, made_of)
    return name, dict(options)
