"""The space and the decoder that come with the package, for each shipped data set that has them."""

import os
from pathlib import Path

import torch

from unialign._checks import check_choice
from unialign.errors import ConfigError
from unialign.generation._decoder import Decoder
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._pipeline_folder import is_pipeline
from unialign.generation._pipelines import load_pipeline_decoder
from unialign.space import Space

__all__ = ["load_decoder", "load_space", "shipped_decoders"]

_SHIPPED = Path(__file__).parent / "shipped"


def shipped_decoders() -> tuple[str, ...]:
    """Names of the data sets whose decoder is in the package."""
    return tuple(sorted(path.parent.parent.name for path in _SHIPPED.glob("*/decoder/config.json")))


def load_decoder(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    prior: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
) -> Decoder:
    """A decoder by the name of a shipped data set (`emoji`), from a folder, or from the Hugging Face Hub.

    A folder with a `model_index.json` is a diffusers pipeline (Stable unCLIP or Kandinsky 2.2); any other is one that
    `train_decoder` made.

    Args:
        source: name, folder or `owner/name`.
        revision: branch, tag or commit on the Hub.
        prior: the prior of a Kandinsky 2.2 decoder, whose image tower it needs; see `Kandinsky22.from_pretrained`.
        device: where it computes; its images come to the CPU.

    Raises:
        CheckpointError: nothing there, or a damaged model.
        ConfigError: a pipeline that is deprecated or not conditioned on image embeddings alone; a prior for a decoder
            that has none.
        MissingDependencyError: a pipeline without diffusers, or a hub id without huggingface_hub.
    """
    shipped = isinstance(source, str) and source in shipped_decoders()
    if not shipped and is_pipeline(source, revision=revision):
        return load_pipeline_decoder(source, revision=revision, prior=prior, device=device)
    if prior is not None:
        raise ConfigError(f"prior={os.fspath(prior)!r} is for Kandinsky 2.2; {source} is a decoder without one")
    if shipped:
        return FlowDecoder.from_pretrained(_SHIPPED / source / "decoder").to(device)
    return FlowDecoder.from_pretrained(source, revision=revision).to(device)


def load_space(source: str | os.PathLike[str]) -> Space:
    """The shipped space of a data set by name, or a saved one."""
    if isinstance(source, str) and source in shipped_decoders():
        return Space.from_pretrained(_SHIPPED / source / "space")
    return Space.from_pretrained(source)


def check_shipped(data: str, what: str) -> None:
    """`ConfigError` unless a data set has a shipped space and decoder."""
    try:
        check_choice("data", data, shipped_decoders())
    except ConfigError:
        raise ConfigError(
            f"no {what} comes with the package for {data!r}, only for {', '.join(shipped_decoders())}; give --{what}"
        ) from None
