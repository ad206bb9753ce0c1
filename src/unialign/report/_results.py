"""Read the results of a folder for a page."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unialign.errors import DataError


def read_results(
    folder: str | os.PathLike[str], command: str, what: str, is_valid: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Read `results.json`; raise DataError unless `is_valid` accepts the content, which `what` names in the message."""
    source = Path(folder) / "results.json"
    try:
        results = json.loads(source.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be read ({error}); run `unialign {command}` again") from None
    if not isinstance(results, dict) or not is_valid(results):
        raise DataError(f"{source} has no {what}; run `unialign {command}` to create it")
    return results
