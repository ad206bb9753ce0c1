"""Test that a table of a million items needs less than a gigabyte."""

import subprocess
import sys
from pathlib import Path

import pytest

WRITE = """
import sys
from unialign.data import Items
def part(start):
    return Items.from_records(
        [{"id": f"animals/cat{i:07d}", "image": f"animals/cat{i:07d}.png", "text": f"A cat, number {i}, sits on a mat.",
          "speech_fr": f"animals/cat{i:07d}_desc_fr.ogg", "group": f"g{i // 3}", "ids": f"c{i // 2}", "split": "train"}
         for i in range(start, start + 100_000)], root=".")
Items.concat([part(start) for start in range(0, 1_000_000, 100_000)]).save(sys.argv[1])
"""

LOAD = """
import sys
from pathlib import Path
from unialign.data import Items
items = Items.load(sys.argv[1])
cells, index = items.column("image")
assert (len(items), len(cells), len(set(items.groups.tolist()))) == (1_000_000, 1_000_000, 333_334)
# Unlike `ru_maxrss`, this does not include memory of the process that started this one.
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs the memory of a process from /proc")
@pytest.mark.timeout(600)
def test_a_million_items_load_within_a_gigabyte(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITE, tmp_path / "table"], check=True)
    done = subprocess.run([sys.executable, "-c", LOAD, tmp_path / "table"], check=True, capture_output=True, text=True)
    kilobytes = int(done.stdout)
    assert kilobytes < 1_000_000
