"""Test that damaged, dangerous and unusual files give a code or the right value, within little memory."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.hostile_files import CASES

TESTS = Path(__file__).parent.parent
MAX_GROWTH_KB = 200 << 10

# Decodes all cases in one process, and records the growth of its peak memory in each.
CHILD = """
import contextlib, json, sys
from pathlib import Path
import numpy as np
from media.hostile_files import ABSENT, CASES, write_cases
from unialign.errors import MediaError
from unialign.media import Audio, Video, load_cell

def peak():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)

folder = Path(sys.argv[1])
root = write_cases(folder)
with (folder / "found.jsonl").open("w", buffering=1) as out:
    for name, case in CASES.items():
        with contextlib.suppress(OSError):
            # Reset the peak to the present use.
            Path("/proc/self/clear_refs").write_text("5")
        before, array = peak(), None
        try:
            found = load_cell(case.cell, case.kind, roots=[root], limits=case.limits, decoding=case.decoding)
        except MediaError as error:
            assert error.where
            result = {"code": error.code, "message": str(error)}
        else:
            array = found.samples if isinstance(found, Audio) else found.frames if isinstance(found, Video) else found
            if isinstance(array, np.ndarray):
                np.save(folder / f"{name}.npy", array)
            result = {"code": ABSENT if found is None else "", "text": found if isinstance(found, str) else None}
        out.write(json.dumps(result | {"name": name, "growth": peak() - before}) + "\\n")
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hostile")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    lines = (folder / "found.jsonl").read_text("utf-8").splitlines()
    assert done.returncode == 0, f"{done.stderr}\nafter {lines[-1:]}"
    results = {result["name"]: result for result in map(json.loads, lines)}
    for name, result in results.items():
        if (folder / f"{name}.npy").exists():
            result["array"] = np.load(folder / f"{name}.npy")
    return results


@pytest.mark.parametrize("name", CASES)
def test_hostile_files_give_a_code_or_the_right_value(found: dict[str, Any], name: str) -> None:
    case, result = CASES[name], found[name]
    assert result["growth"] < MAX_GROWTH_KB
    if not isinstance(case.expected, str):
        assert result["code"] == "", result
        assert result["array"].dtype == (np.uint8 if case.kind in ("image", "video") else np.float32)
        np.testing.assert_allclose(result["array"], case.expected, rtol=0, atol=case.tolerance)
    elif case.kind == "text" and case.expected in ("a", "a\0b", "Grüße"):
        assert result["text"] == case.expected
    else:
        assert result["code"] == case.expected, result
