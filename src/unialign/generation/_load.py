"""Load decoders and spaces: built-in ones by name, saved ones from a folder or the Hugging Face Hub.

Built-in decoders and spaces belong to the built-in data sets and share their names.
"""

import os

import torch

from unialign import registry
from unialign._datasets import DECODERS, datasets_folder
from unialign.errors import ConfigError
from unialign.generation._decoder import Decoder
from unialign.generation._flow_decoder import FlowDecoder
from unialign.generation._kandinsky import Kandinsky22
from unialign.generation._pipeline_folder import KANDINSKY, STABLE_UNCLIP, pipeline_class, unsupported_error
from unialign.generation._stable_unclip import StableUnCLIP
from unialign.space import Space


def load_decoder(
    source: str | os.PathLike[str] | Decoder,
    *,
    revision: str | None = None,
    prior: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Decoder:
    """Load a decoder by name, from a folder, or from the Hugging Face Hub.

    Names are those of built-in data sets (`emoji`), and those that plug-ins add through entry points
    `unialign.decoders` or that `unialign.registry.register("decoders", name, factory)` adds; the factory is called
    without arguments. A folder holds a diffusers pipeline (Stable unCLIP or Kandinsky 2.2), or a decoder written by
    `train_decoder`.

    Args:
        source: name, folder or `owner/name`; a decoder is returned unchanged.
        revision: branch, tag or commit on the Hub.
        prior: folder or `owner/name` of the prior of a Kandinsky 2.2 decoder; see `Kandinsky22.from_pretrained`.
        device, dtype: device and dtype of the weights; images are on the CPU. A dtype is for pipelines only; None is
            float32.

    Raises:
        CheckpointError: there is no model, or it is damaged.
        ConfigError: a pipeline that is deprecated or not conditioned on image embeddings alone; a prior for a decoder
            other than Kandinsky 2.2; a plug-in that cannot be imported.
        MissingDependencyError: a built-in decoder without `unialign-datasets`, a pipeline without diffusers, or a hub
            id without huggingface_hub.
    """
    if not isinstance(source, str | os.PathLike) and isinstance(source, Decoder):
        return source
    if isinstance(source, str) and source in registry.names("decoders"):
        decoder: Decoder = registry.load("decoders", source)()
        return decoder
    shipped = isinstance(source, str) and source in DECODERS
    pipeline = None if shipped else pipeline_class(source, revision=revision)
    if pipeline == KANDINSKY:
        return Kandinsky22.from_pretrained(source, revision=revision, prior=prior, device=device, dtype=dtype)
    if pipeline not in (None, STABLE_UNCLIP):
        raise unsupported_error(source, pipeline)
    if prior is not None:
        raise ConfigError(f"prior={os.fspath(prior)!r} is for Kandinsky 2.2; {source} is a decoder without one")
    if pipeline == STABLE_UNCLIP:
        return StableUnCLIP.from_pretrained(source, revision=revision, device=device, dtype=dtype)
    folder = datasets_folder("models") / source / "decoder" if shipped else source
    return FlowDecoder.from_pretrained(folder, revision=revision).to(device)


def load_space(source: str | os.PathLike[str]) -> Space:
    """Load the space of a built-in data set by name, or a saved space from a folder or the Hub."""
    if isinstance(source, str) and source in DECODERS:
        return Space.from_pretrained(datasets_folder("models") / source / "space")
    return Space.from_pretrained(source)


def check_shipped(data: str, what: str) -> None:
    """Raise ConfigError unless a data set comes with a space and a decoder."""
    if data not in DECODERS:
        raise ConfigError(
            f"no {what} comes with the package for {data!r}, only for {', '.join(DECODERS)}; give --{what}"
        )
