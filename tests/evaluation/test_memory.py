"""Test that the peak memory of evaluations is O(N), in bytes of all tensors and arrays."""

import tracemalloc
from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import normalize
from torch.profiler import ProfilerActivity, profile

import unialign as ua
from unialign.batch import make_batch

N = 12000  # One N x N float64 matrix takes 1.15 GB.
CALLS: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "retrieval": lambda x, y: ua.metrics.retrieval(x, y),
    "conflict": lambda x, y: ua.geometry.conflict({"a": x, "b": y}, anchor="a"),
    "joint": lambda x, y: ua.evaluation.joint_retrieval(
        make_batch({"a": x, "b": y, "c": x + y}), 0, query="others", score="volume", ids_N=torch.arange(N), k=(1,)
    ),
    "gram": lambda x, y: ua.evaluation.gram_protocol(
        {"text": x, "video": y}, present={"text": torch.arange(N) < 6000}, resamples=100
    ),
    "interval": lambda x, y: ua.metrics.retrieval(x[:4000], y[:4000]).interval(resamples=2000),
}


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            call()
        peak_of_arrays = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak_of_tensors = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak_of_tensors = max(peak_of_tensors, alive)
    assert peak_of_tensors > 0
    return peak_of_tensors + peak_of_arrays


@pytest.fixture(autouse=True, scope="module")
def _modules_of_the_profiler() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True):
        pass


def test_the_peak_counts_tensors_alive_at_the_same_time():
    def call() -> None:
        for _ in range(3):
            torch.zeros(1000, 1000) + 1

    megabytes = peak_bytes(call) / 1e6
    assert 8 <= megabytes < 9


@pytest.mark.parametrize("name", CALLS)
def test_peak_memory_stays_far_below_one_square_matrix(name):
    generator = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(N, 8, generator=generator), dim=1)
    y = normalize(x + 0.3 * torch.randn(N, 8, generator=generator), dim=1)
    assert peak_bytes(lambda: CALLS[name](x, y)) < 450e6
