"""Compare images generated from a space with controls, which show whether a score is informative.

Shapes: `N` evaluated items, `D` dimension of the space, `S` side length of an image in pixels, `K` decoders.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from unialign._checks import check_choice
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError, DataError
from unialign.generation import (
    SCORES,
    Decoder,
    Extractor,
    GenerationScores,
    Reference,
    decode,
    embed_items,
    mean,
    nearest_training,
    read_thumbnails,
    score,
)
from unialign.space import Space

__all__ = ["CONTROLS", "GenerationBench", "annotate_controls", "make_bench", "scores_of"]

# The description of each control, and the conclusion if the control scores as well as a space.
CONTROLS = {
    "self": "embedding of the true image, the upper limit of the decoder",
    "shuffled": "image embeddings of other items; if they score as well, the score ignores the content",
    "random": "random directions; if they score as well, the score ignores the condition",
    "nearest embedding": "image embedding of the nearest training item; if it scores as well, copying suffices",
    "nearest image": "true image of the nearest training item, a copy without a decoder",
    "random image": "true images of random training items; if they score as well, the score measures only style",
}


@dataclass(frozen=True, eq=False)
class GenerationBench:
    """Data, decoders and scores that all rows of a table share. Scores are averaged over the decoders, and the noise is
    the same for all spaces and controls.
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
        if images.ndim == 4:
            images = images.expand(len(self.decoders), *images.shape)
        return score(images, self.reference, extractor=self.extractor, self_scores=self_scores)

    def source(self, space: Space, modalities: Sequence[str]) -> Tensor:
        z, present = embed_items(space, self.store, self.rows, modalities)
        there_N = torch.stack(list(present.values())).any(0)
        if not bool(there_N.all()):
            row = int(self.rows[int((~there_N).nonzero()[0])])
            raise DataError(
                f"item {row} of {self.store.name!r} has none of {', '.join(modalities)}; use other modalities"
            )
        return mean(z, present=present)

    def controls(self, space: Space) -> dict[str, Tensor]:
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
            "nearest image": self.nearest_images(space, self_ND),
            "random image": self.training[chosen],
        }

    def nearest(self, space: Space, z_ND: Tensor) -> Tensor:
        found = nearest_training(space, self.store, z_ND, anchor=self.anchor).rows[:, 0].numpy()
        return space.encode({self.anchor: self.store.array(self.anchor)[found]})[self.anchor]

    def nearest_images(self, space: Space, z_ND: Tensor) -> Tensor:
        found = nearest_training(space, self.store, z_ND, anchor=self.anchor).rows[:, 0]
        position = {int(row): i for i, row in enumerate(self.training_rows)}
        return self.training[[position[int(row)] for row in found]]


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
    if not decoders or len({decoder.size for decoder in decoders}) > 1:
        raise ConfigError(f"the decoders must have the same image size, got {[decoder.size for decoder in decoders]}")
    size = decoders[0].size
    rows, train = (store.rows(part)[store.present(anchor)[store.rows(part)]] for part in (split, "train"))
    if len(rows) < 2:
        raise DataError(
            f"{store.name!r} has {len(rows)} items with {anchor!r} in its {split} split; at least 2 are required"
        )
    training = read_thumbnails(store, anchor, train, size)
    reference = Reference.fit(read_thumbnails(store, anchor, rows, size), training, extractor=extractor)
    return GenerationBench(
        store, rows, anchor, tuple(decoders), extractor, reference, training, train, seed, steps, guidance
    )


def shuffled(group_N: np.ndarray, *, seed: int) -> Tensor:
    """Map each item to an item of another group, and so never to a near-duplicate."""
    rng = np.random.default_rng(seed)
    order_N = rng.permutation(len(group_N))
    # Items are sorted by group, in random order. Rotating them by the size of the largest group then moves each item to
    # another group.
    ranks = {group: rank for rank, group in enumerate(rng.permutation(np.unique(group_N)))}
    by_group_N = np.array(sorted(order_N, key=lambda i: ranks[group_N[i]]))
    largest = int(np.unique(group_N, return_counts=True)[1].max())
    if 2 * largest > len(group_N):
        raise DataError(
            f"one group holds {largest} of {len(group_N)} items; groups must contain at most half of the items"
        )
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
    return {
        name: bench.score(bench.images(space, bench.source(space, modalities)), self_scores=self_scores)
        for name, modalities in sources.items()
    }


def annotate_controls(
    numbers: Mapping[str, float],
    controls: Mapping[str, Mapping[str, float]],
    *,
    ties: Mapping[str, Collection[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Return, for each score, the controls that are at least as good; such a score is not informative. `ties` maps a
    score to the controls for which the interval of the paired difference includes 0.
    """
    for score_name, tied in (ties or {}).items():
        check_choice("score in ties", score_name, numbers)
        for control in tied:
            check_choice("control in ties", control, controls)
    found: dict[str, tuple[str, ...]] = {}
    for name, value in numbers.items():
        check_choice("score", name, SCORES)
        better = SCORES[name].better
        if better == "neither" or math.isnan(value):
            continue
        sign, tied = (1 if better == "higher" else -1), (ties or {}).get(name, ())
        values = {control: scores.get(name, math.nan) for control, scores in controls.items()}
        found[name] = tuple(
            control
            for control, other in values.items()
            if not math.isnan(other) and (sign * other >= sign * value or control in tied)
        )
    return found
