"""Read YAML files of plain values."""

from pathlib import Path
from typing import Any

from unialign.errors import ConfigError

__all__ = ["read_yaml"]


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML file of plain values; ConfigError names the file when it is missing or malformed."""
    import yaml  # imported here: it takes 20 ms, and help and most errors do not need it

    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}") from None
    # ValueError: invalid UTF-8, a nonexistent date, or an integer with thousands of digits.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path} as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(raw).__name__}")
    return raw
