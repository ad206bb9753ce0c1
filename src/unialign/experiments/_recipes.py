"""Tuned comparisons that are shipped: settings chosen on the validation split, same budget for every objective."""

from pathlib import Path

from unialign.config import CompareConfig
from unialign.errors import ConfigError

__all__ = ["recipe"]

_FOLDER = Path(__file__).parent / "recipes"


def recipe(name: str) -> CompareConfig:
    """A shipped comparison by name, `emoji` for one; `ConfigError` lists the names."""
    path = _FOLDER / f"{name}.yaml"
    known = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"no recipe {name!r}; expected one of {', '.join(known)}")
    return CompareConfig.read(path)
