"""Load decoders and spaces. Built-in ones are named after the data sets on which they were trained."""

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

    Names are those of built-in data sets (`emoji`), of plug-ins with an entry point in `unialign.decoders`, and of
    factories added by `unialign.registry.register("decoders", name, factory)`, which are called without arguments. A
    folder must contain a diffusers pipeline (Stable unCLIP or Kandinsky 2.2) or a decoder saved by `train_decoder`.

    Args:
        source: name, folder, or `owner/name` on the Hub; a decoder is returned unchanged.
        revision: branch, tag or commit on the Hub.
        prior: folder or `owner/name` of the prior of a Kandinsky 2.2 decoder; see `Kandinsky22.from_pretrained`.
        device, dtype: device and dtype of the weights; generated images are on the CPU. `dtype` applies only to
            pipelines; None: float32.

    Raises:
        CheckpointError: the model does not exist or is damaged.
        ConfigError: the pipeline is deprecated or is not conditioned on image embeddings, `prior` is given for a
            decoder other than Kandinsky 2.2, or a plug-in cannot be imported.
        MissingDependencyError: `unialign-datasets` (for built-in decoders), diffusers (for pipelines) or
            huggingface_hub (for the Hub) is not installed.
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
        raise ConfigError(
            f"prior={os.fspath(prior)!r} is for Kandinsky 2.2, but {source} is another decoder; omit prior"
        )
    if pipeline == STABLE_UNCLIP:
        return StableUnCLIP.from_pretrained(source, revision=revision, device=device, dtype=dtype)
    folder = datasets_folder("models") / source / "decoder" if shipped else source
    return FlowDecoder.from_pretrained(folder, revision=revision).to(device)


def load_space(source: str | os.PathLike[str]) -> Space:
    """Load a built-in space by name, or a saved space from a folder or the Hub."""
    if isinstance(source, str) and source in DECODERS:
        return Space.from_pretrained(datasets_folder("models") / source / "space")
    return Space.from_pretrained(source)


def check_shipped(data: str, what: str) -> None:
    if data not in DECODERS:
        raise ConfigError(f"there is no built-in {what} for {data!r}, only for {', '.join(DECODERS)}; give --{what}")
