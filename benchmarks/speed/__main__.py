"""Measure time, memory and accuracy of the losses and of baselines: `python -m benchmarks.speed`.

Every case runs in a separate process with the same inputs and number of threads. `--resume` continues an interrupted
run of the same source code. The exit status is 1 unless all requirements are met.

    python -m benchmarks.speed                                    all cases; under 45 minutes
    python -m benchmarks.speed --only uniformity --sizes 1024 4096
    python -m benchmarks.speed --only objectives --modalities 3
    python -m benchmarks.speed --page                             only the page and the requirements

Baselines require `unialign[bench]`. Linux only, since memory is read from /proc.
"""

import argparse
import os
import sys
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "results" / "speed.json"


def main() -> int:
    arguments = options()
    # Set before torch is imported, since its thread pool reads these variables only once.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from benchmarks.speed.run import run

    return run(arguments)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--only", nargs="+", help="prefixes of groups: uniformity infonce sigmoid objectives gpu ...")
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of items B")
    parser.add_argument("--modalities", nargs="+", type=int, help="for whole objectives")
    parser.add_argument("--names", nargs="+", help="implementations or objectives (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep results of the same source code")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, help="page to write (default: the documentation's page, without --out)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
