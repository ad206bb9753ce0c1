"""Turn the parts of a request into a query of an index."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from unialign._checks import suggestion
from unialign.config import ServeConfig
from unialign.index import Index, Query, query
from unialign.serve._errors import ApiError
from unialign.serve._media import read_media
from unialign.serve._schemas import PartBody

__all__ = ["check_modality", "encoded", "make_query", "modality_of_kind"]


def make_query(index: Index, parts: Sequence[PartBody], files: Mapping[str, bytes], settings: ServeConfig) -> Query:
    """Return the weighted sum of the parts; files are decoded.

    Raises:
        ApiError: a part is invalid, refers to an unknown item, modality or file, or has no encoder.
    """
    if not parts:
        raise ApiError(422, "no_parts", "a search needs at least one part: a text, an item, a vector or a file")
    if len(parts) > settings.parts:
        raise ApiError(
            422,
            "too_many_parts",
            f"{len(parts)} parts; the limit is {settings.parts}",
            field="parts",
            limit=settings.parts,
        )
    used = {part.file for part in parts if part.file is not None}
    if unused := sorted(set(files) - used):
        raise ApiError(422, "unused_file", f"no part uses the file {unused[0]}", field=unused[0])
    terms = [_term(index, part, files, settings, f"parts[{place}]") for place, part in enumerate(parts)]
    return reduce(lambda a, b: a + b, terms)


def _term(index: Index, part: PartBody, files: Mapping[str, bytes], settings: ServeConfig, field: str) -> Query:
    if part.item is not None:
        for name in part.modalities or ():
            check_modality(index, name, f"{field}.modalities")
        if part.item not in index:
            raise ApiError(422, "unknown_item", f"the index has no item {part.item[:100]!r}", field=f"{field}.item")
        return query(item=part.item, modalities=part.modalities, weight=part.weight)
    if part.vector is not None:
        if part.modality is None:
            raise ApiError(422, "no_modality", "a vector needs its modality", field=f"{field}.modality")
        check_modality(index, part.modality, f"{field}.modality")
        vector_D = np.asarray(part.vector, np.float64)
        if vector_D.shape != (index.dim,):
            raise ApiError(
                422,
                "bad_vector",
                f"the vector has {len(vector_D)} numbers, expected {index.dim}",
                field=f"{field}.vector",
                limit=index.dim,
            )
        return query(vector=vector_D, modality=part.modality, weight=part.weight)
    if part.text is not None:
        if len(part.text) > settings.characters:
            raise ApiError(
                422,
                "too_long",
                f"the text has more than {settings.characters:,} characters",
                field=f"{field}.text",
                limit=settings.characters,
            )
        if not part.text.strip():
            raise ApiError(422, "blank_text", "the text is blank", field=f"{field}.text")
        # An encoder of another kind would read a text as a file path, so the kind is checked.
        return query(**{modality_of_kind(index, "text", part.modality, field): part.text}, weight=part.weight)
    name = part.file or ""
    if name not in files:
        raise ApiError(422, "no_file", f"the request has no file {name}", field=f"{field}.file")
    kind, media = read_media(files[name], settings, field=name)
    return query(**{modality_of_kind(index, kind, part.modality, field): media}, weight=part.weight)


def check_modality(index: Index, name: str, field: str) -> None:
    """Raise ApiError 422 for an unknown modality."""
    if name not in index.modalities:
        raise ApiError(
            422,
            "unknown_modality",
            f"the index has no modality {name!r}; it has {', '.join(index.modalities)}"
            f"{suggestion(name, list(index.modalities))}",
            field=field,
        )


def modality_of_kind(index: Index, kind: str, name: str | None, field: str) -> str:
    """Return the modality whose encoder reads this kind of media; ApiError 409 if there is none."""
    kinds = {modality: encoder.kind for modality, encoder in index.encoders.items()}
    if name is not None:
        check_modality(index, name, f"{field}.modality")
        if kinds.get(name) != kind:
            reason = index.can_encode(name) or f"the encoder of {name!r} reads {kinds[name]}, not {kind}"
            raise ApiError(409, "no_encoder", reason, field=field)
        return name
    found = [modality for modality, one in kinds.items() if one == kind]
    if not found:
        known = ", ".join(sorted(set(kinds.values()))) or "no raw media"
        raise ApiError(409, "no_encoder", f"the index cannot encode {kind}; it encodes {known}", field=field)
    return kind if kind in found else found[0]


def encoded(index: Index, queries: Sequence[Query]) -> list[Query]:
    """Replace raw media with their embeddings, with one call of each encoder for all queries."""
    values: dict[str, list[Any]] = {}
    for one in queries:
        for part in one.parts:
            if part.kind == "input":
                values.setdefault(str(part.modality), []).append(part.value)
    if not values:
        return list(queries)
    rows = {name: iter(index.encode({name: given})[name].double().numpy()) for name, given in values.items()}
    return [
        reduce(
            lambda a, b: a + b,
            (
                query(vector=next(rows[str(part.modality)]), modality=part.modality, weight=part.weight)
                if part.kind == "input"
                else Query((part,))
                for part in one.parts
            ),
        )
        for one in queries
    ]
