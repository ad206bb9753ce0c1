"""Combine the routes of all modules, behind the checks of `Front`."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from unialign._version import __version__
from unialign.config import ServeConfig
from unialign.errors import UniAlignError
from unialign.index import Index
from unialign.serve import _dialects, _export, _generate, _items, _search, _state_routes, _static
from unialign.serve._admission import Gone
from unialign.serve._answers import BASE
from unialign.serve._errors import ApiError, as_api_error, error_body
from unialign.serve._front import Front, LaneName, Rule
from unialign.serve._metrics import Metrics
from unialign.serve._service import Decoding, Service, make_service
from unialign.serve._validation import validation_error

__all__ = ["build"]

_OPEN = ("/healthz", "/readyz")
_SEARCHES = (f"{BASE}/search", f"{BASE}/search/files")
_FREE = ("/healthz", "/metrics", "/openapi.json", f"{BASE}/jobs/{{id}}")


def build(
    index: Index | Mapping[str, Index],
    settings: ServeConfig,
    *,
    token: str | None,
    write_token: str | None,
    decoder: Any,
    generation_space: Any,
    store: Any,
    rerankers: Mapping[str, Callable[..., Any]],
) -> Front:
    metrics = Metrics()
    decoding = Decoding(decoder, generation_space, store) if decoder is not None else None
    service = make_service(index, settings, decoding, metrics)
    service.state["rerankers"] = dict(rerankers)
    files = _static.page_files()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    inner = FastAPI(
        title="unialign",
        version=__version__,
        description="Search in an embedding space with any number of modalities.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _add(inner, _state_routes.root_routes(service))
    for routes in (_search.routes, _items.routes, _state_routes.job_routes, _generate.routes, _export.routes):
        _add(inner, routes(service), BASE)
    for further in _further_routes():
        _add(inner, further(service), BASE)
    _add(inner, _static.routes(files, reload=settings.reload_page))
    _add(inner, _dialects.routes(service))
    _handle_errors(inner)
    return Front(
        inner,
        _rules(inner, set(files)),
        settings,
        computing=service.computing,
        token=token,
        write_token=write_token,
        metrics=metrics,
    )


def _further_routes() -> list[Callable[[Service], APIRouter]]:
    """Return the routes of maps, diagnosis and comparison."""
    from importlib import import_module
    from importlib.util import find_spec

    names = ("_maps", "_diagnosis", "_compare")
    found = [f"unialign.serve.{name}" for name in names]
    return [import_module(name).routes for name in found if find_spec(name) is not None]


def _add(inner: FastAPI, router: APIRouter, prefix: str = "") -> None:
    # Flat routes, so that `Front` can list them.
    for route in router.routes:
        inner.router.add_api_route(
            prefix + route.path,  # type: ignore[attr-defined]
            route.endpoint,  # type: ignore[attr-defined]
            methods=sorted(route.methods),  # type: ignore[attr-defined]
            summary=route.summary,  # type: ignore[attr-defined]
            include_in_schema=route.include_in_schema,  # type: ignore[attr-defined]
            openapi_extra=route.openapi_extra,  # type: ignore[attr-defined]
            status_code=route.status_code,  # type: ignore[attr-defined]
            response_class=Response,
        )


def _rules(inner: FastAPI, pages: set[str]) -> list[Rule]:
    found = []
    for route in inner.routes:
        template: str = route.path  # type: ignore[attr-defined]
        methods = tuple(sorted(route.methods))  # type: ignore[attr-defined]
        for method in methods:
            found.append(
                Rule(
                    template.replace(":path}", "}"),
                    _pattern(template),
                    (method,),
                    _lane(template, method, pages),
                    open=template in _OPEN or template in pages,
                    writes=template == f"{BASE}/items/{{key:path}}" and method in ("PUT", "PATCH", "DELETE"),
                    multipart=template == f"{BASE}/search/files",
                )
            )
    return found


def _lane(template: str, method: str, pages: set[str]) -> LaneName:
    if template in pages or template in _FREE:
        return "free"
    if template in _SEARCHES:
        return "search"
    return "light" if method == "GET" or template.endswith("/rows") else "heavy"


def _pattern(template: str) -> re.Pattern[str]:
    steps = re.split(r"(\{[^}]+\})", template)
    return re.compile(
        "".join(
            (".+" if step.endswith(":path}") else "[^/]+") if step.startswith("{") else re.escape(step)
            for step in steps
        ),
        re.DOTALL,
    )


def _handle_errors(inner: FastAPI) -> None:
    def answer(request: Request, error: ApiError) -> Response:
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        content = error_body(error, request.scope.get("state", {}).get("request_id", ""))
        return Response(content, error.status, headers, "application/json")

    @inner.exception_handler(ApiError)
    async def expected(request: Request, error: ApiError) -> Response:
        return answer(request, error)

    @inner.exception_handler(UniAlignError)
    async def of_library(request: Request, error: UniAlignError) -> Response:
        found = as_api_error(error)
        if found.status >= 500:
            import logging

            logging.getLogger("unialign.serve").error("%s", error)
        return answer(request, found)

    @inner.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, validation_error(error.errors()))

    @inner.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)

    @inner.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        # `Front` logs the cause with the request id.
        return answer(request, ApiError(500, "internal", "the service failed; see its log for the cause"))

    @inner.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = {400: "malformed", 404: "no_route", 405: "bad_method"}.get(error.status_code, "bad_request")
        return answer(request, ApiError(error.status_code, code, "the request is malformed"))
