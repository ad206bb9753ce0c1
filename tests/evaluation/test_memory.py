"""Check O(N) memory in bytes: a fresh process measures its peak."""

import os
import subprocess
import sys

# Forked for each call, so that torch is imported once.
CODE = """
import os, resource, torch, unialign as ua
from unialign.batch import make_batch
torch.set_num_threads(1)
N = 12000                                   # one N x N float64 matrix is 1.15 GB
x = torch.nn.functional.normalize(torch.randn(N, 8, generator=torch.Generator().manual_seed(0)), dim=1)
y = torch.nn.functional.normalize(x + 0.3 * torch.randn(N, 8, generator=torch.Generator().manual_seed(1)), dim=1)
for name, call in 2 * list({calls!r}.items()):
    if os.fork():
        assert os.wait()[1] == 0, name
        continue
    eval(call.format(s="[:64]"))            # imports and buffers that do not grow with N
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    eval(call.format(s=""))
    print(name, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, flush=True)
    os._exit(0)
"""
CALLS = {
    "retrieval": "ua.metrics.retrieval(x{s}, y{s})",
    "conflict": "ua.geometry.conflict({{'a': x{s}, 'b': y{s}}}, anchor='a')",
    "joint": (
        "ua.evaluation.joint_retrieval(make_batch({{'a': x{s}, 'b': y{s}, 'c': x{s} + y{s}}}), 0, query='others', "
        "score='volume', ids_N=torch.arange(len(x{s})), k=(1,))"
    ),
    "interval": "ua.metrics.retrieval(x[:4000], y[:4000]).interval(resamples=2000)",
}


def test_peak_memory_stays_far_below_one_square_matrix():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CODE.format(calls=CALLS)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    grown: dict[str, int] = {}
    for name, megabytes in (line.split() for line in done.stdout.splitlines()):
        # The allocator may add to a peak, never take from it: the smaller of two measurements counts.
        grown[name] = min(int(megabytes), grown.get(name, int(megabytes)))
    assert grown.keys() == CALLS.keys()
    assert max(grown.values()) < 450, f"{grown} MB"
