"""Score generated images, each score also as a function of item weights.

Distances between sets of images (FD, KID, MMD) measure sharpness and style but hardly semantics: images of shuffled
conditions score as well as correct ones. Retrieval of the true image measures semantics. Compare both with controls.

Shapes: `V` noises, `N` evaluated items, `S` pixels a side, `F` features, `C` principal components.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from unialign._html import html_table
from unialign.batch import as_dense
from unialign.errors import ConfigError, ShapeError
from unialign.evaluation import ItemMean, Metric, Statistic
from unialign.generation._distances import (
    Average,
    Frechet,
    KernelDistance,
    PairMean,
    as_features,
    cubic_kernel,
    gaussian_kernel,
)
from unialign.generation._extractors import Extractor
from unialign.generation._images import check_images, resize_bilinear
from unialign.generation._reference import Reference
from unialign.metrics import retrieval

_FD = (
    "Fréchet distance to the true images, on principal components in which the training images' variances sum to 100; "
    "not comparable to a published FID"
)
# In table order.
SCORES: Mapping[str, Metric] = MappingProxyType(
    {
        "fd": Metric("FD", _FD, "lower", "number"),
        "kid": Metric(
            "KID x 100", "unbiased cubic MMD² to the true images on standardized features", "lower", "number"
        ),
        "mmd": Metric("MMD²", "unbiased, Gaussian kernel, of the directions of centered features", "lower", "number"),
        "fd_self": Metric("FD to self", "FD to images decoded from the true image embeddings", "lower", "number"),
        "recall@1": Metric("R@1", "the generated image finds the true one among all true ones"),
        "recall@10": Metric("R@10", "as R@1, among the first 10"),
        "mrr": Metric("MRR", "mean reciprocal rank of the true image", unit="number"),
        "cosine": Metric("cosine", "of the centered features of the generated and the true image", unit="number"),
        "l1": Metric("L1", "mean absolute difference of the pixels from the true image's", "lower"),
        "diversity": Metric(
            "diversity", "mean cosine distance of images of one condition and several noises", "neither", "number"
        ),
        "spread": Metric("spread", "mean cosine distance of images of different conditions", "neither", "number"),
    }
)


@dataclass(frozen=True, eq=False, repr=False)
class GenerationScores:
    """Scores of generated images, named as in `SCORES`.

    Attributes:
        extractor: name of the extractor.
        noises: number V of noises.
        items: number N of items.
        statistics: each score as a function of item weights, for `unialign.evaluation.resample`; with equal groups and
            seed, differences of resampled scores are paired. Distances and spread hold (N, N) numbers.
        per_item: (N,) float64 means over the noises, for scores that are means over items.
        features_VNF: of the generated images, float32.
    """

    extractor: str
    noises: int
    items: int
    statistics: Mapping[str, Statistic]
    per_item: Mapping[str, Tensor]
    features_VNF: Tensor

    @property
    def numbers(self) -> dict[str, float]:
        """Values of the scores with unit weights."""
        one_1N = torch.ones(1, self.items, dtype=torch.float64)
        return {name: float(statistic.evaluate(one_1N)) for name, statistic in self.statistics.items()}

    def __repr__(self) -> str:
        numbers = ", ".join(f"{name}={value:.4g}" for name, value in self.numbers.items())
        return f"GenerationScores({numbers}; {self.items} items, {self.noises} noises, {self.extractor})"

    def _repr_html_(self) -> str:
        rows = [(SCORES[name].label, f"{value:.4g}") for name, value in self.numbers.items()]
        return html_table(rows, titles=[SCORES[name].description for name in self.numbers])


def score(
    generated: Any, reference: Reference, *, extractor: Extractor, self_scores: GenerationScores | None = None
) -> GenerationScores:
    """Score generated images against the true ones.

    Retrieval ranks the N true images by the cosine of centered features, with expected ranks under ties. Item weights
    do not change the gallery, as in `unialign.evaluation`; distances resample generated and true images together. With
    several noises, each score is the mean over them. `kid` and `mmd` are 0 on average for independent samples of the
    true distribution, and slightly below 0 for copies of the true images.

    Args:
        generated: (N, 3, S, S) in [0, 1], row i for item i, or (V, N, 3, S, S) of V noises.
        reference: reference of the true images, which are resized to S for `l1`.
        extractor: the reference's extractor.
        self_scores: scores of images decoded from the true image embeddings with the same V noises, for `fd_self`.

    Returns:
        The scores, with `diversity` only for at least two noises.

    Raises:
        ShapeError: not one image for each true one, or `self_scores` of other noises or items.
        NonFiniteError: an image is not finite, or its features equal the mean.
        ConfigError: the extractor differs from the reference's.
    """
    if extractor.name != reference.extractor:
        raise ConfigError(
            f"extractor {extractor.name!r} differs from the reference's, {reference.extractor!r}; use only one"
        )
    images = _by_noise(generated, len(reference.images))
    noises, items = images.shape[:2]
    features_VNF = extractor(images.flatten(0, 1)).reshape(noises, items, -1)
    sets = [as_features(x_NF, "features of the generated images") for x_NF in features_VNF]
    per_item = _item_scores(images, sets, reference)
    statistics: dict[str, Statistic] = {name: ItemMean(value_N[None]) for name, value_N in per_item.items()}
    statistics |= _set_scores(sets, reference)
    if self_scores is not None:
        statistics["fd_self"] = _self_distance(sets, reference, self_scores)
    return GenerationScores(
        extractor=extractor.name,
        noises=noises,
        items=items,
        statistics={name: statistics[name] for name in SCORES if name in statistics},
        per_item=per_item,
        features_VNF=features_VNF,
    )


def _by_noise(generated: Any, items: int) -> Tensor:
    """(V, N, 3, S, S) float32."""
    expected = f"({items}, 3, S, S) or (V, {items}, 3, S, S): one image for each true one"
    x = as_dense(generated, "generated images", expected)
    if x.ndim not in (4, 5) or x.shape[-4] != items or 0 in x.shape:
        raise ShapeError(f"generated images have shape {tuple(x.shape)}; expected {expected}")
    return check_images(x.reshape(-1, *x.shape[-3:]), "generated images").reshape(-1, items, *x.shape[-3:])


def _item_scores(images: Tensor, sets: list[Tensor], reference: Reference) -> dict[str, Tensor]:
    """Compute the scores that are means over items: (N,) means over noises."""
    true_NF = reference.directions(reference.features_NF)
    found = [retrieval(x_NF - reference.mean_F, true_NF, k=(1, 10)) for x_NF in sets]
    directions = [reference.directions(x_NF) for x_NF in sets]
    truth = resize_bilinear(reference.images, images.shape[-1])
    by_noise = {
        "recall@1": [result.hits(1) for result in found],
        "recall@10": [result.hits(10) for result in found],
        "mrr": [result.reciprocal_ranks for result in found],
        "cosine": [(x_NF * true_NF).sum(1) for x_NF in directions],
        "l1": [(x - truth).abs().flatten(1).double().mean(1) for x in images],
        "diversity": [1 - (x_NF * y_NF).sum(1) for x_NF, y_NF in itertools.combinations(directions, 2)],
    }
    return {name: torch.stack(values).mean(0) for name, values in by_noise.items() if values}


def _set_scores(sets: list[Tensor], reference: Reference) -> dict[str, Statistic]:
    """Compute the scores that compare sets of images or pairs of items."""
    true_NC = reference.components(reference.features_NF)
    directions = [reference.directions(x_NF) for x_NF in sets]

    def kernel_distances(
        scale: Callable[[Tensor], Tensor], kernel: Callable[[Tensor, Tensor], Tensor]
    ) -> list[KernelDistance]:
        true_NF = scale(reference.features_NF)
        own = PairMean(kernel(true_NF, true_NF))
        scaled = [scale(x_NF) for x_NF in sets]
        return [KernelDistance((PairMean(kernel(x_NF, x_NF)), own), kernel(x_NF, true_NF)) for x_NF in scaled]

    gaussian = partial(gaussian_kernel, bandwidth=reference.bandwidth)
    return {
        "fd": Average([Frechet(reference.components(x_NF), true_NC) for x_NF in sets]),
        "kid": Average(kernel_distances(reference.standardized, cubic_kernel), scale=100),
        "mmd": Average(kernel_distances(reference.directions, gaussian)),
        "spread": Average([PairMean(x_NF @ x_NF.mT) for x_NF in directions], scale=-1, offset=1),
    }


def _self_distance(sets: list[Tensor], reference: Reference, self_scores: GenerationScores) -> Statistic:
    if self_scores.extractor != reference.extractor:
        raise ConfigError(f"self_scores are by {self_scores.extractor!r}, the reference is by {reference.extractor!r}")
    if self_scores.features_VNF.shape[:2] != (len(sets), len(sets[0])):
        raise ShapeError(
            f"self_scores have {self_scores.noises} noises and {self_scores.items} items, the generated images "
            f"{len(sets)} and {len(sets[0])}; use the same noises for both"
        )
    pairs = zip(sets, self_scores.features_VNF.double(), strict=True)
    return Average([Frechet(reference.components(x_NF), reference.components(y_NF)) for x_NF, y_NF in pairs])
