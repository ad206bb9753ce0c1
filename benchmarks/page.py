"""Measure the page of the service in Chromium without a GPU: `python -m benchmarks.page`.

A service with an index of random clusters, 100,000 rows in two modalities, runs in a process of its own. Every figure
is the median of 5 fresh browser contexts:

- bytes of all files of the page, as sent; requests to other hosts;
- seconds from the start of the navigation to the first result of a search, and to the complete drawing of the map;
- milliseconds between frames while the map moves: median and 95th percentile of 90 frames.

    python -m benchmarks.page                      about a minute
    python -m benchmarks.page --rows 10000 --runs 1    a trial

The exit status is 1 if a figure misses its target. Requires `unialign[serve]`, playwright, and Chromium (`CHROMIUM` or
on the path).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "page.json"
# Figure -> largest value.
TARGETS = {"page_kb": 150.0, "foreign_requests": 0, "first_search_s": 1.0, "map_drawn_s": 1.5, "frame_p95_ms": 60.0}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCREENS = ("search", "map?layout=pca", "health", "make", "export", "compare")
DIM, CLUSTERS = 64, 40
# The policy of the page forbids strings as code, so that a script waits by frames.
DRAWN = """() => new Promise((resolve) => {
  const look = () => {
    const map = document.querySelector('.map-canvas')?.map;
    if (map?.data.n && map.cursor >= map.data.n) resolve([performance.now() / 1000, map.data.n]);
    else requestAnimationFrame(look);
  };
  look();
})"""
FOUND = """() => new Promise((resolve) => {
  const look = () => {
    if (document.querySelector('.result')) resolve(performance.now() / 1000);
    else requestAnimationFrame(look);
  };
  look();
})"""
MOVED = """() => new Promise((resolve) => {
  const { map } = document.querySelector('.map-canvas');
  const times = [];
  let last = null;
  const step = (now) => {
    if (last !== null) times.push(now - last);
    last = now;
    if (times.length === 90) { resolve(times); return; }
    const i = times.length;
    if (i % 30 < 20) map.panBy(6 * Math.cos(i / 9), 6 * Math.sin(i / 9));
    else map.zoomAt(i < 45 ? 1.06 : 1 / 1.05);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the index (default: 100,000)")
    parser.add_argument("--runs", type=int, default=5, help="browser contexts (default: 5)")
    parser.add_argument("--out", type=Path, default=RESULT, help="JSON file of the figures")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_index(folder: Path, rows: int) -> None:
    import numpy as np

    import unialign as ua

    rng = np.random.default_rng(0)
    items = rows // 2
    center = rng.normal(size=(CLUSTERS, DIM))
    shared = center[rng.integers(0, CLUSTERS, items)] + 0.6 * rng.normal(size=(items, DIM))
    z = {name: (shared + 0.3 * rng.normal(size=shared.shape)).astype(np.float32) for name in ("image", "text")}
    z = {name: one / np.linalg.norm(one, axis=1, keepdims=True) for name, one in z.items()}
    with ua.Index.create(folder, dim=DIM, modalities=tuple(z)) as index:
        index.add(z, keys=[f"item-{n}" for n in range(items)])


def serve(folder: Path) -> None:
    import unialign as ua

    with ua.Index.open(folder) as index:
        served = ua.serve.app(index, burst=0, connections=0)
        ua.serve.run(served, port=0, ready=lambda address: print(address.link, flush=True))


def measure(browser: Any, url: str) -> dict[str, float]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    foreign: list[str] = []
    sent: dict[str, int] = {}
    page.on("request", lambda one: None if one.url.startswith((url, "blob:", "data:")) else foreign.append(one.url))

    def finished(request: Any) -> None:
        if request.url.startswith(url) and "/api/" not in request.url:
            # Later visits find unchanged files in the cache.
            sent[request.url] = max(sent.get(request.url, 0), request.sizes()["responseBodySize"])

    page.on("requestfinished", finished)
    found: dict[str, float] = {}
    page.goto(f'{url}#/search?q=[{{"item":"item-7","weight":1}}]')
    found["first_search_s"] = page.evaluate(FOUND)
    page.goto("about:blank")
    page.goto(f"{url}#/map?layout=pca")
    found["map_drawn_s"], found["points"] = page.evaluate(DRAWN)
    times = sorted(page.evaluate(MOVED))
    found["frame_median_ms"] = statistics.median(times)
    found["frame_p95_ms"] = times[int(0.95 * len(times))]
    for screen in SCREENS:
        page.goto(f"{url}#/{screen}")
        page.wait_for_selector(f"#screen-{screen.partition('?')[0]}:not([hidden]) > *", state="attached")
    page.wait_for_load_state("networkidle")
    found["page_kb"] = sum(sent.values()) / 1000
    found["foreign_requests"] = len(foreign)
    context.close()
    return found


def main() -> int:
    given = options()
    if given.serve is not None:
        serve(given.serve)
        return 0
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        make_index(Path(folder) / "index", given.rows)
        command = [sys.executable, "-m", "benchmarks.page", "--serve", f"{folder}/index"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip().partition("#")[0]
            browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
            started = time.perf_counter()
            # The first visit computes the layout.
            measure(browser, url)
            cold = time.perf_counter() - started
            runs = [measure(browser, url) for _ in range(given.runs)]
            chromium = browser.version
            browser.close()
        finally:
            process.terminate()
            process.wait(20)
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    missed = [name for name, most in TARGETS.items() if medians[name] > most]
    for name, value in medians.items():
        target = f"   target {TARGETS[name]:g}{'   MISSED' if name in missed else ''}" if name in TARGETS else ""
        print(f"{name:18} {value:10.3f}{target}")
    print(f"first visit with the computation of the layout: {cold:.1f} s for all steps")
    given.out.parent.mkdir(parents=True, exist_ok=True)
    described = {"median": medians, "runs": runs, "targets": TARGETS, "rows": given.rows, "chromium": chromium}
    given.out.write_text(json.dumps(described | {"cores": os.cpu_count()}, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
