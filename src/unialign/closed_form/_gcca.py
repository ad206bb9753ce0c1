"""Generalized canonical correlation analysis of a store, as a space.

Shapes: `N` items, `W` dimension, `r` components of a modality, `D` dimension of the space.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from unialign._checks import check_choice, check_integer, check_nonnegative, check_number, check_seed
from unialign.closed_form._eigenproblem import MaskedGcca, Solution
from unialign.closed_form._modality import LinearBasis, Modality, read_modality, with_basis
from unialign.closed_form._selection import ValidationItems, choose
from unialign.closed_form._space import encoders_and_metadata, scaled_weights
from unialign.closed_form._training_rows import (
    Rows,
    check_modalities,
    fitted_rows,
    row_facts,
    selection_rows,
)
from unialign.config import InputNorm
from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.space import KernelBasis, Space, check_landmarks, normalization_of, set_kernel_basis, set_linear_head

Kernel = Literal["rbf", "linear"]

# Candidates of `regularization="auto"` and `spectrum_power="auto"`; the first of equally good candidates is chosen.
_REGULARIZATIONS = {"rbf": (1e-3, 1e-2, 3e-3, 3e-4, 1e-4, 3e-5), "linear": (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)}
_POWERS = (0.0, 0.5, 1.0)


@torch.no_grad()
def gcca(
    store: EmbeddingStore,
    *,
    kernel: Kernel = "rbf",
    dim: int = 256,
    regularization: float | Literal["auto"] = "auto",
    spectrum_power: float | Literal["auto"] = "auto",
    landmarks: int | Literal["auto"] = "auto",
    modalities: Sequence[str] | None = None,
    input_norm: InputNorm = "standardize",
    seed: int = 0,
) -> Space:
    """Compute a space by generalized canonical correlation analysis (MAXVAR GCCA), without gradient descent.

    The method computes the targets G of the training items that ridge regressions from all modalities predict best. The
    head of a modality is the ridge regression from this modality to G (Kettenring 1971, "Canonical analysis of several
    sets of variables", section 5). Items with missing modalities are used if they have at least two modalities, and the
    weight of an item is the number of its modalities (van de Velden, Bijmolt 2006, equation 3).

    `kernel="rbf"` gives a space with kernel heads, and `kernel="linear"` gives a space with linear heads. Equal
    arguments give equal spaces. `space.metadata["closed_form"]` contains the chosen settings and the numbers of rows.

    Examples:
        >>> import numpy as np
        >>> from unialign.data import EmbeddingStore
        >>> x = np.random.default_rng(0).normal(size=(50, 6))
        >>> store = EmbeddingStore.from_arrays({"image": x, "text": x[:, :4] ** 2})
        >>> gcca(store, kernel="linear", dim=3, regularization=0.1, spectrum_power=0).dim
        3

    Args:
        store: store of features with a split "train" and, preferably, a split "val".
        kernel: `rbf` (Gaussian, with the median squared distance as bandwidth) or `linear`.
        dim: dimension D of the space. If the data have fewer directions, the other coordinates are 0.
        regularization: positive ridge penalty, divided by the number of rows of a modality. `auto`: the regularization
            and the power are chosen together by the mean logarithm of R@1, joint R@1 and label mAP on the validation
            split or, without one, on held-out training rows.
        spectrum_power: non-negative exponent of the eigenvalues that weight the directions. 0 weights all directions
            equally, which favors joint queries. 0.5 and 1 emphasize directions with large eigenvalues, which favors
            label mAP.
        landmarks: maximum number of landmarks of a modality. With more rows, the kernel is approximated with random
            landmarks. `auto`: all rows if there are at most 5,000, otherwise 2,000 random rows.
        modalities: modalities of the space, at least two. None: the defaults of the store.
        input_norm: normalization of the features before the kernel is evaluated; a linear kernel requires
            `standardize`.
        seed: seed of the choice of landmarks and of held-out rows.

    Raises:
        ConfigError: an option is unknown or out of range.
        DataError: fewer than two training rows have a modality and at least one other modality, or all rows of a
            modality are equal, except for rounding, or float32 cannot hold the squared distances of a kernel.
        NonFiniteError: a training row is not finite in float32.
    """
    check_choice("kernel", kernel, ("rbf", "linear"))
    check_integer("dim", dim, low=1)
    check_landmarks(landmarks)
    check_seed(seed)
    if kernel == "linear" and input_norm != "standardize":
        raise ConfigError(
            f"a linear kernel needs input_norm='standardize', since linear heads have no bias; got {input_norm!r}"
        )
    candidates = _candidates(kernel, regularization, spectrum_power)
    names = check_modalities(store, modalities)
    rows_N = fitted_rows(store, names)
    options: dict[str, Any] = {"kernel": kernel, "landmarks": landmarks, "input_norm": input_norm, "seed": seed}
    chosen = _choose(store, names, rows_N, candidates, dim, options)
    problem = chosen.problem or _problem(store, names, rows_N, options)
    solution = problem.solve(chosen.regularization, dim)
    facts = {
        "method": "gcca",
        "kernel": kernel,
        "regularization": chosen.regularization,
        "spectrum_power": chosen.power,
        "selection": chosen.facts,
        "directions": len(solution.eigenvalues_D),
        **row_facts(store, names, rows_N),
    }
    return _space(store, problem.modalities, solution, chosen.power, dim, options, facts)


@dataclass(frozen=True)
class _Chosen:
    """Chosen settings; `facts` is None if nothing was chosen."""

    regularization: float
    power: float
    facts: dict[str, Any] | None
    problem: MaskedGcca | None = None


def _choose(
    store: EmbeddingStore,
    names: Sequence[str],
    rows_N: Rows,
    candidates: tuple[Sequence[float], Sequence[float]],
    dim: int,
    options: dict[str, Any],
) -> _Chosen:
    """Choose the settings; validation rows are used only if there are several candidates."""
    regularizations, powers = candidates
    if len(regularizations) == len(powers) == 1:
        return _Chosen(regularizations[0], powers[0], None)
    rows = selection_rows(store, names, rows_N, seed=options["seed"])
    if rows is None:
        return _Chosen(regularizations[0], powers[0], {"source": "defaults, since no rows could be held out"})
    problem = _problem(store, names, rows.fit_N, options)
    validation = ValidationItems(store, names, rows.score_N)
    regularization, power, found = choose(problem, validation, dim=dim, regularizations=regularizations, powers=powers)
    facts = {"source": rows.source, "items": validation.items, **found}
    return _Chosen(regularization, power, facts, problem if len(rows.fit_N) == len(rows_N) else None)


def _candidates(kernel: str, regularization: Any, spectrum_power: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if regularization != "auto":
        check_number("regularization", regularization, "'auto' or a positive finite number", lambda x: 0 < x < math.inf)
    if spectrum_power != "auto":
        check_nonnegative("spectrum_power", spectrum_power)
    return (
        _REGULARIZATIONS[kernel] if regularization == "auto" else (float(regularization),),
        _POWERS if spectrum_power == "auto" else (float(spectrum_power),),
    )


def _problem(store: EmbeddingStore, names: Sequence[str], rows_N: Rows, options: dict[str, Any]) -> MaskedGcca:
    rest = {name: value for name, value in options.items() if name != "input_norm"}
    modalities = [
        with_basis(read_modality(store, name, rows_N, input_norm=options["input_norm"]), store.dim(name), **rest)
        for name in names
    ]
    return MaskedGcca(modalities, len(rows_N))


def _space(
    store: EmbeddingStore,
    modalities: Sequence[Modality],
    solution: Solution,
    power: float,
    dim: int,
    options: dict[str, Any],
    facts: dict[str, Any],
) -> Space:
    dims = {modality.name: store.dim(modality.name) for modality in modalities}
    # Preserve the global random state, since the random initial weights are replaced below.
    with torch.random.fork_rng(devices=[]):
        space = Space(
            dims,
            dim=dim,
            head="kernel" if options["kernel"] == "rbf" else "linear",
            input_norm=options["input_norm"],
            regularization=solution.regularization,
            landmarks=options["landmarks"],
            **encoders_and_metadata(store, tuple(dims), facts),
        )
        scale_D = solution.eigenvalues_D.clamp(min=0) ** power
        for place, modality in enumerate(modalities):
            normalization_of(space.features[place]).load_state_dict(modality.norm.state_dict())
            weights_WD = solution.weights[modality.name] * scale_D
            if isinstance(modality.basis, KernelBasis):
                set_kernel_basis(space, modality.name, modality.basis)
            else:
                assert isinstance(modality.basis, LinearBasis)
                ridge_r = modality.basis.ridge_weights(solution.regularization)
                weights_WD = modality.basis.axes_Wr @ (ridge_r[:, None] * weights_WD)
            set_linear_head(space, modality.name, scaled_weights(weights_WD, dim).mT)
    return space.eval()
