"""Route `/generate`: generate images in a job.

Shapes: `D` dimension of the decoder's space, `T` steps of an interpolation.
"""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from fastapi import APIRouter
from torch import Tensor

from unialign.errors import ConfigError
from unialign.index import Index
from unialign.serve._answers import json_response, media_links
from unialign.serve._errors import ApiError
from unialign.serve._jobs import Progress
from unialign.serve._queries import check_modality, modality_of_kind
from unialign.serve._schemas import GenerateRequest, PartBody
from unialign.serve._service import Decoding, Service

__all__ = ["routes"]

_NO_DIRECTION = 1e-6
_TEXT = "text"


def routes(service: Service) -> APIRouter:
    """Return the route of image generation."""
    router = APIRouter()

    @router.post("/generate", status_code=202, summary="Generate images of a mixture, as a job")
    async def generate(body: GenerateRequest) -> Any:
        name, index = service.index(body.index)
        if service.decoding is None:
            raise ApiError(
                409, "no_decoder", "the service has no decoder; `unialign serve --decoder` names one", field=None
            )
        limit = service.settings.samples
        if body.samples > limit:
            raise ApiError(
                422,
                "too_many_samples",
                f"samples is {body.samples}; the limit is {limit}",
                field="samples",
                limit=limit,
            )
        _check_parts(service, index, body)
        job = service.jobs.submit("generate", lambda progress: _pictures(service, name, index, body, progress))
        return json_response({"job": job.id, "state": job.state}, 202)

    return router


def _check_parts(service: Service, index: Index, body: GenerateRequest) -> None:
    parts, settings = body.parts, service.settings
    if not parts:
        raise ApiError(422, "no_parts", "the mixture needs at least one part: a text or an item")
    if len(parts) > settings.parts:
        raise ApiError(
            422, "too_many_parts", f"{len(parts)} parts; the limit is {settings.parts}", limit=settings.parts
        )
    if body.strip is not None and not 2 <= len(parts) <= body.strip:
        raise ApiError(422, "bad_strip", f"a strip of {body.strip} needs 2 to {body.strip} parts", field="strip")
    for place, part in enumerate(parts):
        field = f"parts[{place}]"
        if part.file is not None:
            raise ApiError(422, "no_file", "images are generated from texts and items only", field=field)
        if part.item is not None and part.item not in index:
            raise ApiError(422, "unknown_item", f"the index has no item {part.item[:100]!r}", field=field)
        if part.text is not None:
            if len(part.text) > settings.characters or not part.text.strip():
                raise ApiError(422, "too_long", "the text is blank or too long", field=field)
            modality_of_kind(index, _TEXT, part.modality, field)
        for name in part.modalities or ():
            check_modality(index, name, field)


def _pictures(service: Service, name: str, index: Index, body: GenerateRequest, progress: Progress) -> dict[str, Any]:
    from unialign.generation import Condition, decode, generate_images, interpolate, png_bytes, resolve_anchor

    decoding = service.decoding
    assert decoding is not None
    space = decoding.space if decoding.space is not None else index.space
    if space is None:
        raise ConfigError("the index has no space, so its mixtures cannot be decoded")
    anchor = resolve_anchor(space, decoding.decoder)
    rows = [_part_row(index, decoding, space, anchor, part) for part in body.parts]
    if body.strip is not None:
        z_TD = interpolate(torch.stack([z_D for z_D, _ in rows]), steps=body.strip)
    else:
        z_TD = _mixture([z_D for z_D, _ in rows], [part.weight for part in body.parts])[None]
    label = " + ".join(label for _, label in rows)
    found = []
    for step, z_D in enumerate(z_TD):
        progress(step, len(z_TD))
        options: dict[str, Any] = {"steps": body.steps, "guidance": body.guidance}
        row: dict[str, Any] = {"name": label if body.strip is None else f"step {step + 1} of {len(z_TD)}"}
        if decoding.store is not None:
            result = generate_images(
                space,
                decoding.decoder,
                decoding.store,
                [Condition(label, (label,), z_D)],
                samples=body.samples,
                anchor=anchor,
                seed=body.seed,
                **options,
            )
            images = result.images[0]
            row["nearest"] = _with_media(service, name, index, decoding, result.nearest[0])
            row["copies"] = (
                None if result.copies is None else _with_media(service, name, index, decoding, result.copies[0])
            )
        else:
            images = torch.cat(
                [
                    decode(space, decoding.decoder, z_D[None], anchor=anchor, seed=body.seed + sample, **options)
                    for sample in range(body.samples)
                ]
            )
        row["images"] = [
            "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode("ascii") for image in images
        ]
        found.append(row)
    progress(len(z_TD), len(z_TD))
    return {"rows": found, "anchor": anchor, "seed": body.seed}


def _part_row(index: Index, decoding: Decoding, space: Any, anchor: str, part: PartBody) -> tuple[Tensor, str]:
    """Return the (D,) unit row of a part in the decoder's space, and its label."""
    same = decoding.space is None or decoding.space is index.space
    if part.vector is not None:
        if not same:
            raise ApiError(
                409, "other_space", "the decoder uses another space, so it cannot decode vectors of this index"
            )
        z_D = torch.tensor(part.vector, dtype=torch.float32)
        return z_D / torch.linalg.vector_norm(z_D).clamp_min(1e-12), "vector"
    if part.text is not None:
        modality = modality_of_kind(index, _TEXT, part.modality, "parts")
        if same:
            return index.encode({modality: [part.text]})[modality][0], part.text
        return _encoded_text(index, space, modality, part.text), part.text
    key = str(part.item)
    item = index.get(key)
    # From the item's own anchor row, the decoder would only reproduce its image.
    chosen = part.modalities or [name for name in item.modalities if name != anchor] or list(item.modalities)
    if same:
        rows = [torch.from_numpy(item.rows[name]) for name in chosen if name in item.rows]
    else:
        rows = _stored_rows(decoding, space, key, [name for name in chosen if name in space.modalities])
    if not rows:
        raise ApiError(409, "no_rows", f"the item {key[:100]!r} has none of {', '.join(chosen)} in the decoder's space")
    return _mixture(rows, [1.0] * len(rows)), item.name


def _encoded_text(index: Index, space: Any, modality: str, text: str) -> Tensor:
    encode = index.encoders[modality].encode
    if modality not in space.modalities:
        raise ApiError(409, "no_encoder", f"the decoder's space has no modality {modality!r}")
    if encode is None:
        return torch.as_tensor(space.encode({modality: [text]})[modality][0])
    return torch.as_tensor(space.encode({modality: encode([text])})[modality][0])


def _stored_rows(decoding: Decoding, space: Any, key: str, modalities: Sequence[str]) -> list[Tensor]:
    from unialign.generation import embed_items

    row = _row_of(decoding.store, key) if decoding.store is not None else None
    if row is None:
        raise ApiError(409, "other_space", f"the decoder uses another space, and its data has no item {key[:100]!r}")
    names = [name for name in modalities if name in decoding.store.columns]
    z, present = embed_items(space, decoding.store, [row], names)
    return [z[name][0] for name in names if bool(present[name][0])]


def _row_of(store: Any, key: str) -> int | None:
    """Return the row of the item with this key, by the rule of `Index.from_store`."""
    names = list(store.item_names) if store.has_names else []
    if len(set(names)) == store.items:
        return names.index(key) if key in names else None
    return int(key) if key.isdecimal() and int(key) < store.items else None


def _mixture(rows: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total_D = sum(
        (weight * z_D.double() for weight, z_D in zip(weights, rows, strict=True)), torch.zeros_like(rows[0].double())
    )
    norm = float(torch.linalg.vector_norm(total_D))
    if norm <= _NO_DIRECTION * sum(map(abs, weights)):
        raise ApiError(422, "cancelled_out", "the parts cancel, so their sum has no direction")
    return (total_D / norm).float()


def _with_media(service: Service, name: str, index: Index, decoding: Decoding, near: Any) -> list[dict[str, Any]]:
    """Add keys and media of items that are in the index."""
    found = []
    for one in near:
        entry = {key: value for key, value in one.items() if key != "row"}
        key = one["name"] if one["name"] in index else str(one["row"])
        if key in index:
            entry["key"], entry["media"] = key, media_links(service, name, index, key)
        found.append(entry)
    return found
