"""Encoders of sentence-transformers, from the Hugging Face Hub or a folder. Importing this module imports no torch.

A text model with mean or CLS pooling is computed by transformers alone, which is imported several seconds faster. Other
models are computed by the library, which also prepares their inputs.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unialign._checks import check_choice
from unialign.encoders._encoder import Encoder
from unialign.encoders._hub_folder import model_folder
from unialign.encoders._kinds import EncoderKind
from unialign.encoders._names import EncoderName
from unialign.encoders._options import check_media, read_options, text
from unialign.encoders._request import Request
from unialign.encoders._sentence_plan import SentencePlan, plan_sentence
from unialign.media import Kind

if TYPE_CHECKING:
    import torch

__all__ = ["SENTENCE_TRANSFORMERS"]

_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "README.md")


def _create(
    spec: EncoderName,
    *,
    media: Kind | None,
    device: "torch.device",
    dtype: str,
    offline: bool | None,
    folder: Path | None,
    weights: Mapping[str, str] | None,
) -> Encoder:
    request = Request(spec, media, device, dtype, offline, folder, weights)
    place, commit = model_folder(request, patterns=_PATTERNS)
    plan = plan_sentence(place)
    request = replace(request, spec=replace(spec, revision=commit))
    if plan.pooling is None:
        from unialign.encoders._sentence_encoder import sentence_encoder  # imports torch

        kind = check_media(spec, media, ("text", "image", "audio"))
        options = read_options(spec, {"prompt": text(plan.prompt), "prefix": text(None)})
        prefix = _prefix(spec, plan, options["prompt"]) if options["prefix"] is None else options["prefix"]
        return sentence_encoder(request, place, kind, prefix)
    return _plain(request, place, plan)


def _plain(request: Request, place: Path, plan: SentencePlan) -> Encoder:
    from unialign.encoders._transformer_encoder import transformer_encoder  # imports torch
    from unialign.encoders._transformer_plan import plan_transformer

    check_media(request.spec, request.media, ("text",))
    given = {key: value for key, value in request.spec.options.items() if key != "prompt"}
    whole = plan_transformer(
        replace(request.spec, options=given),
        place,
        "text",
        pooling=plan.pooling,
        max_length=plan.max_length,
        lowercase=plan.lowercase,
        prefix=_prefix(request.spec, plan, request.spec.options.get("prompt", plan.prompt)),
    )
    return transformer_encoder(request, place, whole, unit_length=plan.unit_length, extra_files=plan.files)


def _prefix(spec: EncoderName, plan: SentencePlan, prompt: str | None) -> str:
    if prompt is None:
        return ""
    check_choice("prompt", prompt, plan.prompts, owner=f"the encoder {str(spec)!r}")
    return plan.prompts[prompt]


SENTENCE_TRANSFORMERS = EncoderKind("sentence_transformers", _create)
