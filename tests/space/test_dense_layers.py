"""Test that the dense layers of a space compute the same embeddings as the space."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unialign.data import EmbeddingStore
from unialign.errors import ConfigError
from unialign.space import Space
from unialign.space._dense_layers import DenseHead, dense_head

W, D, N = 7, 4, 50


def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, W)) @ rng.normal(size=(W, W)) * rng.uniform(0.1, 10, W) + rng.normal(size=W) * 20


def fitted(**options: Any) -> Space:
    torch.manual_seed(1)
    space = Space({"text": W}, dim=D, hidden=9, dropout=0.5, **options).eval()
    return space.fit_normalizer(EmbeddingStore.from_arrays({"text": features(), "b": features()}), np.arange(N))


def apply(head: DenseHead, x_BW: Tensor) -> Tensor:
    rows = torch.nn.functional.normalize(x_BW) if head.unit_input else x_BW
    for layer in head.layers:
        rows = layer(rows)
    if head.output is not None:
        rows = head.output(torch.nn.functional.normalize(rows))
    return torch.nn.functional.normalize(rows)


CASES: list[dict[str, Any]] = [
    {"head": head, "input_norm": norm} for head in ("mlp", "linear") for norm in ("standardize", "unit", "none")
] + [{"frozen": {"text": mode}} for mode in ("whiten", "center")]


@pytest.mark.parametrize("options", CASES, ids=lambda options: "-".join(map(str, options.values())))
def test_dense_layers_compute_the_embeddings_of_the_space(options: dict[str, Any]) -> None:
    space = fitted(**options)
    x_BW = torch.from_numpy(features())
    head = dense_head(space, "text")
    assert len(head.layers) == (2 if options.get("head") == "mlp" else 1)
    # The folding is exact in float64, up to rounding.
    torch.testing.assert_close(apply(head, x_BW), space.double().encode({"text": x_BW})["text"], atol=1e-12, rtol=0)
    assert all(layer.weight.dtype == torch.float64 for layer in head.layers)


def test_the_affine_map_of_a_repair_follows_a_normalization() -> None:
    torch.manual_seed(2)
    space = fitted().with_output_affine({"text": (torch.eye(D) + torch.randn(D, D) / 3, torch.randn(D))})
    x_BW = torch.from_numpy(features())
    found = apply(dense_head(space, "text"), x_BW)
    torch.testing.assert_close(found, space.double().encode({"text": x_BW})["text"], atol=1e-12, rtol=0)


def test_a_kernel_head_is_no_dense_layer() -> None:
    with pytest.raises(ConfigError, match="the head of 'text' is a kernel head"):
        dense_head(fitted(head="kernel"), "text")


def test_an_unknown_layer_is_named() -> None:
    space = fitted(head="linear")
    space.heads[0].append(torch.nn.Tanh())
    with pytest.raises(ConfigError, match="the layer Tanh of the head of 'text' is not a dense layer"):
        dense_head(space, "text")
    space.heads[0][-1] = torch.nn.GELU(approximate="tanh")
    with pytest.raises(ConfigError, match="the layer GELU"):
        dense_head(space, "text")


def test_an_unknown_input_normalization_is_named() -> None:
    space = fitted(head="linear")
    space.features[0] = torch.nn.LayerNorm(W)
    with pytest.raises(ConfigError, match="input normalization LayerNorm of 'text' is not affine"):
        dense_head(space, "text")
