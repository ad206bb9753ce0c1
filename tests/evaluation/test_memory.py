"""The promise of O(N) memory, in bytes: a fresh process measures its own peak."""

import os
import subprocess
import sys

import pytest

COMMON = """
import resource, torch, unialign as ua
torch.set_num_threads(1)
N = 12000                                   # one N x N float64 matrix is 1.15 GB
x = torch.nn.functional.normalize(torch.randn(N, 8, generator=torch.Generator().manual_seed(0)), dim=1)
y = torch.nn.functional.normalize(x + 0.3 * torch.randn(N, 8, generator=torch.Generator().manual_seed(1)), dim=1)
small = slice(0, 64)
{warm}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{call}
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
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


@pytest.mark.parametrize("name", CALLS)
def test_peak_memory_stays_far_below_one_square_matrix(name):
    call = CALLS[name]
    code = COMMON.format(warm=call.format(s="[small]"), call=call.format(s=""))
    code = "from unialign.batch import make_batch\n" + code
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 450, f"{name} took {done.stdout.strip()} MB"
