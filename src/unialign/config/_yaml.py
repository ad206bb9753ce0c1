"""Read YAML of plain values."""

from pathlib import Path
from typing import Any

from unialign._checks import one_line
from unialign.errors import ConfigError


def read_yaml(path: Path) -> dict[str, Any]:
    """Parse a YAML file of plain values; ConfigError names the file when it is missing or malformed."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no configuration file {path}") from None
    except (OSError, ValueError) as error:  # ValueError: invalid UTF-8
        raise ConfigError(f"cannot read {path} as YAML: {one_line(error)}") from None
    raw = parse_yaml(text, f"cannot read {path} as YAML")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(raw).__name__}")
    return raw


def parse_yaml(text: str, problem: str) -> Any:
    """Parse a YAML value; the message of a ConfigError begins with `problem`."""
    import yaml  # Imported here because it takes 20 ms, and help and most errors do not need it.

    try:
        return yaml.safe_load(text)
    # ValueError: a nonexistent date, or an integer with thousands of digits.
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{problem}: {one_line(error)}") from None
    except (AttributeError, LookupError, TypeError):
        raise ConfigError(f"{problem}: a value does not fit its tag, such as `!!bool x`") from None
