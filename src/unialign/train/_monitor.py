"""Health checks of a training batch.

Shapes: `M` modalities, `B` items, `D` dimension.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import permutations

import torch

from unialign._pair_keys import pair_name
from unialign.batch import Batch
from unialign.geometry import effective_rank
from unialign.losses import BoundedParameter, LossTerm, Objective, weighted_sum

# Mean cosine between different items of a modality above which the items are nearly indistinguishable.
COLLAPSED_COSINE = 0.95
# Fraction of the available directions below which a modality has a degenerate spectrum.
TINY_RANK = 0.02
BALANCED = (0.1, 10.0)
# Embeddings carry no information if a contrastive loss is within this fraction of ln(rows) after this number of steps.
CHANCE, CHANCE_STEPS = 0.01, 20
# Fractions of distinct rows and of distinct ids below which a batch has too few different items.
DISTINCT_ROWS, DISTINCT_IDS = 0.9, 0.25
_ROUNDING = 1e-5
# Maximum number of rows for cosines and effective ranks, since more rows take longer and change the results little.
_SAMPLE = 512


class HealthWarning(UserWarning):
    """A problem in a training run that the loss does not reveal.

    Attributes:
        code: kind of problem, such as `collapse/text`, `rank/text`, `temperature/low`, `gradient_ratio`,
            `chance/image-text`, `no_pairs`, `distinct/text`, `few_ids`, `environment`. A run reports each code once.
        step: number of completed steps when the problem was first detected.
    """

    # The defaults are for pickle, which calls the constructor with only the message and then restores the attributes.
    def __init__(self, message: str, *, code: str = "", step: int = 0) -> None:
        super().__init__(message)
        self.message, self.code, self.step = message, code, step

    @classmethod
    def at(cls, step: int, message: str, *, code: str) -> "HealthWarning":
        """Return a warning whose message begins with the step."""
        return cls(f"step {step}: {message}", code=code, step=step)


def check_health(
    objective: Objective,
    batch: Batch,
    terms: dict[str, LossTerm],
    *,
    step: int,
    frozen: Collection[str] = (),
    more_negatives: bool = False,
) -> tuple[dict[str, float], list[HealthWarning]]:
    """A modality that is aligned to a frozen modality cannot collapse. With `more_negatives`, the chance level is not
    ln(rows).
    """
    numbers: dict[str, float] = {}
    found = [*_check_spread(batch, numbers), *_check_bounds(objective)]
    found += [*_check_pairs(batch, terms), *_check_distinct(batch)]
    if not more_negatives:
        found += _check_chance(batch, terms, step)
    # The advice refers to `alignment_weight`, so objectives without this attribute are skipped.
    ratio = gradient_ratio(batch, terms) if hasattr(objective, "alignment_weight") else None
    if ratio is not None:
        numbers["gradient_ratio"] = ratio
        low = 0.0 if frozen else BALANCED[0]
        if not low <= ratio <= BALANCED[1]:
            advice = "the attraction of true pairs dominates, which leads to collapse; lower alignment_weight"
            if ratio > 1:
                advice = "the repulsion of items dominates; raise alignment_weight"
            message = f"the gradient of the repelling terms is {ratio:.3g} times that of the alignment: {advice}"
            found.append(("gradient_ratio", message))
    return numbers, [HealthWarning.at(step, message, code=code) for code, message in found]


def _check_spread(batch: Batch, numbers: dict[str, float]) -> Iterator[tuple[str, str]]:
    """Add the mean cosine and effective rank of each modality to `numbers`."""
    z_MBD = batch.z_MBD.detach()
    for m, name in enumerate(batch.names):
        z_BD = z_MBD[m][batch.present_MB[m]][:_SAMPLE]
        rows = len(z_BD)
        if rows < 2:
            continue
        cosine = (float(z_BD.double().sum(0).square().sum()) - rows) / (rows * (rows - 1))
        numbers[f"cosine/{name}"] = cosine
        if cosine > COLLAPSED_COSINE:
            yield (
                f"collapse/{name}",
                f"{name!r} is collapsing: different items have a mean cosine of {cosine:.3f}; check the temperature, "
                f"the learning rate, and whether the loss repels items enough",
            )
        rank = float(effective_rank(z_BD))
        numbers[f"rank/{name}"] = rank
        available = min(rows - 1, z_BD.shape[1])
        # Collapse to a point is reported above.
        if cosine <= COLLAPSED_COSINE and available >= 2 and rank < max(1.1, TINY_RANK * available):
            yield (
                f"rank/{name}",
                f"{name!r} uses {rank:.1f} of {available} directions (effective rank), so its items are hardly "
                f"distinguishable",
            )


def _check_chance(batch: Batch, terms: Mapping[str, LossTerm], step: int) -> Iterator[tuple[str, str]]:
    """A contrastive loss of ln(rows) is the value for equal cosines."""
    if step < CHANCE_STEPS:
        return
    for m, n in permutations(range(len(batch.names)), 2):
        pair = pair_name(batch.names[m], batch.names[n])
        rows = int((batch.present_MB[m] & batch.present_MB[n]).sum())
        # `Matryoshka` names the terms of the full dimension by their prefix.
        term = terms.get(f"contrast/{pair}") or terms.get(f"d{batch.z_MBD.shape[2]}/contrast/{pair}")
        if rows <= 2 or term is None:
            continue
        value, chance = float(term.value.detach()), math.log(rows)
        if abs(value - chance) <= CHANCE * chance:
            yield (
                f"chance/{pair}",
                f"the contrast of {pair} is {value:.3f}, and the chance level is ln({rows}) = {chance:.3f}, so the "
                f"embeddings carry no information about pairs; raise the learning rate, lower the temperature, and "
                f"check that row i of both modalities belongs to item i",
            )


def _check_pairs(batch: Batch, terms: Mapping[str, LossTerm]) -> Iterator[tuple[str, str]]:
    """The loss is 0 because the batch has no two items to compare."""
    present_B = batch.present_MB.sum(0)
    complete, paired = int((present_B == len(batch.names)).sum()), int((present_B >= 2).sum())
    # The contrastive loss of a single item is 0 up to rounding, as is the loss of many perfectly separated items.
    if complete >= 2 or any(abs(float(term.value.detach())) > _ROUNDING for term in terms.values()):
        return
    yield (
        "no_pairs",
        f"the loss is 0, since the objective found no two items to compare: of the {len(present_B)} items in the "
        f"batch, {paired} have at least two modalities and {complete} have all {len(batch.names)} modalities; raise "
        f"the batch size, or use an objective that accepts missing modalities",
    )


def _check_distinct(batch: Batch) -> Iterator[tuple[str, str]]:
    items = batch.present_MB.shape[1]
    if batch.ids_B is not None:
        distinct = len(batch.ids_B.unique())  # type: ignore[no-untyped-call]
        if items >= 8 and distinct < DISTINCT_IDS * items:
            yield (
                "few_ids",
                f"the {items} items of the batch have {distinct} different ids, and same-id items are not negatives of "
                f"each other, so few negatives are left; raise the batch size, or shuffle the items so that same-id "
                f"items are in different batches",
            )
        return
    for m, name in enumerate(batch.names):
        z_BD = batch.z_MBD[m].detach()[batch.present_MB[m]][:_SAMPLE]
        rows = len(z_BD)
        distinct = len(z_BD.unique(dim=0)) if rows >= 8 else rows  # type: ignore[no-untyped-call]
        # If all rows are equal, the modality has collapsed, which is reported separately.
        if 1 < distinct < DISTINCT_ROWS * rows:
            yield (
                f"distinct/{name}",
                f"{name!r} has {distinct} different rows among {rows} rows of the batch, and equal rows are negatives "
                f"of each other; pass ids that are equal for items with the same {name}",
            )


def _check_bounds(objective: Objective) -> Iterator[tuple[str, str]]:
    for module in objective.modules():
        if isinstance(module, BoundedParameter) and (bound := module.at_bound()) is not None:
            yield (
                f"{module.label}/{bound}",
                f"the learnable {module.label} is at its {bound}er bound of "
                f"{module.bounds[0 if bound == 'low' else 1]:g}; make it constant, or widen {module.option}_bounds",
            )


def gradient_ratio(batch: Batch, terms: dict[str, LossTerm]) -> float | None:
    """Use only tangential gradients, since normalization removes the radial component. Return None unless both kinds of
    terms exist.
    """
    repelling = ("uniformity/", "partition/", "centroid")
    repel = {name: term for name, term in terms.items() if name.startswith(repelling)}
    attract = {name: term for name, term in terms.items() if name == "alignment"}
    if not repel or not attract:
        return None
    above, below = (_tangent_norm(batch, group) for group in (repel, attract))
    if below == 0:
        return None
    return above / below


def _tangent_norm(batch: Batch, terms: dict[str, LossTerm]) -> float:
    z_MBD = batch.z_MBD
    (gradient_MBD,) = torch.autograd.grad(weighted_sum(batch, terms), z_MBD, retain_graph=True)
    radial_MB1 = (gradient_MBD * z_MBD.detach()).sum(-1, keepdim=True)
    tangent_MBD = gradient_MBD - radial_MB1 * z_MBD.detach()
    if batch.shard is None:
        return float(torch.linalg.vector_norm(tangent_MBD))
    # Gradients are complete only for the rows of this process.
    own_MnD = tangent_MBD[:, batch.shard.start : batch.shard.stop]
    return math.sqrt(float(batch.shard.sum(own_MnD.double().square().sum())))
