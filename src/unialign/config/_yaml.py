"""Read YAML files and values without custom types."""

from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"the configuration file {path} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: invalid UTF-8
        raise ConfigError(f"cannot read {path} as YAML: {one_line(error)}") from None
    raw = parse_yaml(text, f"cannot read {path} as YAML")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(raw).__name__}")
    return raw


def parse_yaml(text: str, problem: str) -> Any:
    import yaml  # Imported here because the import takes 20 ms, and help and most errors do not need YAML.

    try:
        return yaml.safe_load(text)
    # ValueError: a nonexistent date, or an integer with thousands of digits.
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{problem}: {one_line(error)}") from None
    except (AttributeError, LookupError, TypeError):
        raise ConfigError(f"{problem}: a value does not fit its tag, such as `!!bool x`") from None
