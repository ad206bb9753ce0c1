"""Zero-shot classification by the cosines with embedded class names.

Shapes: `N` items, `n` present items, `C` classes, `D` dimension, `W` dimension of the features.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unialign.errors import DataError, ShapeError
from unialign.metrics import codes
from unialign.probes._class_embeddings import TEMPLATES, ClassNames, check_names, class_embeddings
from unialign.probes._inputs import Inputs, embedded
from unialign.probes._labels import numbered_by_name
from unialign.probes._result import ProbeResult
from unialign.probes._score import top_classes
from unialign.space import Space


@torch.no_grad()
def zero_shot(
    space: Space | None,
    images: Any,
    class_names: ClassNames,
    *,
    templates: Sequence[str] = TEMPLATES,
    labels: Any = None,
    modality: str = "image",
    text: str = "text",
    present: Any = None,
    inputs: Inputs = "auto",
    groups: Any = None,
) -> ProbeResult:
    """Classify items of any modality by the class whose prompts have the highest cosine.

    The embedding of a class is the mean of the unit rows of its prompts, normalized again (see `class_embeddings`).
    Absent items (None, blank texts, or `present` False) are not classified. Classes with equal cosines (within 1e-12)
    are tied: the first is predicted, and the accuracy is the mean over random orders of the tied classes.

    Args:
        space: the space. None: `images` and all prompts are embeddings of one space.
        images: a list of raw media, if the space has an encoder of `modality` (see `Space.encode`); features (N, W); or
            embeddings (N, D), which are L2-normalized here.
        class_names: names of the classes; or name -> prompts, features or embeddings of the class.
        templates: texts in which `{}` is replaced by the name.
        labels: (N,) names of classes or class numbers in the order of `class_names`; negative numbers and empty names
            are unlabeled. None: only predictions are returned.
        modality: modality of `images`.
        text: modality of the prompts.
        present: (N,) bool, False for absent items.
        inputs: "media", "features" or "embeddings". With "auto", lists are media, and arrays are features or embeddings
            according to their dim, which must be decided by `inputs` if the features have the dim of the space.
        groups: (N,) labels; items of a group are resampled together in intervals.

    Returns:
        See `ProbeResult`.

    Raises:
        ConfigError: a modality is unknown, an option is invalid, raw media have no encoder, or a label is not a class.
        DataError: no item is present, or labels are given and no present item has one.
        ShapeError, NonFiniteError, MediaError: as in `Space.encode`; also ShapeError for labels or groups that are not
            (N,).
    """
    names = check_names(class_names)
    class_CD = class_embeddings(space, class_names, templates=templates, text=text, inputs=inputs)
    items = embedded(space, modality, images, inputs=inputs, present=present)
    if items.z_ND.shape[1] != class_CD.shape[1]:
        raise ShapeError(
            f"{modality!r} has dim {items.z_ND.shape[1]}, but the classes have dim {class_CD.shape[1]}; pass "
            f"embeddings of one space"
        )
    total, rows_n = len(items.z_ND), items.present_N.nonzero().flatten()
    if not len(rows_n):
        raise DataError(f"no item has {modality!r}, so there is nothing to classify")
    label_N = None if labels is None else numbered_by_name(labels, names, rows=total)
    if label_N is not None and not bool((label_N[rows_n] >= 0).any()):
        raise DataError(f"no item with {modality!r} has a label; omit labels to predict only")
    z_nD = items.z_ND[rows_n]

    def scores(part: slice) -> Tensor:
        return z_nD[part] @ class_CD.mT

    labels_n = torch.full((len(rows_n),), -1) if label_N is None else label_N[rows_n]
    top_nk, found = top_classes(scores, labels_n, len(names))
    return ProbeResult(
        task="zero_shot",
        classes=names,
        rows=rows_n,
        predictions=top_nk[:, 0],
        top=top_nk,
        labels=None if label_N is None else labels_n,
        hits={} if label_N is None else found,
        settings=_settings(class_names, templates, modality, text),
        counts={"items": len(rows_n), "absent": total - len(rows_n)}
        | ({} if label_N is None else {"labeled": int((labels_n >= 0).sum())}),
        _groups=None if groups is None else codes(groups, "groups", rows=total)[rows_n],
    )


def _settings(class_names: ClassNames, templates: Sequence[str], modality: str, text: str) -> dict[str, Any]:
    prompts = list(templates) if isinstance(class_names, Sequence) else "given for each class"
    return {"modality": modality, "text": text, "templates": prompts}
