"""Encode batches of mteb with a space.

Shapes: `b` items of a batch, `D` dimension of the space, `M` modalities.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unialign._plain_text import count, join_words
from unialign.errors import ConfigError
from unialign.media import chosen_frames
from unialign.space import Space

# Modalities of mteb, which are keys of its batches.
MODALITIES = ("text", "image", "audio", "video")


class SpaceEncoder:
    """A space as an `mteb.EncoderProtocol`; made by `model`.

    Attributes:
        space: the space.
        modalities: modality of mteb -> modality of the space.
        mteb_model_meta: metadata of the model.
    """

    def __init__(self, space: Space, modalities: Mapping[str, str], meta: Any) -> None:
        self.space, self.modalities, self.mteb_model_meta = space, dict(modalities), meta

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Embed the batches of a data loader; the embedding of an item with several modalities is the mean of its unit
        rows, normalized again.

        Args:
            inputs: yields mappings of `text`, `image`, `audio` and `video` to lists of values; None is absent.
            task_metadata, hf_split, hf_subset, prompt_type, options: not used, since a space has no prompts.

        Returns:
            (N, D) float32 unit rows. Items without any value, such as blank texts, have the row 0, and a warning counts
            them.

        Raises:
            ConfigError: a batch has a modality that the space does not encode, or none.
            MediaError: a value cannot be decoded.
        """
        rows = [self._batch(batch) for batch in inputs]
        if not rows:
            return np.zeros((0, self.space.dim), np.float32)
        z_ND = torch.cat(rows)
        empty = int((~z_ND.any(1)).sum())
        if empty:
            warnings.warn(
                f"{count(empty, 'item')} of {len(z_ND):,} have no value, such as blank texts; their rows are 0",
                UserWarning,
                stacklevel=2,
            )
        return z_ND.numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the (N1, N2) cosines of all pairs of rows."""
        return _unit(embeddings1) @ _unit(embeddings2).mT

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the (N,) cosines of the rows at equal positions."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(-1)

    def _batch(self, batch: Mapping[str, Any]) -> Tensor:
        given = [name for name in MODALITIES if name in batch]
        missing = [name for name in given if name not in self.modalities]
        if missing or not given:
            what = f"{join_words(missing)}, which the space does not encode" if missing else "no known modality"
            raise ConfigError(
                f"the batch has {what}; the space encodes {join_words(self.modalities)}. Choose tasks of these "
                f"modalities, or name the modality with modalities="
            )
        sum_bD: Tensor | None = None
        for name in given:
            values = [None if value is None else self._value(name, value) for value in batch[name]]
            own = self.modalities[name]
            z_bD = self.space.encode({own: values})[own].cpu().double()
            sum_bD = z_bD if sum_bD is None else sum_bD + z_bD
        assert sum_bD is not None
        # Opposite rows have no mean direction; they keep the row 0.
        length_b1: Tensor = torch.linalg.vector_norm(sum_bD, dim=1, keepdim=True)
        return (sum_bD / length_b1.clamp(min=1e-9)).float()

    def _value(self, kind: str, value: Any) -> Any:
        """Return a value as `Space.encode` accepts it."""
        if kind == "audio":
            return _audio(value)
        return self._video(value) if kind == "video" else value

    def _video(self, value: Any) -> NDArray[np.uint8]:
        frames = value
        if hasattr(value, "get_frames_at"):  # a decoder of torchcodec
            decoding = self.space.encoder(self.modalities["video"]).decoding
            chosen = chosen_frames(value.metadata.num_frames, decoding.frames, decoding.seed)
            frames = value.get_frames_at(chosen.tolist()).data
        array = frames.cpu().numpy() if isinstance(frames, Tensor) else np.asarray(frames)
        if array.ndim == 4 and array.shape[3] != 3 and array.shape[1] == 3:
            array = array.transpose(0, 2, 3, 1)  # mteb has channels before rows and columns
        if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
            array = array.astype(np.uint8)  # lists of numbers in a data set
        return np.ascontiguousarray(array)


def _audio(value: Any) -> dict[str, Any]:
    if hasattr(value, "get_all_samples"):  # a decoder of torchcodec
        samples = value.get_all_samples()
        value = {"array": samples.data, "sampling_rate": samples.sample_rate}
    array = np.asarray(value["array"])
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        array = array.T  # mteb has channels first
    return {"array": array, "sampling_rate": int(value["sampling_rate"])}


def _unit(embeddings: Any) -> Tensor:
    z = torch.as_tensor(np.asarray(embeddings) if not isinstance(embeddings, Tensor) else embeddings).cpu()
    z = z.double() if z.dtype == torch.float64 else z.float()
    length: Tensor = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / length.clamp(min=1e-12)


def chosen_modalities(
    space: Space, modalities: Mapping[str, str] | None, *, kinds_of_media: Sequence[str] = MODALITIES
) -> dict[str, str]:
    """Return kind of media -> modality of the space with an encoder of this kind."""
    kinds = {name: str(reference["media"]) for name, reference in space.encoders.items()}
    found: dict[str, str] = {}
    for kind, name in (modalities or {}).items():
        if kind not in kinds_of_media:
            raise ConfigError(f"modalities has the key {kind!r}; expected {join_words(kinds_of_media)}")
        if kinds.get(name) != kind:
            has = f"has an encoder of {kinds[name]}" if name in kinds else "has no encoder"
            raise ConfigError(f"modalities[{kind!r}] is {name!r}, which {has}; expected a modality that encodes {kind}")
        found[kind] = name
    if modalities is None:
        for kind in kinds_of_media:
            named = [name for name, own in kinds.items() if own == kind]
            if len(named) > 1 and kind not in named:
                raise ConfigError(
                    f"the space has several modalities of {kind} ({join_words(named)}); choose one with "
                    f"modalities={{{kind!r}: {named[0]!r}, ...}}"
                )
            if named:
                found[kind] = kind if kind in named else named[0]
    if not found:
        raise ConfigError(
            f"the space has no encoder of {', '.join(kinds_of_media[:-1])} or {kinds_of_media[-1]}; add encoders with "
            "space.with_encoders"
        )
    return {kind: found[kind] for kind in kinds_of_media if kind in found}
