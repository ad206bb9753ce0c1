"""Bodies of requests. Unknown fields, numbers that are not finite, and wrong types are errors."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

__all__ = [
    "DuplicatesRequest",
    "EmbedRequest",
    "ExportRequest",
    "GenerateRequest",
    "ItemBody",
    "PartBody",
    "SearchRequest",
]

# Bounds that hold for any settings, so that validation itself stays cheap; the settings are checked afterwards.
_Key = Annotated[StrictStr, Field(min_length=1, max_length=10_000)]
_Name = Annotated[StrictStr, Field(min_length=1, max_length=200)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Vector = Annotated[list[_Number], Field(min_length=1, max_length=65_536)]


class Body(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class PartBody(Body):
    """A part of a query: exactly one of `text`, `item`, `vector` and `file`."""

    text: StrictStr | None = None
    item: _Key | None = None
    vector: _Vector | None = None
    file: Annotated[StrictStr, Field(pattern=r"^f\d{1,2}$")] | None = None
    modality: _Name | None = None
    modalities: Annotated[list[_Name], Field(min_length=1, max_length=100)] | None = None
    weight: _Number = 1.0

    @model_validator(mode="after")
    def _one_kind(self) -> "PartBody":
        given = [name for name in ("text", "item", "vector", "file") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a part needs exactly one of text, item, vector and file")
        if self.modalities is not None and self.item is None:
            raise ValueError("modalities can only be given with item")
        if self.modality is not None and self.item is not None:
            raise ValueError("with item, give the list modalities instead of modality")
        if self.weight == 0:
            raise ValueError("weight must not be 0")
        return self


_Parts = Annotated[list[PartBody], Field(max_length=1_000)]


class SearchRequest(Body):
    """Body of `POST /search`."""

    index: _Name | None = None
    parts: _Parts = Field(default_factory=list)
    k: Annotated[StrictInt, Field(ge=1)] = 10
    target: _Name | Annotated[list[_Name], Field(min_length=1, max_length=100)] = "any"
    unit: Literal["item", "row"] = "item"
    where: Annotated[StrictStr, Field(max_length=20_000)] | None = None
    correction: Literal["auto", "none"] = "auto"
    fuse: Literal["mean", "frechet_mean", "max", "rrf"] = "mean"
    exact: StrictBool | Literal["auto"] = "auto"
    deduplicate: _Number | None = None
    rerank: _Name | None = None
    min_probability: Annotated[_Number, Field(ge=0, le=1)] | None = None
    exclude: Annotated[list[_Key], Field(max_length=1_000)] = Field(default_factory=list)
    offset: Annotated[StrictInt, Field(ge=0)] = 0


class EmbedRequest(Body):
    """Body of `POST /embed`."""

    index: _Name | None = None
    parts: _Parts = Field(default_factory=list)


class DuplicatesRequest(Body):
    """Body of `POST /duplicates`."""

    index: _Name | None = None
    threshold: Annotated[_Number, Field(ge=-1, le=1)] | None = None
    within: Literal["modality", "across"] = "modality"
    offset: Annotated[StrictInt, Field(ge=0)] = 0
    limit: Annotated[StrictInt, Field(ge=1, le=1_000)] = 100


class GenerateRequest(Body):
    """Body of `POST /generate`."""

    index: _Name | None = None
    parts: _Parts = Field(default_factory=list)
    seed: Annotated[StrictInt, Field(ge=0, lt=2**31)] = 0
    samples: Annotated[StrictInt, Field(ge=1)] = 1
    strip: Annotated[StrictInt, Field(ge=2, le=16)] | None = None
    steps: Annotated[StrictInt, Field(ge=1, le=200)] | None = None
    guidance: Annotated[_Number, Field(ge=0, le=100)] | None = None


class ExportRequest(Body):
    """Body of `POST /export`."""

    index: _Name | None = None
    what: Literal["results", "selection", "map"] = "selection"
    format: Literal["json", "csv", "parquet", "store.zip"] = "json"
    keys: Annotated[list[_Key], Field(max_length=1_000_000)] | None = None
    where: Annotated[StrictStr, Field(max_length=20_000)] | None = None
    search: SearchRequest | None = None


class ItemBody(Body):
    """Body of `PUT` and `PATCH /items/{key}`: embeddings and texts by modality, label and metadata."""

    index: _Name | None = None
    vectors: Annotated[dict[_Name, _Vector | None], Field(max_length=100)] | None = None
    texts: Annotated[dict[_Name, StrictStr], Field(max_length=100)] | None = None
    label: StrictStr | None = None
    metadata: dict[Annotated[StrictStr, Field(max_length=200)], Any] | None = None
