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
        ("127.0.0.1", "localhost", "::1"),
        "host names that clients may use to address the service, without port",
        not_empty,
    )
    origins: tuple[str, ...] = setting((), "origins of other web pages that may call the service", _origins)
    writable: bool = setting(False, "whether items may be added, changed and deleted")
    body_bytes: int = setting(_MIB, "maximum size of a JSON body, in bytes", integer(1))
    upload_bytes: int = setting(25 * _MIB, "maximum size of a multipart body, in bytes", integer(1))
    file_bytes: int = setting(20 * _MIB, "maximum size of a file in a multipart body, in bytes", integer(1))
    files: int = setting(8, "maximum number of files in a multipart body", integer(1, 64))
    buffered_bytes: int = setting(
        256 * _MIB, "maximum total size of the request bodies in memory, in bytes", integer(1)
    )
    pixels: int = setting(40_000_000, "maximum number of pixels of an image", integer(1))
    sound_seconds: float = setting(60.0, "maximum duration of audio, in seconds", positive)
    sound_channels: int = setting(8, "maximum number of audio channels", integer(1))
    characters: int = setting(20_000, "maximum length of a text, in characters", integer(1))
    key_characters: int = setting(1_000, "maximum length of a key, in characters", integer(1))
    k: int = setting(1_000, "maximum number of results", integer(1))
    depth: int = setting(10_000, "maximum of offset + k", integer(1))
    parts: int = setting(16, "maximum number of parts of a query", integer(1))
    page_items: int = setting(100, "maximum number of items on a page", integer(1))
    export_items: int = setting(100_000, "maximum number of exported items", integer(1))
    samples: int = setting(8, "maximum number of generated images", integer(1))
    header_seconds: float = setting(10.0, "time limit for receiving the header of a request, in seconds", positive)
    body_seconds: float = setting(10.0, "time limit for receiving the first 256 KiB of a body, in seconds", positive)
    body_rate: float = setting(262_144.0, "minimum transfer rate of the rest of a body, in bytes per second", positive)
    request_seconds: float = setting(30.0, "time limit for answering a request, in seconds", positive)
    computing: int = setting(0, "number of concurrent computations (0: the number of cores)", integer(0))
    batch: int = setting(32, "maximum number of searches per batch", integer(1))
    waiting: int = setting(32, "maximum number of waiting requests", integer(0))
    wait_seconds: float = setting(2.0, "maximum waiting time, in seconds", positive)
    rate: float = setting(20.0, "maximum rate of computing requests per client, in requests per second", positive)
    burst: int = setting(40, "maximum burst of computing requests per client; 0 disables the limit", integer(0))
    connections: int = setting(16, "maximum number of concurrent requests per client; 0 disables the limit", integer(0))
    jobs_waiting: int = setting(4, "maximum number of waiting jobs", integer(0))
    job_seconds: float = setting(3600.0, "time for which the result of a job is kept, in seconds", positive)
    reload_page: bool = setting(
        False, "whether to read the files of the web page again at each request, for development"
    )
    drain_seconds: float = setting(
        10.0, "time limit for finishing requests when the service stops, in seconds", positive
    )
