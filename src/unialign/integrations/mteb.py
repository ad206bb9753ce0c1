"""Run the tasks of mteb on a space, or on a space that was saved as a SentenceTransformer folder."""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from unialign.errors import ConfigError, MissingDependencyError
from unialign.integrations._mteb_encoder import MODALITIES, SpaceEncoder, chosen_modalities
from unialign.space import Space, fingerprint_of, space_fingerprint


def model(
    space: Space | str | os.PathLike[str],
    *,
    modalities: Mapping[str, str] | None = None,
    name: str | None = None,
    revision: str | None = None,
) -> SpaceEncoder:
    """Return a space as an encoder for `mteb.evaluate`, with the encoders of the space.

    Use this function for what a SentenceTransformer folder cannot hold, such as built-in, ONNX or timm encoders, videos
    and items with several modalities. The embedding of an item with several modalities is the mean of its unit rows,
    normalized again. Sounds are resampled and frames of videos are chosen as in `Space.encode`, and batches with a
    modality that the space does not encode raise an error. Sounds and videos of a data set on the Hub require
    `torchcodec`, which `datasets` uses to decode them.

    Args:
        space: a space with encoders, or its folder or Hub name.
        modalities: mapping of `text`, `image`, `audio` and `video` to the modality of the space. None: the modality of
            the same name, or the only one with an encoder of this kind of media.
        name: name of the model in results, `owner/name`. None: the Hub name, or `unialign/` and the name of the folder.
        revision: revision in results. None: the first 40 characters of a sha256 of the weights and the fingerprints of
            the encoders, so that mteb does not reuse cached results of other weights.

    Returns:
        An `mteb.EncoderProtocol`, with the attributes `space` and `modalities`.

    Raises:
        ConfigError: the space has no encoder of these media, several modalities fit, or the name is not of the form
            `owner/name`.
        MissingDependencyError: mteb is not installed.
    """
    meta = _library("mteb.models").ModelMeta
    source = "unialign/space"
    if not isinstance(space, Space):
        folder = Path(space)
        source = f"unialign/{folder.resolve().name}" if folder.is_dir() else str(space)
        space = Space.from_pretrained(space)
    name = _checked_name(name or source)
    chosen = chosen_modalities(space, modalities)
    details = {
        "name": name,
        "revision": revision or space_fingerprint(space, encoders=chosen.values())[:40],
        "modalities": list(chosen),
        "embed_dim": space.dim,
        "framework": ["PyTorch"],
        "similarity_fn_name": _library("mteb.models.model_meta").ScoringFunction.COSINE,
        "use_instructions": False,
    }
    return SpaceEncoder(space, chosen, meta.create_empty(overwrites=details))


def wrap(model: Any, *, name: str | None = None, revision: str | None = None, device: str | None = None) -> Any:
    """Wrap a model as an encoder for `mteb.evaluate` that declares the modalities of the model.

    For a model from a folder, mteb assumes that text is the only modality, and returns an empty array for images. The
    returned encoder declares the modalities of the model, and raises an error for inputs without any of these
    modalities.

    Args:
        model: a `SentenceTransformer`, or its folder or Hub name.
        name: name of the model in results, `owner/name`. None: the Hub name, or `unialign/` and the name of the folder.
        revision: revision in results. None: the first 40 characters of a sha256 of the weights, so that mteb does not
            reuse cached results of other weights.
        device: device to load the model on. None: the default of sentence-transformers.

    Returns:
        An `mteb.EncoderProtocol`.

    Raises:
        ConfigError: the model is of another type, or the name is not of the form `owner/name`.
        MissingDependencyError: mteb or sentence-transformers is not installed.
    """
    wrappers = _library("mteb.models.sentence_transformer_wrapper")
    model, name = _load(model, name, device)
    name = _checked_name(name)
    # mteb resamples sounds to this rate.
    encoder = _encoder_class(wrappers)(model, target_sampling_rate=_sampling_rate(model))
    modalities = [name for name in MODALITIES if name in model.modalities]
    changes = {"name": name, "revision": revision or _fingerprint(model), "modalities": modalities}
    encoder.mteb_model_meta = encoder.mteb_model_meta.model_copy(update=changes)
    return encoder


def _checked_name(name: str) -> str:
    if name.count("/") != 1:
        raise ConfigError(f"the name of a model in mteb has the form 'owner/name', got {name!r}; pass name=")
    return name


def _load(model: Any, name: str | None, device: str | None) -> tuple[Any, str]:
    sentence_transformer = _library("sentence_transformers").SentenceTransformer
    if isinstance(model, str | os.PathLike):
        folder = Path(model)
        source = f"unialign/{folder.resolve().name}" if folder.is_dir() else str(model)
        return sentence_transformer(str(model), device=device), name or source
    if not isinstance(model, sentence_transformer):
        raise ConfigError(
            f"mteb evaluates a SentenceTransformer, its folder or its Hub name, got {type(model).__name__}; for a "
            f"Space use `ua.integrations.mteb.model(space)`, or save it as a folder of sentence-transformers"
        )
    if device is not None:
        raise ConfigError("device is an option of a folder or Hub name; move the SentenceTransformer with model.to")
    return model, name or "unialign/space"


def _encoder_class(wrappers: Any) -> type:
    class Encoder(wrappers.SentenceTransformerEncoderWrapper):  # type: ignore[misc]
        """Raise an error for inputs without a supported modality."""

        def encode(self, inputs: Any, **options: Any) -> Any:
            given = [name for name in MODALITIES if name in inputs.dataset.features]
            known = self.mteb_model_meta.modalities
            if not set(given) & set(known):
                raise ConfigError(
                    f"the task has {', '.join(given) or 'no known modality'}, but the model encodes {', '.join(known)}"
                )
            return super().encode(inputs, **options)

    return Encoder


def _sampling_rate(model: Any) -> int | None:
    for module in model.modules():
        processor = getattr(module, "processor", None)
        rate = getattr(getattr(processor, "feature_extractor", processor), "sampling_rate", None)
        if isinstance(rate, int):
            return rate
    return None


def _fingerprint(model: Any) -> str:
    """Return 40 hexadecimal characters that depend on the modules and all weights."""
    return fingerprint_of(repr(model), model.state_dict())[:40]


def _library(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"this function needs {module.partition('.')[0]}, which cannot be imported ({error}): "
            f"pip install 'unialign[mteb]'"
        ) from None
