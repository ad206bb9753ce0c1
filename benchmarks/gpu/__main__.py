"""Compare a CUDA device with float64, then measure the GPU rows of the speed page: `make gpu`.

Without a CUDA device, the command lists the checks. `--device cpu` runs them on the CPU. The exit status is 1 if a
check fails.
"""

import argparse
import sys
import time
import traceback

import torch

from benchmarks.gpu.checks import Check, Unavailable, checks


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", help="cuda, cuda:1 or cpu (default: cuda, if there is one)")
    parser.add_argument("--checks-only", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if arguments.device is None and not torch.cuda.is_available():
        print("There is no CUDA device. With one, this command runs the following checks, then measures the GPU rows:")
        print("\n".join(f"  {name} (error at most {bound:g})" for name, _, bound in checks()))
        return 0
    device = torch.device(arguments.device or "cuda")
    title = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{title}, torch {torch.__version__}")
    failed = [name for name, check, bound in checks() if not run(name, check, bound, device)]
    print(f"failed: {', '.join(failed)}" if failed else "every check holds")
    if device.type == "cuda" and not arguments.checks_only:
        sys.argv = ["benchmarks.speed", "--only", "gpu"]
        from benchmarks.speed.__main__ import main as measure

        measure()
    return int(bool(failed))


def run(name: str, check: Check, bound: float, device: torch.device) -> bool:
    start = time.perf_counter()
    try:
        error = check(device)
    except Unavailable as reason:
        print(f"  skip  {name}: {reason}")
        return True
    except Exception:
        print(f"  FAIL  {name}:\n{traceback.format_exc()}")
        return False
    holds = error <= bound
    seconds = time.perf_counter() - start
    verdict = "ok  " if holds else "FAIL"
    print(f"  {verdict}  {name}: error {error:.1e}, at most {bound:g} ({seconds:.1f} s)", flush=True)
    return holds


if __name__ == "__main__":
    sys.exit(main())
