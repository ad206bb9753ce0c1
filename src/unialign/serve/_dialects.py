"""Embedding endpoints that are compatible with the APIs of OpenAI and Cohere."""

import json
from typing import Any

from fastapi import APIRouter, Request

from unialign.errors import UniAlignError
from unialign.index import Index
from unialign.serve._answers import json_response
from unialign.serve._cohere import cohere_embed
from unialign.serve._errors import ApiError, as_api_error
from unialign.serve._openai import openai_embeddings, openai_models
from unialign.serve._service import Service

__all__ = ["routes"]

_BODY = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}


def routes(service: Service) -> APIRouter:
    """Return the routes; errors have the format of each API."""
    router = APIRouter()

    @router.get("/v1/models", summary="List the indexes as models, in OpenAI's format")
    async def models() -> Any:
        return json_response(openai_models(service.indexes))

    @router.post("/v1/embeddings", summary="Embeddings in OpenAI's format", openapi_extra=_BODY)
    async def embeddings(request: Request) -> Any:
        try:
            contents = await _contents(request)
            index = _chosen(service, contents)
            return json_response(await service.compute(openai_embeddings, index, contents))
        except (ApiError, UniAlignError) as error:
            found = error if isinstance(error, ApiError) else as_api_error(error)
            kind = "invalid_request_error" if found.status < 500 else "server_error"
            body = {"error": {"message": found.message, "type": kind, "param": found.field, "code": found.code}}
            return json_response(body, found.status)

    @router.post("/v2/embed", summary="Embeddings in Cohere's format", openapi_extra=_BODY)
    async def embed(request: Request) -> Any:
        try:
            contents = await _contents(request)
            index = _chosen(service, contents)
            return json_response(await service.compute(cohere_embed, index, contents))
        except (ApiError, UniAlignError) as error:
            found = error if isinstance(error, ApiError) else as_api_error(error)
            return json_response({"message": found.message}, found.status)

    return router


async def _contents(request: Request) -> dict[str, Any]:
    try:
        contents = json.loads(await request.body(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "malformed", "the body is not valid JSON") from None
    if not isinstance(contents, dict):
        raise ApiError(400, "malformed", "the body must be a JSON object")
    return contents


def _chosen(service: Service, contents: dict[str, Any]) -> Index:
    model = contents.get("model")
    if model is not None and not isinstance(model, str):
        raise ApiError(422, "bad_request", "model must be a string", field="model")
    return service.index(model)[1]


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
