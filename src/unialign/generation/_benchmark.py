"""How good are the images of a space? Sources, and the controls without which no score of them says anything.

Shapes: `N` evaluated items, `D` width of the space, `S` pixels a side, `K` decoders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.generation._decode import decode, embed_items, nearest_training
from unialign.generation._decoder import Decoder
from unialign.generation._extractors import Extractor
from unialign.generation._interpolation import mean
from unialign.generation._reference import Reference
from unialign.generation._scores import GenerationScores, score
from unialign.generation._thumbnails import read_thumbnails
from unialign.space import Space

__all__ = ["CONTROLS", "GenerationBench", "make_bench", "scores_of"]

# What each control shows when it scores as well as the real thing.
CONTROLS = {
    "self": "the true image embedding: the best that this decoder can do",
    "shuffled": "true image embeddings of other items: the score is blind to what is shown",
    "random": "random directions: the score is blind to the condition",
    "nearest embedding": "the nearest training item's image embedding, decoded: copying training pictures does as well",
    "nearest picture": "the nearest training item's true picture: a copy, without any decoder",
    "random picture": "true pictures of random training items: the score sees style alone",
}


@dataclass(frozen=True, eq=False)
class GenerationBench:
    """What is common to all rows of a table: the items, their true images, the judge, the decoders and their noise.

    Attributes:
        store: the data.
        rows: (N,) evaluated rows, all of which have their anchor and their image.
        anchor: the modality in whose place is decoded.
        decoders: K of them, made alike with different seeds; every score is the mean over them.
        extractor, reference: who judges, and by what measure.
        training: (T, 3, S, S) images of the training rows that have one.
        training_rows: (T,) those rows.
        seed: of the noise, which is the same for all rows of a table.
        steps, guidance: of the sampler.
    """

    store: EmbeddingStore
    rows: np.ndarray
    anchor: str
    decoders: tuple[Decoder, ...]
    extractor: Extractor
    reference: Reference
    training: Tensor
    training_rows: np.ndarray
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None

    def images(self, space: Space, z_ND: Tensor) -> Tensor:
        """(K, N, 3, S, S): the same rows through every decoder."""
        return torch.stack(
            [
                decode(
                    space,
                    decoder,
                    z_ND,
                    anchor=self.anchor,
                    seed=self.seed,
                    steps=self.steps,
                    guidance=self.guidance,
                )
                for decoder in self.decoders
            ]
        )

    def score(self, images: Tensor, *, self_scores: GenerationScores | None = None) -> GenerationScores:
        """Scores of (K, N, 3, S, S) images, or of (N, 3, S, S) ones that are the same for every decoder."""
        if images.ndim == 4:
            images = images.expand(len(self.decoders), *images.shape)
        return score(images, self.reference, extractor=self.extractor, self_scores=self_scores)

    def source(self, space: Space, modalities: Sequence[str]) -> Tensor:
        """(N, D) the items through some of their modalities, mixed by the renormalised mean.

        Raises:
            DataError: an item has none of them; choose modalities that all evaluated items have.
        """
        z, present = embed_items(space, self.store, self.rows, modalities)
        there_N = torch.stack(list(present.values())).any(0)
        if not bool(there_N.all()):
            row = int(self.rows[int((~there_N).nonzero()[0])])
            raise DataError(f"item {row} of {self.store.name!r} has none of {', '.join(modalities)}; all must have one")
        return mean(z, present=present)

    def controls(self, space: Space) -> dict[str, Tensor]:
        """The images of each of `CONTROLS`; nearest by the item's own anchor."""
        z_ND, _ = embed_items(space, self.store, self.rows, [self.anchor])
        self_ND = z_ND[self.anchor]
        generator = torch.Generator().manual_seed(self.seed)
        random_ND = normalize(torch.randn(self_ND.shape, generator=generator), dim=1)
        near_ND = self.nearest(space, self_ND)
        chosen = torch.randint(len(self.training), (len(self.rows),), generator=generator)
        return {
            "self": self.images(space, self_ND),
            "shuffled": self.images(space, self_ND[shuffled(self.store.groups[self.rows], seed=self.seed)]),
            "random": self.images(space, random_ND),
            "nearest embedding": self.images(space, near_ND),
            "nearest picture": self.nearest_images(space, self_ND),
            "random picture": self.training[chosen],
        }

    def nearest(self, space: Space, z_ND: Tensor) -> Tensor:
        """(N, D) the anchor rows of the training items nearest to rows of the space."""
        found = nearest_training(space, self.store, z_ND, anchor=self.anchor).rows[:, 0].numpy()
        return space.encode({self.anchor: self.store.array(self.anchor)[found]})[self.anchor]

    def nearest_images(self, space: Space, z_ND: Tensor) -> Tensor:
        """(N, 3, S, S) the true images of those items."""
        found = nearest_training(space, self.store, z_ND, anchor=self.anchor).rows[:, 0]
        place = {int(row): i for i, row in enumerate(self.training_rows)}
        return self.training[[place[int(row)] for row in found]]


def make_bench(
    store: EmbeddingStore,
    decoders: Sequence[Decoder],
    *,
    anchor: str,
    extractor: Extractor,
    split: str = "test",
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
) -> GenerationBench:
    """The bench of a split of a store, whose images are its thumbnails.

    Args:
        decoders: at least one; all of one size.
        anchor: the modality in whose place is decoded, whose images the thumbnails are.

    Raises:
        ConfigError: no decoder, decoders of different sizes, or no such modality.
        DataError: no images; no items.
        MissingDependencyError: Pillow is not installed.
    """
    if not decoders or len({decoder.size for decoder in decoders}) > 1:
        raise ConfigError(f"a table needs decoders of one size, got sizes {[decoder.size for decoder in decoders]}")
    size = decoders[0].size
    rows, train = (store.rows(part)[store.present(anchor)[store.rows(part)]] for part in (split, "train"))
    if len(rows) < 2:
        raise DataError(
            f"{store.name!r} has {len(rows)} items with {anchor!r} in its {split} split; at least 2 are needed"
        )
    training = read_thumbnails(store, anchor, train, size)
    reference = Reference.fit(read_thumbnails(store, anchor, rows, size), training, extractor=extractor)
    return GenerationBench(
        store, rows, anchor, tuple(decoders), extractor, reference, training, train, seed, steps, guidance
    )


def shuffled(group_N: np.ndarray, *, seed: int) -> Tensor:
    """(N,) for each item the place of an item of another group, each used once.

    A plain permutation would leave some items to themselves or to their near-duplicates.
    """
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(len(group_N))
    # Items sorted by group, groups in random order, turned by the size of the largest: nobody meets its own.
    ranks = {group: rank for rank, group in enumerate(rng.permutation(np.unique(group_N)))}
    by_group_N = np.array(sorted(order_N, key=lambda i: ranks[group_N[i]]))
    largest = int(np.unique(group_N, return_counts=True)[1].max())
    if 2 * largest > len(group_N):
        raise DataError(f"one group holds {largest} of {len(group_N)} items; they cannot all be exchanged with others")
    other_N = np.empty(len(group_N), dtype=np.int64)
    other_N[by_group_N] = np.roll(by_group_N, -largest)
    return torch.from_numpy(other_N)


def scores_of(
    bench: GenerationBench,
    space: Space,
    sources: Mapping[str, Sequence[str]],
    *,
    self_scores: GenerationScores | None = None,
) -> dict[str, GenerationScores]:
    """Scores of each source of a space."""
    return {
        name: bench.score(bench.images(space, bench.source(space, modalities)), self_scores=self_scores)
        for name, modalities in sources.items()
    }
