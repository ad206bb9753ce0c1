"""Plant known faults one at a time in a checkout, and report which of them the tests detect.

    python -m benchmarks.mutations CHECKOUT benchmarks/mutations.json OUT.json [--only ID ...] [--check]

`--check` only verifies that the text of every fault occurs exactly once. Faults whose ids are in OUT are skipped. A
timeout counts as detected. Use a separate clone as CHECKOUT, since its files are overwritten while the tests run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PYTHON = sys.executable
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", re.MULTILINE)


def write(path, text):
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def dump(path, value):
    write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def load(path, default):
    return json.loads(path.read_text("utf-8")) if path.exists() else default


def state_of(root):
    """Hash all sources and tests, for which the results without a mutation are valid."""
    whole = hashlib.sha256()
    for folder in ("src", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


class Runner:
    def __init__(self, root, python, timeout):
        self.root, self.python, self.timeout = root, python, timeout
        self.environment = os.environ | {
            "PYTHONPATH": str(root / "src"),
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        for cache in list((root / "src").rglob("__pycache__")):
            shutil.rmtree(cache, ignore_errors=True)
        where = subprocess.run(
            [python, "-c", "import unialign; print(unialign.__file__)"],
            env=self.environment,
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if not Path(where).resolve().is_relative_to((root / "src").resolve()):
            raise SystemExit(f"python imports unialign from {where} instead of {root / 'src'}")

    def tests(self, names, timeout=None):
        timeout = self.timeout if timeout is None else timeout
        missing = [name for name in names if not (self.root / name.split("::")[0]).exists()]
        if missing:
            return "broken", 0.0, f"no such tests: {', '.join(missing)}"
        command = [self.python, "-m", "pytest", "-p", "no:cacheprovider", "-x", "-q", "--no-header", "-rfE", "--tb=no"]
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, *names],
            env=self.environment,
            cwd=self.root,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_group(process)
            output, _ = process.communicate()
            return "timeout", time.perf_counter() - began, f"timeout after {timeout:.0f} s"
        except BaseException:
            kill_group(process)
            raise
        seconds = time.perf_counter() - began
        if process.returncode == 0:
            return "passed", seconds, None
        found = FAILED.search(output)
        # 1: a test failed; 2: collection failed; 5: no tests; below 0: the interpreter was killed.
        if process.returncode in (1, 2) or process.returncode < 0:
            name = found[1] if found else f"pytest ended with {process.returncode}: {output.strip()[-300:]}"
            return "failed", seconds, name
        return "broken", seconds, f"pytest ended with {process.returncode}: {output.strip()[-300:]}"


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def restore(journal):
    left = load(journal, None)
    if left is not None:
        Path(left["file"]).write_text(left["text"], encoding="utf-8", newline="")
        journal.unlink()
        print(f"restored {left['file']}", flush=True)


def problem_of(root, mutation):
    path = root / mutation["file"]
    if not path.exists():
        return f"no file {mutation['file']}"
    text = path.read_text("utf-8")
    count = text.count(mutation["find"])
    if count != 1:
        return f"`find` occurs {count} times in {mutation['file']}"
    if mutation["find"] == mutation["replace"]:
        return "`replace` equals `find`"
    try:
        compile(text.replace(mutation["find"], mutation["replace"]), str(path), "exec")
    except SyntaxError as error:
        return f"the mutated file has a syntax error: {error}"
    return None


class Baseline:
    def __init__(self, path, runner, state):
        self.path, self.runner = path, runner
        stored = load(path, {})
        self.stored = stored if stored.get("state") == state else {"state": state, "sets": {}}

    def of(self, names):
        sets, key = self.stored["sets"], " ".join(names)
        if key not in sets:
            verdict, seconds, first = self.runner.tests(names, 4 * self.runner.timeout)
            sets[key] = {"verdict": verdict, "seconds": round(seconds, 1), "first failing test": first}
            dump(self.path, self.stored)
            print(f"   without a mutation: {verdict} in {seconds:.0f} s  {key}", flush=True)
        return sets[key]


def run_mutated(runner, mutation, names, timeout, journal):
    path = runner.root / mutation["file"]
    text = path.read_bytes().decode("utf-8")
    dump(journal, {"file": str(path), "text": text})
    try:
        path.write_text(text.replace(mutation["find"], mutation["replace"]), encoding="utf-8", newline="")
        return runner.tests(names, timeout)
    finally:
        path.write_text(text, encoding="utf-8", newline="")
        journal.unlink()


def judge(mutation, runner, baseline, journal):
    """Return the record of a fault: caught by `tests`, else by `wider`, or not at all."""
    record = {key: mutation[key] for key in ("id", "area")}
    record |= {"caught": None, "seconds": 0.0, "first failing test": None, "by": None}
    for kind in ("tests", "wider"):
        names = mutation.get(kind)
        if not names:
            continue
        before = baseline.of(names)
        if before["verdict"] != "passed":
            return record | {"problem": f"{kind} fail without the mutation too: {before['first failing test']}"}
        timeout = max(runner.timeout, 4 * before["seconds"])
        verdict, seconds, first = run_mutated(runner, mutation, names, timeout, journal)
        record["seconds"] = round(record["seconds"] + seconds, 1)
        if verdict == "broken":
            return record | {"problem": first}
        record["caught"] = verdict in ("failed", "timeout")
        if record["caught"]:
            return record | {"first failing test": first, "by": kind}
    return record


def problems_of(root, mutations):
    bad = {m["id"]: problem for m in mutations if (problem := problem_of(root, m))}
    for m in mutations:
        missing = [t for t in (*m["tests"], *m.get("wider", ())) if not (root / t.split("::")[0]).exists()]
        if missing:
            bad.setdefault(m["id"], f"no such tests: {', '.join(missing)}")
    return bad


def print_record(record):
    word = {True: "caught", False: "SURVIVED", None: "INVALID"}[record["caught"]]
    detail = record["first failing test"] or record.get("problem") or ""
    print(f"{record['id']}: {word} in {record['seconds']:.0f} s ({record['by']})  {detail}", flush=True)


def print_totals(mutations, results):
    for area in dict.fromkeys(m["area"] for m in mutations):
        caught = [r["caught"] for r in results if r["area"] == area]
        counts = {
            word: caught.count(value) for word, value in (("caught", True), ("survived", False), ("invalid", None))
        }
        print(f"{area}: " + ", ".join(f"{count} {word}" for word, count in counts.items()))


def parse_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("mutations", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", default=PYTHON)
    parser.add_argument("--only", nargs="+", metavar="ID", help="run only these mutations")
    parser.add_argument("--again", nargs="+", metavar="ID", default=[], help="run these again if OUT has their results")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--check", action="store_true", help="only check every `find` and all paths")
    return parser.parse_args()


def main():
    options = parse_arguments()
    root = options.root.resolve()
    mutations = json.loads(options.mutations.read_text("utf-8"))
    ids = [mutation["id"] for mutation in mutations]
    assert len(set(ids)) == len(ids), "an id occurs twice"
    if unknown := set((options.only or []) + options.again) - set(ids):
        raise SystemExit(f"unknown ids: {', '.join(sorted(unknown))}")
    chosen = [m for m in mutations if options.only is None or m["id"] in options.only]
    journal = options.out.with_name(options.out.name + ".restore.json")
    restore(journal)
    bad = problems_of(root, chosen)
    for name, problem in bad.items():
        print(f"{name}: {problem}", flush=True)
    if options.check:
        print(f"{len(chosen)} mutations, {len(bad)} with a problem")
        return int(bool(bad))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    runner = Runner(root, options.python, options.timeout)
    state = state_of(root)
    baseline = Baseline(options.out.with_name(options.out.name + ".sets.json"), runner, state)
    results = [r for r in load(options.out, []) if r["id"] not in options.again]
    done = {result["id"] for result in results}
    for mutation in chosen:
        if mutation["id"] in done:
            continue
        if mutation["id"] in bad:
            empty = {"caught": None, "seconds": 0.0, "first failing test": None, "by": None}
            record = {"id": mutation["id"], "area": mutation["area"], **empty, "problem": bad[mutation["id"]]}
        else:
            record = judge(mutation, runner, baseline, journal)
        results.append(record)
        dump(options.out, results)
        print_record(record)
    assert state_of(root) == state, "CHECKOUT has changed"
    print_totals(mutations, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
