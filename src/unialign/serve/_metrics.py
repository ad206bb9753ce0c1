"""Metrics of the service in the text format of Prometheus."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

__all__ = ["Metrics"]

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CONTENT = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


class Metrics:
    """Counters and histograms; can be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._times: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS) + 1))
        self._sums: dict[tuple[str, str], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        self._counts: dict[tuple[str, str], int] = defaultdict(int)
        self._gauges: dict[str, Callable[[], Mapping[str, float]]] = {}

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        with self._lock:
            self._requests[route, method, status] += 1
            place = next((i for i, bound in enumerate(_BUCKETS) if seconds <= bound), len(_BUCKETS))
            self._times[route][place] += 1
            count, total = self._sums["request", route]
            self._sums["request", route] = count + 1, total + seconds

    def stage(self, name: str, seconds: float) -> None:
        """Add the duration of a stage: `queue`, `encode`, `search` or `rerank`."""
        with self._lock:
            count, total = self._sums["stage", name]
            self._sums["stage", name] = count + 1, total + seconds

    def count(self, name: str, label: str = "", amount: int = 1) -> None:
        """Add to a counter, such as `rejected` with the reason as its label."""
        with self._lock:
            self._counts[name, label] += amount

    def gauge(self, name: str, read: Callable[[], Mapping[str, float]]) -> None:
        """Register a value that is read when metrics are requested; the mapping's keys are labels."""
        self._gauges[name] = read

    def text(self) -> str:
        """Return all metrics."""
        lines: list[str] = []
        with self._lock:
            _head(lines, "requests_total", "counter")
            for (route, method, status), count in sorted(self._requests.items()):
                labels = f'route="{_safe(route)}",method="{_safe(method)}",status="{status}"'
                lines.append(f"unialign_requests_total{{{labels}}} {count}")
            _head(lines, "request_seconds", "histogram")
            for route, counts in sorted(self._times.items()):
                running = 0
                for bound, count in zip((*map(str, _BUCKETS), "+Inf"), counts, strict=True):
                    running += count
                    lines.append(f'unialign_request_seconds_bucket{{route="{_safe(route)}",le="{bound}"}} {running}')
                number, total = self._sums["request", route]
                lines.append(f'unialign_request_seconds_sum{{route="{_safe(route)}"}} {total:.6f}')
                lines.append(f'unialign_request_seconds_count{{route="{_safe(route)}"}} {number}')
            _head(lines, "stage_seconds", "summary")
            for (kind, name), (number, total) in sorted(self._sums.items()):
                if kind == "stage":
                    lines.append(f'unialign_stage_seconds_sum{{stage="{_safe(name)}"}} {total:.6f}')
                    lines.append(f'unialign_stage_seconds_count{{stage="{_safe(name)}"}} {number}')
            for counter in sorted({name for name, _ in self._counts}):
                _head(lines, f"{counter}_total", "counter")
                for (name, label), count in sorted(self._counts.items()):
                    if name == counter:
                        labels = f'{{reason="{_safe(label)}"}}' if label else ""
                        lines.append(f"unialign_{counter}_total{labels} {count}")
        for name, read in self._gauges.items():
            _head(lines, name, "gauge")
            for label, value in read().items():
                labels = f'{{name="{_safe(label)}"}}' if label else ""
                lines.append(f"unialign_{name}{labels} {value:g}")
        return "\n".join(lines) + "\n"


def _head(lines: list[str], name: str, kind: str) -> None:
    lines.append(f"# TYPE unialign_{name} {kind}")


def _safe(text: str) -> str:
    return "".join(_CONTENT.get(letter, letter) for letter in text)
