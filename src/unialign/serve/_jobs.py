"""Jobs: computations that outlast a request. One runs at a time, a few wait, and results are kept for some time."""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from unialign.errors import UniAlignError
from unialign.serve._errors import ApiError, as_api_error

__all__ = ["Cancelled", "Job", "Jobs", "Progress"]

State = Literal["waiting", "running", "done", "failed", "cancelled"]
_LOG = logging.getLogger("unialign.serve")
# Maximum number of finished jobs that are retained.
_MOST_KEPT = 64


class Cancelled(Exception):
    """The job was cancelled by a client."""


@dataclass
class Job:
    """A computation and its state.

    Attributes:
        id: unguessable name.
        kind: for example `generate`.
        state: `waiting`, `running`, `done`, `failed` or `cancelled`.
        done, total: progress; total is 0 while it is unknown.
        result: JSON object of a finished job.
        error: error of a failed job.
    """

    id: str
    kind: str
    key: Hashable = None
    state: State = "waiting"
    done: int = 0
    total: int = 0
    result: Any = None
    error: ApiError | None = None
    ended: float | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    future: "Future[None] | None" = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of `GET /jobs/{id}`."""
        found: dict[str, Any] = {
            "job": self.id,
            "kind": self.kind,
            "state": self.state,
            "done": self.done,
            "total": self.total,
        }
        if self.state == "done":
            found["result"] = self.result
        if self.error is not None:
            found["error"] = {"code": self.error.code, "message": self.error.message}
        return found


class Progress:
    """Report the progress of a computation, and check for its cancellation."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __call__(self, done: int, total: int) -> None:
        """Record the progress; raise Cancelled if a client cancelled the job."""
        self._job.done, self._job.total = done, total
        if self._job.cancel.is_set():
            raise Cancelled


class Jobs:
    """Run one job at a time in a thread."""

    def __init__(self, waiting: int, keep_seconds: float) -> None:
        self._waiting, self._keep = waiting, keep_seconds
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._executor = ThreadPoolExecutor(1, "unialign-job")

    def submit(self, kind: str, compute: Callable[[Progress], Any], *, key: Hashable = None) -> Job:
        """Submit a job, or return the existing job with the same `key`.

        `compute` is called with a `Progress` in a worker thread, and returns a JSON object.

        Raises:
            ApiError: 429 `queue_full` if too many jobs wait.
        """
        with self._lock:
            self._forget()
            for job in self._jobs.values():
                if key is not None and job.key == key and job.state in ("waiting", "running", "done"):
                    return job
            waiting = sum(job.state == "waiting" for job in self._jobs.values())
            running = any(job.state == "running" for job in self._jobs.values())
            if waiting >= self._waiting + (not running):
                raise ApiError(429, "queue_full", f"{waiting} jobs are waiting", limit=self._waiting, retry_after=5)
            job = Job(secrets.token_urlsafe(12), kind, key)
            self._jobs[job.id] = job
            job.future = self._executor.submit(self._run, job, compute)
            return job

    def get(self, job_id: str) -> Job:
        """Return a job; raise ApiError 404 if it is unknown or was discarded."""
        with self._lock:
            self._forget()
            job = self._jobs.get(job_id)
        if job is None:
            raise ApiError(404, "no_job", "there is no such job; results are kept for a limited time")
        return job

    def cancel(self, job_id: str) -> Job:
        """Cancel a job: a waiting one never starts, and a running one ends when it next reports its progress."""
        job = self.get(job_id)
        job.cancel.set()
        with self._lock:
            if job.state == "waiting" and job.future is not None and job.future.cancel():
                job.state, job.ended = "cancelled", time.monotonic()
        return job

    def close(self) -> None:
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, job: Job, compute: Callable[[Progress], Any]) -> None:
        with self._lock:
            if job.state != "waiting":
                return
            job.state = "running"
        state: State = "failed"
        try:
            job.result = compute(Progress(job))
            state = "done"
        except Cancelled:
            state = "cancelled"
        except ApiError as error:
            job.error = error
        except UniAlignError as error:
            _LOG.warning("job %s: %s", job.id, error)
            job.error = as_api_error(error)
        except Exception:
            _LOG.exception("job %s failed", job.id)
            job.error = ApiError(
                500, "internal", f"the job failed; see the log of the service for the cause ({job.id})"
            )
        with self._lock:
            job.state, job.ended = state, time.monotonic()

    def _forget(self) -> None:
        now = time.monotonic()
        ended = sorted((job for job in self._jobs.values() if job.ended is not None), key=lambda job: job.ended or 0.0)
        for place, job in enumerate(ended):
            if now - (job.ended or 0.0) > self._keep or place < len(ended) - _MOST_KEPT:
                del self._jobs[job.id]
