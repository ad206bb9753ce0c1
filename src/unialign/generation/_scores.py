"""Score generated images against true images.

Distances between sets of images (FD, KID, MMD) measure sharpness and style rather than semantics: shuffled images score
as well as correct ones. Retrieval of the true image measures semantics.

Shapes: `V` noises, `N` evaluated items, `T` training images, `S` x `S` pixels of an image, `F` features, `C` principal
components.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unialign._checks import check_integer
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
from unialign.generation._image_basis import principal_axes
from unialign.generation._images import check_images, resize_bilinear
from unialign.geometry import median_bandwidth
from unialign.metrics import retrieval

# Scores, in the order of tables.
SCORES: Mapping[str, Metric] = MappingProxyType(
    {
        "fd": Metric("FD", "Fréchet distance to the true images; not comparable to a published FID", "lower", "number"),
        "kid": Metric(
            "KID x 100", "unbiased MMD² to the true images, cubic kernel of standardized features", "lower", "number"
        ),
        "mmd": Metric(
            "MMD²",
            "unbiased MMD² to the true images, Gaussian kernel of centered feature directions",
            "lower",
            "number",
        ),
        "fd_self": Metric("FD to self", "FD to images decoded from the true image embeddings", "lower", "number"),
        "recall@1": Metric("R@1", "the generated image retrieves the true one among all true images"),
        "recall@10": Metric("R@10", "as R@1, but among the first 10 results"),
        "mrr": Metric("MRR", "mean reciprocal rank of the true image", unit="number"),
        "cosine": Metric("cosine", "cosine similarity of the centered features of both images", unit="number"),
        "l1": Metric("L1", "mean absolute difference between the pixels of both images", "lower"),
        "diversity": Metric("diversity", "mean cosine distance of images of one condition", "neither", "number"),
        "spread": Metric("spread", "mean cosine distance of images of different conditions", "neither", "number"),
    }
)
# Total variance of the principal components of the training features after scaling.
_VARIANCE = 100.0
# Lower bound of the standard deviations, relative to their median. Without this bound, a nearly constant feature would
# dominate KID, which cubes products of standardized features. For example, two of 309 images then widen the interval of
# a KID of 17 to [-12, 85].
_MIN_DEVIATION = 0.25


@dataclass(frozen=True, eq=False, repr=False)
class Reference:
    """True images of the evaluated items, and statistics of the training features, shared by all scores of a table.

    Attributes:
        extractor: name of the extractor.
        images: true images of shape (N, 3, S, S).
        features_NF: features (N, F) of the true images, float64.
        mean_F, deviation_F: mean and standard deviation of the training features; each deviation is at least a quarter
            of the median over non-constant features.
        axes_FC: principal axes of the training features, scaled so that the variances along them sum to 100.
        bandwidth: bandwidth of the MMD kernel, the median distance between the feature directions of two true images.
    """

    extractor: str
    images: Tensor
    features_NF: Tensor
    mean_F: Tensor
    deviation_F: Tensor
    axes_FC: Tensor
    bandwidth: float

    @classmethod
    def fit(cls, true: Any, training: Any, *, extractor: Extractor, components: int = 64) -> "Reference":
        """Compute the features of the true images and the statistics of the training features.

        Args:
            true: true images (N, 3, S, S) in [0, 1], at least two; row i belongs to evaluated item i.
            training: images (T, 3, S, S) of training items; T must exceed `components`.
            extractor: feature extractor.
            components: number C of principal components.

        Raises:
            ShapeError: as in `Extractor`, or there is only one true image.
            NonFiniteError: as in `Extractor`.
            ConfigError: components is not an integer of at least 1.
            DataError: the training features vary in fewer than C directions.
        """
        check_integer("components", components, low=1)
        images, training = check_images(true, "true images"), check_images(training, "training images")
        true_NF = as_features(extractor(images), "features of the true images", min_rows=2)
        train_TF = as_features(extractor(training), "features of the training images", min_rows=2)
        what = f"images by {extractor.name}"
        mean_F, values_C, axes_CF = principal_axes(train_TF, components, option="components", what=what)
        variances_C = values_C.square() / (len(train_TF) - 1)
        deviation_F = train_TF.std(0)
        varies_F = deviation_F > 1e-6 * deviation_F.max()
        return cls(
            extractor=extractor.name,
            images=images,
            features_NF=true_NF,
            mean_F=mean_F,
            deviation_F=deviation_F.clamp_min(_MIN_DEVIATION * float(deviation_F[varies_F].median())),
            axes_FC=axes_CF.mT * (_VARIANCE / variances_C.sum()).sqrt(),
            bandwidth=median_bandwidth({"true images": true_NF - mean_F}),
        )

    def components(self, features_NF: Tensor) -> Tensor:
        """Return the principal components (N, C) of features, which FD compares."""
        return (features_NF - self.mean_F) @ self.axes_FC

    def standardized(self, features_NF: Tensor) -> Tensor:
        """Return features standardized by the training mean and `deviation_F`."""
        return (features_NF - self.mean_F) / self.deviation_F

    def directions(self, features_NF: Tensor) -> Tensor:
        """Return the features minus the training mean, normalized to unit rows."""
        return normalize(features_NF - self.mean_F, dim=1)


@dataclass(frozen=True, eq=False, repr=False)
class GenerationScores:
    """Scores of generated images, named as in `SCORES`.

    Attributes:
        extractor: name of the extractor.
        noises: number V of noise samples per item.
        items: number N of items.
        statistics: each score as a function of item weights, for `unialign.evaluation.resample`. Resamples with the
            same groups and seed are paired. KID, MMD and spread store matrices (N, N).
        per_item: values (N,) of the scores that are means over items, averaged over noise samples, float64.
        features_VNF: features (V, N, F) of the generated images, float32.
    """

    extractor: str
    noises: int
    items: int
    statistics: Mapping[str, Statistic]
    per_item: Mapping[str, Tensor]
    features_VNF: Tensor

    @property
    def numbers(self) -> dict[str, float]:
        """Values of the scores for unit item weights."""
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
    """Score generated images against true images.

    Retrieval ranks the N true images by the cosine similarity of centered features; tied images get the expected rank.
    As in `unialign.evaluation`, item weights do not change the gallery. Distances resample generated and true images
    together. Each score is the mean over noise samples. `kid` and `mmd` have expectation 0 for independent samples of
    the true distribution and are slightly below 0 for copies of the true images.

    Args:
        generated: images (N, 3, S, S) in [0, 1], where row i belongs to item i, or (V, N, 3, S, S) for V noise samples.
        reference: true images and statistics; true images are resized to S x S for `l1`.
        extractor: feature extractor, the same as for `reference`.
        self_scores: scores of images generated from the true image embeddings with the same noise; required for
            `fd_self`.

    Returns:
        The scores; `diversity` requires at least two noise samples.

    Raises:
        ShapeError: there is not one generated image per true image, or `self_scores` has another number of noise
            samples or items.
        NonFiniteError: an image is not finite, or its features equal the training mean.
        ConfigError: `extractor` differs from that of `reference` or `self_scores`.
    """
    if extractor.name != reference.extractor:
        raise ConfigError(f"extractor must be that of the reference, {reference.extractor!r}, got {extractor.name!r}")
    images = _check_image_sets(generated, len(reference.images))
    noises, items = images.shape[:2]
    features_VNF = extractor(images.flatten(0, 1)).reshape(noises, items, -1)
    sets = [as_features(x_NF, "features of the generated images") for x_NF in features_VNF]
    per_item = _score_items(images, sets, reference)
    statistics: dict[str, Statistic] = {name: ItemMean(value_N[None]) for name, value_N in per_item.items()}
    statistics |= _score_sets(sets, reference)
    if self_scores is not None:
        statistics["fd_self"] = _compare_with_self(sets, reference, self_scores)
    return GenerationScores(
        extractor=extractor.name,
        noises=noises,
        items=items,
        statistics={name: statistics[name] for name in SCORES if name in statistics},
        per_item=per_item,
        features_VNF=features_VNF,
    )


def _check_image_sets(generated: Any, items: int) -> Tensor:
    expected = f"({items}, 3, S, S) or (V, {items}, 3, S, S), one image per true image"
    x = as_dense(generated, "generated images", expected)
    if x.ndim not in (4, 5) or x.shape[-4] != items or 0 in x.shape:
        raise ShapeError(f"generated images have shape {tuple(x.shape)}; expected {expected}")
    return check_images(x.reshape(-1, *x.shape[-3:]), "generated images").reshape(-1, items, *x.shape[-3:])


def _score_items(images: Tensor, sets: list[Tensor], reference: Reference) -> dict[str, Tensor]:
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


def _score_sets(sets: list[Tensor], reference: Reference) -> dict[str, Statistic]:
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


def _compare_with_self(sets: list[Tensor], reference: Reference, self_scores: GenerationScores) -> Statistic:
    if self_scores.extractor != reference.extractor:
        raise ConfigError(f"self_scores must use the extractor {reference.extractor!r}, got {self_scores.extractor!r}")
    if self_scores.features_VNF.shape[:2] != (len(sets), len(sets[0])):
        found = f"{self_scores.noises} noises and {self_scores.items} items"
        raise ShapeError(f"self_scores must have {len(sets)} noises and {len(sets[0])} items, got {found}")
    pairs = zip(sets, self_scores.features_VNF.double(), strict=True)
    return Average([Frechet(reference.components(x_NF), reference.components(y_NF)) for x_NF, y_NF in pairs])
