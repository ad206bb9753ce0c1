"""Fit a given method to rows, without measurements and without pairs."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unialign.correction._candidates import references
from unialign.correction._layers import AFFINE, Affine, Method, fit_layers
from unialign.correction._modules import RepairLayers
from unialign.correction._repair import Repair


def fit_given(method: Method, rows: Mapping[str, Tensor], *, metadata: Mapping[str, Any] | None = None) -> Repair:
    """Fit a method to float64 unit rows, modality -> (n, D); the rows need not be paired.

    Raises:
        DataError: all rows of a modality are equal.
    """
    choice: Method = method if method in AFFINE else "center"
    return made_repair(choice, method, rows, fit_layers(choice, rows), metadata or {})


def with_few_rows(repair: Repair, rows: Mapping[str, Tensor], *, least: int) -> Repair:
    """Return the repair with additional modalities, which have too few rows to compare methods.

    Their rows are centered if there are at least `least` of them and the repair changes rows, else left unchanged.
    """
    names = [*repair.modalities, *rows]
    old = {name: repair._layer(name) for name in repair.modalities}
    sizes = {name: len(rows[name]) if name in rows else len(old[name].reference) for name in names}
    modules = RepairLayers(sizes, dim=repair.dim, choice=repair.choice, index_choice=repair.index_choice)
    with torch.no_grad():
        for name in names:
            if name in old:
                modules[name].load_state_dict(old[name].state_dict())
                continue
            z_nD = rows[name]
            mean_D = z_nD.mean(0) if len(z_nD) >= least else torch.zeros_like(z_nD[0])
            modules[name].mean.copy_(mean_D)
            modules[name].reference.copy_(torch.nn.functional.normalize(z_nD - mean_D, dim=1, eps=1e-300))
            if repair.choice != "none":
                modules[name].bias.copy_(-mean_D)
    return Repair(modules.double(), repair.metadata)


def made_repair(
    choice: Method,
    index_choice: Method,
    rows: Mapping[str, Tensor],
    layers: Mapping[str, Affine],
    metadata: Mapping[str, Any],
) -> Repair:
    """Return the repair with fitted layers, the means and the reference rows of the rows."""
    reference = references(rows)
    dim = next(iter(rows.values())).shape[1]
    modules = RepairLayers(
        {name: len(z_RD) for name, z_RD in reference.items()}, dim=dim, choice=choice, index_choice=index_choice
    )
    with torch.no_grad():
        for name, z_nD in rows.items():
            weight_DD = layers[name].weight
            if weight_DD is not None:
                modules[name].weight.copy_(weight_DD)
            modules[name].bias.copy_(layers[name].bias)
            modules[name].mean.copy_(z_nD.mean(0))
            modules[name].reference.copy_(reference[name])
    return Repair(modules, metadata)
