"""Load decoders and spaces: built-in ones by name, saved ones from a folder or the Hugging Face Hub.

Built-in decoders and spaces belong to the built-in data sets and share their names.
"""

import os

import torch

from unialign import registry
from unialign._checks import check_choice
from unialign._datasets import DECODERS, datasets_folder
from unialign.errors import ConfigError
from unialign.generation._decoder import Decoder
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._kandinsky import Kandinsky22
from unialign.generation._pipeline_folder import (
    INDEX,
    KANDINSKY,
    STABLE_UNCLIP,
    class_name,
    fetch,
    is_pipeline,
    unsupported_error,
)
from unialign.generation._stable_unclip import StableUnCLIP
from unialign.space import Space

__all__ = ["check_shipped", "load_decoder", "load_pipeline_decoder", "load_space", "shipped_decoders"]


def shipped_decoders() -> tuple[str, ...]:
    """Return the names of the data sets that come with a space and a decoder."""
    return DECODERS


def load_decoder(
    source: str | os.PathLike[str] | Decoder,
    *,
    revision: str | None = None,
    prior: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Decoder:
    """Load a decoder by name, from a folder, or from the Hugging Face Hub.

    Names are those of shipped data sets (`emoji`), and those that plug-ins add as entry points `unialign.decoders` or
    that `unialign.registry.register("decoders", name, factory)` adds; the factory is called without arguments. A folder
    with a `model_index.json` is a diffusers pipeline (Stable unCLIP or Kandinsky 2.2); any other one must be written by
    `train_decoder`. A decoder object is returned unchanged.

    Args:
        source: decoder, name, folder or `owner/name`.
        revision: branch, tag or commit on the Hub.
        prior: folder or `owner/name` of the prior of a Kandinsky 2.2 decoder; see `Kandinsky22.from_pretrained`.
        device: device for generation; images are returned on the CPU.
        dtype: of a pipeline's weights; None is float32.

    Raises:
        CheckpointError: no model there, or a damaged one.
        ConfigError: a pipeline that is deprecated or not conditioned on image embeddings alone; a prior for a decoder
            other than Kandinsky 2.2; a plug-in that cannot be imported.
        MissingDependencyError: a built-in decoder without `unialign-datasets`, a pipeline without diffusers, or a hub
            id without huggingface_hub.
    """
    if not isinstance(source, str | os.PathLike) and isinstance(source, Decoder):
        return source
    shipped = isinstance(source, str) and source in shipped_decoders()
    if isinstance(source, str) and source in registry.names("decoders"):
        decoder: Decoder = registry.load("decoders", source)()
        return decoder
    if not shipped and is_pipeline(source, revision=revision):
        return load_pipeline_decoder(source, revision=revision, prior=prior, device=device, dtype=dtype)
    if prior is not None:
        raise ConfigError(f"prior={os.fspath(prior)!r} is for Kandinsky 2.2; {source} is a decoder without one")
    folder = datasets_folder("models") / source / "decoder" if shipped else source
    return FlowDecoder.from_pretrained(folder, revision=revision).to(device)


def load_space(source: str | os.PathLike[str]) -> Space:
    """Load the space of a built-in data set by name, or a saved space from a folder or the Hub."""
    if isinstance(source, str) and source in shipped_decoders():
        return Space.from_pretrained(datasets_folder("models") / source / "space")
    return Space.from_pretrained(source)


def check_shipped(data: str, what: str) -> None:
    """Raise ConfigError unless a data set comes with a space and a decoder."""
    try:
        check_choice("data", data, shipped_decoders())
    except ConfigError:
        raise ConfigError(
            f"no {what} comes with the package for {data!r}, only for {', '.join(shipped_decoders())}; give --{what}"
        ) from None


def load_pipeline_decoder(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    prior: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> StableUnCLIP | Kandinsky22:
    """Load a pipeline decoder of the class named in `model_index.json`."""
    folder = fetch(source, revision, [INDEX])
    name = class_name(folder)
    if name == KANDINSKY.pipeline:
        return Kandinsky22.from_pretrained(source, revision=revision, prior=prior, device=device, dtype=dtype)
    if name != STABLE_UNCLIP.pipeline:
        raise unsupported_error(folder, name)
    if prior is not None:
        raise ConfigError(f"prior={os.fspath(prior)!r} is for Kandinsky 2.2; {folder} holds Stable unCLIP, without one")
    return StableUnCLIP.from_pretrained(source, revision=revision, device=device, dtype=dtype)
