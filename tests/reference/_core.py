"""Implement UniAlign, InfoNCE, GRAM and the functions that they share.

Shapes: `M` modalities (m, n), `B` items (i, j), `D` dim. a is the anchor, tau is the temperature, and x and y are unit
rows of shape (D,).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reference._rows import Ids, Rows, both, mean, pairs_of, tuple_of

__all__ = [
    "alignment",
    "centroids",
    "cross_partitions",
    "cross_volumes",
    "gram",
    "gram_volumes",
    "infonce",
    "log_kernel",
    "log_weights_of",
    "symmetric_contrast",
    "unialign",
    "uniformity",
]


def _log_mean_exp(values: Sequence[Tensor]) -> Tensor:
    return torch.logsumexp(torch.stack(list(values)), 0) - math.log(len(values))


def _euclidean_squared(x: Tensor, y: Tensor) -> Tensor:
    return ((x - y) ** 2).sum()


def _angle_squared(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared angle; 2 atan2(|x - y|, |x + y|) is accurate at all angles."""
    square = _euclidean_squared(x, y)
    if square < 1e-16:  # |x - y| has no gradient at 0; angle^2 = square * (1 + square / 12 + ...)
        return square
    return 4 * torch.atan2((x - y).norm(), (x + y).norm()) ** 2


def log_kernel(x: Tensor, y: Tensor, kernel: str, tau: float) -> Tensor:
    if kernel == "gaussian":  # Eq. 9
        return -_euclidean_squared(x, y) / (2 * tau**2)
    if kernel == "clip":  # Eq. 2
        return -_euclidean_squared(x, y) / (2 * tau)
    if kernel == "wang_isola":
        return -2 * _euclidean_squared(x, y)
    if kernel == "geodesic":  # Eq. 14
        return -_angle_squared(x, y) / (2 * tau**2)
    raise ValueError(kernel)


def uniformity(
    rows: Sequence[Tensor | None],
    *,
    kernel: str,
    tau: float,
    reduction: str | None = None,
    order: int = 1,
    ids: Ids = None,
    log_weights: Sequence[Sequence[Tensor]] | None = None,
) -> Tensor | None:
    """Return the uniformity U(Z), Eq. 9; None if there is no pair of rows with different ids (decision 1)."""
    logs = []
    for i, x in enumerate(rows):
        if x is None:
            continue
        exponents = []
        for j, y in enumerate(rows):
            if j != i and y is not None and (ids is None or ids[i] != ids[j]):
                exponents.append(log_kernel(x, y, kernel, tau) + (0.0 if log_weights is None else log_weights[i][j]))
        if exponents:
            logs.append(_log_mean_exp(exponents))
    if not logs:
        return None
    if reduction == "outer_log" or (reduction is None and kernel == "wang_isola"):
        return _log_mean_exp([order * value for value in logs]) / order
    return mean(logs)


def alignment(rows: Rows, *, anchor: str, distance: str = "euclidean", stop_gradient: str = "none") -> Tensor | None:
    """Return the mean squared distance over all true pairs, Eq. 10; None without pairs (decisions 3 and 4)."""
    names, middles = list(rows), centroids(rows)
    pairs: list[tuple[Tensor | None, Tensor | None]] = []
    for i, middle in enumerate(middles):
        if anchor == "all":
            pairs += [(rows[m][i], rows[n][i]) for m, n in pairs_of(rows, "all")]
        elif anchor == "centroid":
            if len(tuple_of(rows, i)) >= 2:
                pairs += [(rows[m][i], middle) for m in names]
        elif anchor == "leave_one_out":
            pairs += [(rows[m][i], centroids({n: [rows[n][i]] for n in names if n != m})[0]) for m in names]
        else:
            pairs += [(rows[n][i], rows[anchor][i]) for n in names if n != anchor]
    squares = []
    for x, target in pairs:
        if x is not None and target is not None:
            target = target.detach() if stop_gradient == "anchor" else target
            squares.append(_angle_squared(x, target) if distance == "geodesic" else _euclidean_squared(x, target))
    return mean(squares) if squares else None


def centroids(rows: Rows) -> list[Tensor | None]:
    """Return the normalized mean of each tuple, Eq. 11; None if the tuple is empty or its sum is 0."""
    result: list[Tensor | None] = []
    for i in range(len(next(iter(rows.values())))):
        vectors = tuple_of(rows, i)
        total = torch.stack(vectors).sum(0) if vectors else None
        result.append(None if total is None or total.norm() <= 1e-6 else total / total.norm())
    return result


def _volume(vectors: Sequence[Tensor], eps: float) -> Tensor:
    """Return the volume sqrt(max(det G, 0) + eps) (decision 7)."""
    gram_MM = [torch.stack([(x * y).sum() for y in vectors]) for x in vectors]
    det = torch.linalg.det(torch.stack(gram_MM)) if gram_MM else torch.ones((), dtype=torch.float64)
    square = det.clamp(min=0) + eps
    return torch.sqrt(square) if square > 0 else square


def gram_volumes(rows: Rows, *, eps: float = 0.0) -> list[Tensor]:
    """Return the volume of the present vectors of each item, Eq. 12; 1 for an item without vectors."""
    return [_volume(tuple_of(rows, i), eps) for i in range(len(next(iter(rows.values()))))]


def cross_volumes(rows: Rows, *, anchor: str, items: Sequence[int], eps: float = 0.0) -> list[list[Tensor]]:
    """Return the volumes of the anchor of item i (rows) with the other vectors of item j (columns)."""
    others: Rows = {n: rows[n] for n in rows if n != anchor}
    table = []
    for i in items:
        x = rows[anchor][i]
        assert x is not None
        table.append([_volume([x, *tuple_of(others, j)], eps) for j in items])
    return table


def symmetric_contrast(logits: Sequence[Sequence[Tensor]], ids: Ids = None, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over the rows and columns of a table, with the diagonal as target (decision 2)."""
    size = range(len(logits))
    losses = []
    for table in (logits, [[logits[j][i] for j in size] for i in size]):
        for i in size:
            keys = [table[i][k] for k in size if k == i or ids is None or ids[k] != ids[i]]
            log_z = torch.logsumexp(torch.stack(keys), 0)
            spread = mean([log_z - key for key in keys])
            losses.append((1 - label_smoothing) * (log_z - table[i][i]) + label_smoothing * spread)
    return mean(losses)


def infonce(
    rows: Rows, *, anchor: str | None, tau: float | Tensor, label_smoothing: float = 0.0, ids: Ids = None
) -> Tensor:
    """Return the mean InfoNCE, Eq. 1, over the pairs with the anchor; "all" and None select all pairs (decision 3)."""
    losses = []
    for m, n in pairs_of(rows, "all" if anchor is None else anchor):
        items = both(rows, m, n)
        if items:
            logits = [[(x * y).sum() / tau for _, _, y in items] for _, x, _ in items]
            kept = None if ids is None else [ids[i] for i, _, _ in items]
            losses.append(symmetric_contrast(logits, kept, label_smoothing))
    return mean(losses)


def log_weights_of(features: Mapping[str, Tensor], scale: float) -> dict[str, list[list[Tensor]]]:
    """Return -s max(0, cos) of the features of all pairs of items."""
    tables = {}
    for m, x_BW in features.items():
        norms = [max(float(x.norm()), 1e-300) for x in x_BW.double()]
        cosines = [
            [(x * y).sum() / (a * b) for y, b in zip(x_BW.double(), norms, strict=True)]
            for x, a in zip(x_BW.double(), norms, strict=True)
        ]
        tables[m] = [[-scale * cosine.clamp(min=0) for cosine in row] for row in cosines]
    return tables


def cross_partitions(
    rows: Rows,
    *,
    anchor: str,
    kernel: str,
    tau: float,
    ids: Ids = None,
    positive: str = "included",
    log_weights: Mapping[str, Sequence[Sequence[Tensor]]] | None = None,
) -> Tensor | None:
    """Return the mean log-partition of InfoNCE over pairs and both directions; None without rows."""

    def log_weight(names: Sequence[str], i: int, k: int) -> Tensor | float:
        found = [log_weights[m][i][k] for m in names if m in log_weights] if log_weights and i != k else []
        return sum(found) / 2  # the geometric mean of two modalities

    values = []
    for m, n in pairs_of(rows, "all" if anchor == "leave_one_out" else anchor):
        items = both(rows, m, n)
        logs = []
        for i, x, y in items:
            keys = [(k, u, v) for k, u, v in items if k == i or ids is None or ids[k] != ids[i]]
            keys = [key for key in keys if positive == "included" or key[0] != i]
            if keys:
                of_x = [log_kernel(x, v, kernel, tau) + log_weight((m, n), i, k) for k, _, v in keys]
                of_y = [log_kernel(y, u, kernel, tau) + log_weight((m, n), i, k) for k, u, _ in keys]
                logs += [torch.logsumexp(torch.stack(terms), 0) for terms in (of_x, of_y)]
        if logs:
            values.append(mean(logs))
    return mean(values) if values else None


def share_within(rows: Rows) -> float:
    """Return the share of the repulsion within modalities for `partition_mix="auto"`."""
    widest = 0.0
    for column in rows.values():
        found = [x.detach() for x in column if x is not None]
        if len(found) >= 8:
            cosines = [float((x * y).sum()) for i, x in enumerate(found) for j, y in enumerate(found) if i != j]
            widest = max(widest, sum(cosines) / len(cosines))
    return min(1.0, max(0.0, 2 - 4 * widest))


def gram(rows: Rows, *, anchor: str, tau: float | Tensor, label_smoothing: float, eps: float, ids: Ids) -> Tensor:
    """Return the contrast of volumes over the items with the anchor and at least one other modality (decision 5)."""
    items = [i for i, x in enumerate(rows[anchor]) if x is not None and len(tuple_of(rows, i)) >= 2]
    if not items:
        return mean([])
    logits = [[-volume / tau for volume in row] for row in cross_volumes(rows, anchor=anchor, items=items, eps=eps)]
    return symmetric_contrast(logits, None if ids is None else [ids[i] for i in items], label_smoothing)


def unialign(
    rows: Rows,
    *,
    anchor: str,
    kernel: str,
    temperature: float,
    reduction: str | None,
    weighting: str,
    partition_mix: float | str,
    partition_positive: str,
    similarity_scale: float,
    uniformity_weight: float,
    alignment_weight: float,
    alignment_scale: float | str,
    distance: str,
    stop_gradient: str,
    centroid_weight: float,
    centroid_temperature: float | None,
    volume_weight: float,
    volume_eps: float | None,
    ids: Ids = None,
    similarity: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Return the UniAlign loss, Eq. 13, with the options of `UniAlign.get_config()` (decisions 1, 3, 4, 6 and 7)."""
    order = len(rows) - 1 if reduction == "outer_log" else 1
    total = torch.zeros((), dtype=torch.float64)
    partition_mix = share_within(rows) if isinstance(partition_mix, str) else partition_mix

    weights = log_weights_of(similarity or {}, similarity_scale)

    spreads = {}
    for m in rows:
        options = {"kernel": kernel, "tau": temperature, "reduction": reduction, "order": order, "ids": ids}
        value = uniformity(rows[m], log_weights=weights.get(m), **options)
        if value is not None and not (weighting == "exclude_anchor" and m == anchor):
            spreads[m] = value
    for m, value in spreads.items():
        weight = 1.0 if weighting == "sum" else 1 / len(spreads)
        if weighting == "infonce_matched":
            weight = 1 / 2 if m == anchor else 1 / (2 * (len(rows) - 1))
        total = total + partition_mix * uniformity_weight * weight * value

    options = {"anchor": anchor, "kernel": kernel, "tau": temperature, "ids": ids}
    partitions = cross_partitions(rows, positive=partition_positive, log_weights=weights, **options)
    if partition_mix < 1 and partitions is not None:
        total = total + (1 - partition_mix) * uniformity_weight * partitions

    matched = {"clip": 1 / (2 * temperature), "wang_isola": 2.0}.get(kernel, 1 / (2 * temperature**2))
    scale = matched if isinstance(alignment_scale, str) else alignment_scale
    distances = alignment(rows, anchor=anchor, distance=distance, stop_gradient=stop_gradient)
    if distances is not None:
        total = total + alignment_weight * scale * distances

    tuples = [len(tuple_of(rows, i)) >= 2 for i in range(len(next(iter(rows.values()))))]
    middles = [c if whole else None for c, whole in zip(centroids(rows), tuples, strict=True)]
    tau = temperature if centroid_temperature is None else centroid_temperature
    spread = uniformity(middles, kernel=kernel, tau=tau, reduction=reduction, order=order, ids=ids)
    if spread is not None and centroid_weight > 0:
        total = total + centroid_weight * spread

    volumes = gram_volumes(rows, eps=volume_eps or 0.0)
    kept = [volume for volume, whole in zip(volumes, tuples, strict=True) if whole]
    return total + volume_weight * mean(kept) if volume_weight > 0 else total
