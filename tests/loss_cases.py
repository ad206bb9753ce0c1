"""Define the batches and objectives that the tests of losses share.

Shapes: `M` modalities m0, m1, ...; `B` items; `D` dim.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import reference
from unialign import losses
from unialign.losses import Objective, create
from unialign.losses.symile import draw_permutations

OBJECTIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "balanced": ("unialign", {"anchor": "m0"}),
    "paper": ("unialign", {"anchor": "m0", "preset": "paper", "temperature": 0.5}),
    "infonce_matched": ("unialign", {"anchor": "m0", "preset": "infonce_matched"}),
    "frozen_anchor": ("unialign", {"anchor": "m0", "preset": "frozen_anchor"}),
    "symmetric": ("unialign", {"preset": "symmetric"}),
    "geodesic": ("unialign", {"anchor": "m0", "preset": "geodesic"}),
    "centroid": ("unialign", {"anchor": "centroid", "centroid_weight": 0.5, "centroid_temperature": 0.2}),
    "centroid-still": ("unialign", {"anchor": "centroid", "stop_gradient": "anchor"}),
    "wang_isola": ("unialign", {"anchor": "m0", "kernel": "wang_isola"}),
    "outer_log": ("unialign", {"anchor": "m0", "reduction": "outer_log", "centroid_weight": 0.3}),
    "volume": ("unialign", {"anchor": "all", "volume_weight": 2.0, "volume_eps": 1e-4, "uniformity_weight": 0.5}),
    "mix": ("unialign", {"anchor": "m0", "partition_mix": 0.4}),
    "mix-geodesic": ("unialign", {"anchor": "all", "preset": "geodesic", "partition_mix": 0.0}),
    "decoupled": ("unialign", {"preset": "small_batch"}),
    "decoupled-mix": ("unialign", {"anchor": "m0", "partition_mix": 0.4, "partition_positive": "excluded"}),
    "leave_one_out": ("unialign", {"preset": "retrieval", "similarity_scale": 0.0}),
    "infonce": ("infonce", {"anchor": "m0", "temperature": 0.2}),
    "infonce-all": ("infonce", {"anchor": "all", "label_smoothing": 0.1}),
    "infonce-learnable": ("infonce", {"anchor": "m0", "temperature_mode": "learnable"}),
    "infonce-hard": (
        "infonce",
        {"anchor": "m0", "same_ids": "positive", "direction": "backward", "hardness": 3.0},
    ),
    "gram": ("gram", {"anchor": "m0", "eps": 1e-4}),
    "gram-fixed": ("gram", {"anchor": "m0", "temperature": 0.3, "temperature_mode": "fixed", "label_smoothing": 0.0}),
    "triangle": ("triangle", {"anchor": "m0", "eps": 1e-4}),
    "triangle-squared": ("triangle", {"anchor": "m0", "form": "squared", "temperature_mode": "fixed"}),
    "symile": ("symile", {"negatives": "all", "temperature": 0.05}),
    "symile-sampled": ("symile", {"temperature": 0.05, "temperature_mode": "fixed"}),
    "pmrl": ("pmrl", {"intra_temperature": 0.05}),
    "sigmoid": ("sigmoid", {"anchor": "all"}),
    "sigmoid-fixed": ("sigmoid", {"anchor": "m0", "scale": 3.0, "bias": -1.0, "mode": "fixed"}),
    "sigmoid-pairs": ("sigmoid", {"anchor": "m0", "sharing": "per_pair", "modalities": [f"m{m}" for m in range(6)]}),
    "cs_aligner": ("cs_aligner", {"anchor": "m0", "bandwidth": 0.7, "divergence_weight": 0.5}),
    "cs_aligner-median": ("cs_aligner", {"anchor": "all", "contrast_weight": 0.0}),
    "cs_aligner-mmd": ("cs_aligner", {"anchor": "all", "divergence": "mmd", "bandwidth": 0.4}),
    "cs_aligner-holder": ("cs_aligner", {"anchor": "m0", "divergence": "holder", "bandwidth": 1.0}),
    "modgap": ("modgap", {"anchor": "m0"}),
    "modgap-all": ("modgap", {"anchor": "all", "temperature_mode": "learnable", "contrast_weight": 0.5, "t": 1.0}),
    "cua": ("cua", {"anchor": "m0", "temperature_mode": "learnable"}),
    "cuaxu": ("cua", {"anchor": "all", "cross_term": "xu", "temperature": 0.2, "t": 3.0}),
    "align_uniform": ("align_uniform", {"anchor": "m0"}),
    "align_uniform-1": ("align_uniform", {"anchor": "all", "alpha": 1.0, "t": 3.0, "uniformity_weight": 0.5}),
}

# These objectives require a fixed number of modalities.
MODALITIES: dict[str, int] = {"triangle": 3}
COMPLETE_ONLY = {"triangle", "symile"}
# In these cases, the loss depends on the order of items and modalities, since negatives are sampled.
DRAWN = {"symile-sampled"}
EXPONENTIAL = {"symile"}


def make_objective(case: str, **options: Any) -> Objective:
    """Return the objective of a case in eval mode, so that sampled negatives are equal in every call."""
    name, settings = OBJECTIVES[case]
    return create(name, **(settings | options)).eval()


def fit_modalities(case: str, wanted: int) -> int:
    return MODALITIES.get(OBJECTIVES[case][0], wanted)


def fit_items(case: str, modalities: int, wanted: int) -> int:
    if OBJECTIVES[case][0] not in EXPONENTIAL:
        return wanted
    return max(n for n in range(wanted + 1) if n <= 1 or n**modalities <= 1100)


def options_of(name: str) -> tuple[str, ...]:
    return losses.parameter_names(name)


def with_anchor(name: str, anchor: str = "m0") -> dict[str, Any]:
    """Return the option that sets the anchor, if the objective has an anchor."""
    return {"anchor": anchor} if "anchor" in options_of(name) else {}


def with_temperature(case: str, temperature: float) -> dict[str, Any]:
    known = options_of(OBJECTIVES[case][0])
    options: dict[str, Any] = {option: temperature for option in known if option.endswith("temperature")}
    return options | ({"temperature_bounds": (0.001, 1000.0)} if "temperature_bounds" in known else {})


def learns_temperature(case: str) -> bool:
    return make_objective(case).get_config().get("temperature_mode") == "learnable"


def draw_batch(
    seed: int, modalities: int, items: int, dim: int, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"m{m}": torch.randn(items, dim, generator=generator, dtype=torch.float64).to(dtype) for m in range(modalities)
    }


def draw_present(seed: int, modalities: int, items: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"m{m}": torch.rand(items, generator=generator) < 0.7 for m in range(modalities)}


def draw_ids(seed: int, items: int) -> Tensor:
    return torch.randint(0, max(1, items - 1), (items,), generator=torch.Generator().manual_seed(seed))


def value_and_gradients(
    objective: Objective,
    embeddings: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor] | None = None,
    ids: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: z.detach().clone().requires_grad_() for name, z in embeddings.items()}
    total = objective(leaves, present=present, ids=ids).total
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return total.detach(), dict(zip(leaves, gradients, strict=True))


def reference_value_and_gradients(
    objective: Objective,
    embeddings: Mapping[str, Tensor],
    *,
    present: Mapping[str, Tensor] | None = None,
    ids: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    leaves = {name: z.detach().clone().requires_grad_() for name, z in embeddings.items()}
    total = reference_total(objective, reference.unit_rows(leaves, present), None if ids is None else ids.tolist())
    total = total + sum(z.nan_to_num().sum() for z in leaves.values()) * 0.0
    gradients = torch.autograd.grad(total, list(leaves.values()))
    return total.detach(), dict(zip(leaves, gradients, strict=True))


def reference_total(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    return REFERENCES[objective.name](objective, rows, ids)


def _unialign(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    settings = objective.get_config()
    settings.pop("preset")
    return reference.unialign(rows, ids=ids, **settings)


def _infonce(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    s = objective.get_config()
    anchor = s["anchor"] if s["pairs"] == "anchor" else "all"
    plain = {"anchor": anchor, "tau": s["temperature"], "label_smoothing": s["label_smoothing"], "ids": ids}
    further = {name: s[name] for name in ("direction", "same_ids", "pair_weights", "hardness")}
    if list(further.values()) == ["both", "exclude", None, 0.0]:
        return reference.infonce(rows, **plain)
    return reference.infonce_of_queries(rows, **plain, **further)


def _gram(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    s = objective.get_config()
    eps = 0.0 if s["eps"] is None else s["eps"]
    smoothing = s["label_smoothing"]
    return reference.gram(rows, anchor=s["anchor"], tau=s["temperature"], label_smoothing=smoothing, eps=eps, ids=ids)


def _triangle(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    s = objective.get_config()
    return reference.triangle(
        rows,
        anchor=s["anchor"],
        form=s["form"],
        tau=s["temperature"],
        label_smoothing=s["label_smoothing"],
        eps=0.0 if s["eps"] is None else s["eps"],
        ids=ids,
    )


def _symile(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    s = objective.get_config()
    if s["negatives"] == "all":
        return reference.symile_all(rows, tau=s["temperature"], ids=ids)
    complete = sum(all(x is not None for x in item) for item in zip(*rows.values(), strict=True))
    drawn = draw_permutations(len(rows), complete, seed=s["seed"], draw=0)
    return reference.symile_sampled(rows, tau=s["temperature"], permutations=drawn.tolist(), ids=ids)


def _pmrl(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    s = objective.get_config()
    return reference.pmrl(rows, intra=s["intra_temperature"], inter=s["inter_temperature"], ids=ids)


def _sigmoid(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
    s = objective.get_config()
    return reference.sigmoid(rows, anchor=s["anchor"], scale=s["scale"], bias=s["bias"], ids=ids)


def _with_tau(reference_loss: Callable[..., Tensor]) -> Callable[[Objective, reference.Rows, list[int] | None], Tensor]:
    def call(objective: Objective, rows: reference.Rows, ids: list[int] | None) -> Tensor:
        s = {key: value for key, value in objective.get_config().items() if not key.startswith("temperature")}
        tau = {"tau": objective.get_config()["temperature"]} if "temperature" in objective.get_config() else {}
        return reference_loss(rows, ids=ids, **s, **tau)

    return call


REFERENCES: dict[str, Callable[[Objective, reference.Rows, list[int] | None], Tensor]] = {
    "unialign": _unialign,
    "infonce": _infonce,
    "gram": _gram,
    "triangle": _triangle,
    "symile": _symile,
    "pmrl": _pmrl,
    "sigmoid": _sigmoid,
    "cs_aligner": _with_tau(reference.cs_aligner),
    "modgap": _with_tau(reference.modgap),
    "cua": _with_tau(reference.cua),
    "align_uniform": _with_tau(reference.align_uniform),
}
