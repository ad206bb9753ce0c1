"""Embed classes by the mean of their prompts.

Shapes: `C` classes, `T` prompts of a class, `W` dimension of the features of texts, `D` dimension of the space.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unialign._checks import check_text
from unialign.errors import ConfigError, NonFiniteError
from unialign.probes._inputs import Inputs, embedded
from unialign.space import Space

TEMPLATES = ("a photo of a {}.",)
ClassNames = Sequence[str] | Mapping[str, Any]


@torch.no_grad()
def class_embeddings(
    space: Space | None,
    class_names: ClassNames,
    *,
    templates: Sequence[str] = TEMPLATES,
    text: str = "text",
    inputs: Inputs = "auto",
) -> Tensor:
    """Return one unit row per class: the mean of the unit rows of its prompts, normalized again.

    The mean over prompts follows Radford et al., "Learning transferable visual models from natural language
    supervision", ICML 2021, section 3.1.4.

    Args:
        space: a space with an encoder of `text`, for names and prompts. None: all prompts are embeddings.
        class_names: names, which are put into each template. Or name -> prompts of the class: a list of texts, features
            (T, W) or embeddings (T, D).
        templates: texts in which `{}` is replaced by the name.
        text: modality of the prompts.
        inputs: as in `zero_shot`, for prompts that are arrays.

    Returns:
        (C, D) float64 on the CPU, in the order of the classes.

    Raises:
        ConfigError: fewer than two names, equal names, a template without `{}`, a class without a prompt, or the space
            has no encoder of `text`.
        NonFiniteError: the prompts of a class have mean 0.
        ShapeError: prompts have a wrong shape.
    """
    names = check_names(class_names)
    prompts: list[Any] = []
    if isinstance(class_names, Mapping):
        for name, given in class_names.items():
            if isinstance(given, str) or len(given) == 0:
                raise ConfigError(f"the prompts of the class {name!r} must be a non-empty list or array, got {given!r}")
            prompts.append(given)
    else:
        check_templates(templates)
        prompts = [[template.replace("{}", name) for template in templates] for name in names]
    sizes = [len(given) for given in prompts]
    if all(isinstance(given, list | tuple) and isinstance(given[0], str) for given in prompts):
        if space is not None and text in space.modalities and text not in space.encoders:
            raise ConfigError(
                f"the space has no encoder of {text!r} for the prompts; add one with space.with_encoders, or pass "
                f"features of the prompts as {{name: (T, {space.dims[text]})}}"
            )
        # One call, since an encoder is faster on many texts.
        rows = embedded(space, text, [prompt for given in prompts for prompt in given], inputs="media")
        if not bool(rows.present_N.all()):
            raise ConfigError("a prompt is blank; give a text for every prompt")
        parts = tuple(torch.tensor_split(rows.z_ND, np.cumsum(sizes)[:-1].tolist()))
    else:
        parts = tuple(
            embedded(space, text, given, inputs="auto" if inputs == "media" else inputs).z_ND for given in prompts
        )
    means = []
    for name, z_TD in zip(names, parts, strict=True):
        mean_D = z_TD.mean(0)
        length = torch.linalg.vector_norm(mean_D)
        if float(length) <= 1e-9:
            raise NonFiniteError(f"the prompts of the class {name!r} have mean 0, so it has no direction; change them")
        means.append(mean_D / length)
    return torch.stack(means)


def check_names(class_names: Any) -> tuple[str, ...]:
    """Return the names of the classes."""
    if isinstance(class_names, str) or not isinstance(class_names, Sequence | Mapping):
        raise ConfigError(f"class_names must be a list of names, or map names to prompts, got {class_names!r:.80}")
    names = tuple(class_names)
    for name in names:
        check_text("a class name", name)
    if len(names) < 2:
        raise ConfigError(f"class_names has {list(names)}; a classification needs at least 2 classes")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"class_names has {name!r} twice; give every class its own name")
        seen.add(name)
    return names


def check_templates(templates: Any) -> None:
    """Raise ConfigError for a template without a placeholder for the name."""
    if isinstance(templates, str) or not isinstance(templates, Sequence) or not templates:
        raise ConfigError(f"templates must be a non-empty list of texts, got {templates!r:.80}")
    for template in templates:
        check_text("a template", template)
        if "{}" not in template:
            raise ConfigError(f"the template {template!r} has no placeholder for the class name; write it as {{}}")
