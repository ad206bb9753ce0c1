"""Clips and captions of the protocol `gram`: items with equal ids are captions of one clip.

Shapes: `N` items, `G` clips, `T` captions, `K` modalities of a clip, `D` dimension.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unialign.batch import Batch
from unialign.config import Captions
from unialign.errors import DataError

__all__ = ["Clips", "clips_of", "with_modality"]


@dataclass(frozen=True)
class Clips:
    """Unit rows of the captions and of the modalities of the clips.

    Attributes:
        names: the K modalities of a clip.
        z_KGD, present_KG: rows of the clips; absent rows are 0.
        z_TD: rows of the captions.
        clip_T: clip of each caption.
        row_G, row_T: rows of the items that the clips and captions were taken from.
    """

    names: tuple[str, ...]
    z_KGD: Tensor
    present_KG: Tensor
    z_TD: Tensor
    clip_T: Tensor
    row_G: Tensor
    row_T: Tensor

    def clip_rows(self, g: Tensor | slice) -> Tensor:
        """Return rows (K, g, D) in float64."""
        return _unit(self.z_KGD[:, g])

    def single_rows(self, k: int, g: Tensor | slice) -> Tensor:
        """Return rows (g, D) of one modality in float64."""
        return _unit(self.z_KGD[k, g])

    def caption_rows(self, t: Tensor | slice) -> Tensor:
        """Return rows (t, D) in float64."""
        return _unit(self.z_TD[t])


def clips_of(batch: Batch, ids_N: Tensor, *, text: str, joint: tuple[str, ...], captions: Captions) -> Clips:
    """Group items into clips, numbered by first appearance. A clip has the first present row of each modality of its
    items.
    """
    clip_N = _by_appearance(ids_N)
    count = int(clip_N.max()) + 1
    texts = batch.present_MB[batch.names.index(text)].nonzero().flatten()
    if captions == "first":
        texts = _first_rows(clip_N, texts)[1]
    if len(texts) == 0:
        raise DataError(f"no clip has a caption: {text!r} is absent in all {len(ids_N):,} items")
    z_KGD = batch.z_MBD.new_zeros(len(joint), count, batch.z_MBD.shape[2])
    present_KG = torch.zeros(len(joint), count, dtype=torch.bool)
    for k, name in enumerate(joint):
        m = batch.names.index(name)
        clips, rows = _first_rows(clip_N, batch.present_MB[m].nonzero().flatten())
        z_KGD[k, clips], present_KG[k, clips] = batch.z_MBD[m, rows], True
    if not bool(present_KG.any()):
        raise DataError(f"no clip has any of {', '.join(joint)}")
    row_G = _first_rows(clip_N, torch.arange(len(ids_N)))[1]
    z_TD = batch.z_MBD[batch.names.index(text), texts]
    return Clips(joint, z_KGD, present_KG, z_TD, clip_N[texts], row_G, texts)


def with_modality(clips: Clips, name: str) -> Clips:
    """Return the clips that have a modality, with their captions."""
    kept_G = clips.present_KG[clips.names.index(name)]
    number_G = kept_G.long().cumsum(0) - 1
    kept_T = kept_G[clips.clip_T]
    if not bool(kept_T.any()):
        raise DataError(f"no clip has both a caption and {name!r}")
    return replace(
        clips,
        z_KGD=clips.z_KGD[:, kept_G],
        present_KG=clips.present_KG[:, kept_G],
        z_TD=clips.z_TD[kept_T],
        clip_T=number_G[clips.clip_T[kept_T]],
        row_G=clips.row_G[kept_G],
        row_T=clips.row_T[kept_T],
    )


def _unit(z: Tensor) -> Tensor:
    """Normalize rows in float64 again, since volumes near 0 need all digits."""
    z = z.double()
    norms = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    return z / torch.where(norms > 0, norms, 1.0)


def _by_appearance(ids_N: Tensor) -> Tensor:
    _, code_N = torch.unique(ids_N, return_inverse=True)
    codes, rows = _first_rows(code_N, torch.arange(len(ids_N)))
    rank = torch.empty_like(codes)
    rank[codes[rows.argsort()]] = torch.arange(len(codes))
    return rank[code_N]


def _first_rows(clip_N: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct clips of ascending rows, in ascending order, and the first row of each clip."""
    clips, place = torch.unique(clip_N[rows], return_inverse=True)
    first = torch.full((len(clips),), len(clip_N), dtype=torch.int64)
    return clips, first.scatter_reduce(0, place, rows, "amin")
