"""The service as an ASGI app."""

from collections.abc import Callable, Mapping
from typing import Any

from unialign._optional import optional_module
from unialign.config import ServeConfig
from unialign.errors import ConfigError
from unialign.index import Index

__all__ = ["app"]


def app(
    index: Index | Mapping[str, Index],
    *,
    token: str | None = None,
    write_token: str | None = None,
    decoder: Any = None,
    generation_space: Any = None,
    store: Any = None,
    rerankers: Mapping[str, Callable[..., Any]] | None = None,
    config: ServeConfig | None = None,
    **settings: Any,
) -> Any:
    """Return an ASGI app that serves indexes over HTTP, with a web page.

    The app checks host, origin, token, route, size and admission before it reads a body. It fetches no URLs, takes no
    paths from clients, and writes nothing to the disk except changes of a `writable` index.

    Args:
        index: an index, or a mapping of names to indexes, of which the first is the default.
        token: secret that clients send as `Authorization: Bearer TOKEN`. None: no authentication; only for a service
            that no other computer can reach, or that is behind a proxy with authentication.
        write_token: secret that allows changes. Default: `token`.
        decoder: a `unialign.generation.Decoder`, which enables `POST /generate`.
        generation_space: space with a frozen anchor, in which mixtures are decoded. Default: the space of the index.
        store: features of the items for `generation_space`, and training items to compare generated images with.
        rerankers: name -> callable for the option `rerank` of searches.
        config: settings. Default: `ServeConfig()`.
        settings: individual settings to override, such as `writable=True`, `hosts=("search.example.org",)`.

    Returns:
        An ASGI app for uvicorn, Ray Serve or tests.

    Raises:
        ConfigError: a setting is invalid.
        MissingDependencyError: fastapi is not installed.
    """
    chosen = (config or ServeConfig()).override(settings)
    for name, secret in (("token", token), ("write_token", write_token)):
        if secret is not None and (not isinstance(secret, str) or not secret.isascii() or len(secret) < 16):
            raise ConfigError(f"{name} must be a string of at least 16 ASCII characters")
    optional_module("fastapi", "the service", "serve")
    optional_module("python_multipart", "the service", "serve")
    from unialign.serve._routes import build

    return build(
        index,
        chosen,
        token=token,
        write_token=write_token,
        decoder=decoder,
        generation_space=generation_space,
        store=store,
        rerankers=rerankers or {},
    )
