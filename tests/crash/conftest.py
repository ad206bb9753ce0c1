"""The small runs of the trainer's tests are what is killed and damaged here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))
