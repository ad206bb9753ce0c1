"""Run the example of Ray Serve: an index behind a replica, with answers as from the index."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unialign as ua

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(240)]
pytest.importorskip("grpc_reflection", reason="needs ray[serve], as in the environment of `make test-integrations`")

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys, urllib.request
import ray
from ray import serve
import ray_serve

path, port = sys.argv[1], int(sys.argv[2])
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(ray_serve.deployment(path, replicas=1))
body = json.dumps({"parts": [{"item": "item-3"}], "k": 4}).encode()
request = urllib.request.Request(
    f"http://127.0.0.1:{port}/api/v1/search", body, {"content-type": "application/json"}
)
print("ANSWER", urllib.request.urlopen(request, timeout=60).read().decode())
serve.shutdown()
ray.shutdown()
"""


def test_a_replica_answers_as_the_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=(40, 8)).astype(np.float32) for name in ("image", "text")}
    with ua.Index.create(tmp_path / "index", dim=8, modalities=["image", "text"]) as index:
        index.add(rows, keys=[f"item-{number}" for number in range(40)])
        expected = index.search(ua.query(item="item-3"), k=4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'examples'}"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "index"), str(port)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
    lines = [line for line in ran.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, ran.stderr[-3000:]
    answer: dict[str, Any] = json.loads(lines[0].removeprefix("ANSWER "))
    assert [hit["key"] for hit in answer["results"]] == list(expected.keys)
