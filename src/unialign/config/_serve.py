"""Settings of the service: limits of requests, and what clients may do."""

from dataclasses import dataclass
from typing import ClassVar

from unialign.config._base import Config, setting
from unialign.config._ranges import integer, not_empty, positive
from unialign.errors import ConfigError

_MIB = 1 << 20


def _origins(name: str, value: tuple[object, ...]) -> None:
    for one in value:
        if not isinstance(one, str) or "://" not in one or one.endswith("/") or "*" in one:
            raise ConfigError(f"{name} must be exact origins such as https://example.org, got {one!r}")


@dataclass(frozen=True, kw_only=True)
class ServeConfig(Config):
    """Settings of `ua.serve.app`. The limits are listed by `GET /api/v1/info`."""

    kind: ClassVar[str] = "service"

    hosts: tuple[str, ...] = setting(
        ("127.0.0.1", "localhost", "::1"), "names under which clients may address the service, without port", not_empty
    )
    origins: tuple[str, ...] = setting((), "origins of other pages that may call the service", _origins)
    writable: bool = setting(False, "whether items may be added, changed and deleted")
    body_bytes: int = setting(_MIB, "largest JSON body, in bytes", integer(1))
    upload_bytes: int = setting(25 * _MIB, "largest multipart body, in bytes", integer(1))
    file_bytes: int = setting(20 * _MIB, "largest file of a multipart body, in bytes", integer(1))
    files: int = setting(8, "largest number of files of a multipart body", integer(1, 64))
    buffered_bytes: int = setting(256 * _MIB, "bytes of all bodies that are held at once", integer(1))
    pixels: int = setting(40_000_000, "largest number of pixels of a picture", integer(1))
    sound_seconds: float = setting(60.0, "longest sound, in seconds", positive)
    sound_channels: int = setting(8, "largest number of channels of a sound", integer(1))
    characters: int = setting(20_000, "longest text, in characters", integer(1))
    key_characters: int = setting(1_000, "longest key, in characters", integer(1))
    k: int = setting(1_000, "largest number of results", integer(1))
    depth: int = setting(10_000, "largest sum of offset and k", integer(1))
    parts: int = setting(16, "largest number of parts of a query", integer(1))
    page_items: int = setting(100, "largest number of items of a page", integer(1))
    export_items: int = setting(100_000, "largest number of exported items", integer(1))
    samples: int = setting(8, "largest number of generated pictures", integer(1))
    header_seconds: float = setting(10.0, "time to send the header of a request, in seconds", positive)
    body_seconds: float = setting(10.0, "time to send the first 256 KiB of a body, in seconds", positive)
    body_rate: float = setting(262_144.0, "slowest rate of the rest of a body, in bytes per second", positive)
    request_seconds: float = setting(30.0, "time to answer a request, in seconds", positive)
    computing: int = setting(0, "number of computations at once (0: the number of cores)", integer(0))
    batch: int = setting(32, "largest number of searches that are computed together", integer(1))
    waiting: int = setting(32, "number of requests that may wait", integer(0))
    wait_seconds: float = setting(2.0, "longest wait, in seconds", positive)
    rate: float = setting(20.0, "computing requests of a client per second", positive)
    burst: int = setting(40, "computing requests of a client at once; 0 disables the limit", integer(0))
    connections: int = setting(16, "requests of a client in progress; 0 disables the limit", integer(0))
    jobs_waiting: int = setting(4, "number of jobs that may wait", integer(0))
    job_seconds: float = setting(3600.0, "time for which the result of a job is kept, in seconds", positive)
    reload_page: bool = setting(False, "whether the files of the page are read at each request, for its development")
    drain_seconds: float = setting(10.0, "time for requests in progress when the service stops, in seconds", positive)
