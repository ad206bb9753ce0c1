"""Load tuned comparisons, whose settings were chosen on the validation split with equal budget per objective."""

from unialign._datasets import datasets_folder
from unialign.config import CompareConfig
from unialign.errors import ConfigError


def recipe(name: str) -> CompareConfig:
    """Return a comparison of `unialign-datasets` by name, such as `emoji`.

    Raises:
        ConfigError: unknown name; the message lists the names.
        MissingDependencyError: `unialign-datasets` is not installed.
    """
    folder = datasets_folder("recipes")
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no recipe {name!r}; expected one of {', '.join(known)}")
    return CompareConfig.read(folder / f"{name}.yaml")
