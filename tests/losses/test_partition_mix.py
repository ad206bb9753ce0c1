"""Test `partition_mix`, from InfoNCE's partition across modalities (0) to UniAlign's partition within them (1)."""

from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st

from loss_cases import draw_batch, draw_present, value_and_gradients
from unialign.errors import ConfigError
from unialign.losses import InfoNCE, UniAlign


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("weighting", ["mean", "infonce_matched"])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_zero_is_infonce_with_an_anchor(modalities: int, weighting: Any, temperature: float):
    embeddings = draw_batch(1, modalities, 7, 6)
    ids = torch.tensor([0, 1, 2, 1, 3, 4, 0])
    mixed = UniAlign("m1", partition_mix=0.0, weighting=weighting, temperature=temperature)
    contrast = InfoNCE("m1", temperature=temperature)
    for given_ids in (None, ids):
        value, gradients = value_and_gradients(mixed, embeddings, ids=given_ids)
        expected, expected_gradients = value_and_gradients(contrast, embeddings, ids=given_ids)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_zero_is_infonce_of_all_pairs(modalities: int):
    embeddings = draw_batch(2, modalities, 7, 6)
    value, gradients = value_and_gradients(UniAlign("all", partition_mix=0.0), embeddings)
    expected, expected_gradients = value_and_gradients(InfoNCE("all"), embeddings)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-12)


def test_the_identity_requires_complete_items():
    """With missing rows, the alignment is a mean over true pairs, but InfoNCE is a mean over pairs of modalities."""
    embeddings, present = draw_batch(3, 3, 7, 6), {"m1": torch.arange(7) < 5, "m2": torch.arange(7) < 3}
    mixed = UniAlign("m0", partition_mix=0.0)(embeddings, present=present)
    contrast = InfoNCE("m0")(embeddings, present=present)
    assert mixed.total != pytest.approx(contrast.total.item(), abs=1e-6)
    pair = {m: embeddings[m] for m in ("m0", "m1")}
    there = {"m1": present["m1"]}
    mixed, contrast = (loss(pair, present=there) for loss in (UniAlign("m0", partition_mix=0.0), InfoNCE("m0")))
    torch.testing.assert_close(mixed.total, contrast.total, rtol=0, atol=1e-12)


@pytest.mark.parametrize("preset", ["balanced", "paper", "infonce_matched", "frozen_anchor", "symmetric", "geodesic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_is_unialign_bit_by_bit(preset: str, dtype: torch.dtype):
    embeddings, present = draw_batch(4, 3, 7, 6, dtype), draw_present(4, 3, 7)
    ids = torch.tensor([0, 1, 2, 1, 3, 4, 0])
    mixed = UniAlign("m0", preset=preset, partition_mix=1.0)
    plain = UniAlign("m0", preset=preset)
    value, gradients = value_and_gradients(mixed, embeddings, present=present, ids=ids)
    expected, expected_gradients = value_and_gradients(plain, embeddings, present=present, ids=ids)
    assert torch.equal(value, expected)
    assert all(torch.equal(gradients[m], expected_gradients[m]) for m in embeddings)


@given(
    seed=st.integers(0, 2**31 - 1), beta=st.floats(0, 1), anchor=st.sampled_from(["m0", "all"]), masked=st.booleans()
)
def test_values_in_between_are_linear(seed: int, beta: float, anchor: str, masked: bool):
    embeddings = draw_batch(seed, 3, 6, 5)
    present = draw_present(seed, 3, 6) if masked else None
    ends = [value_and_gradients(UniAlign(anchor, partition_mix=x), embeddings, present=present) for x in (0.0, 1.0)]
    value, gradients = value_and_gradients(UniAlign(anchor, partition_mix=beta), embeddings, present=present)
    torch.testing.assert_close(value, (1 - beta) * ends[0][0] + beta * ends[1][0])
    for m, gradient in gradients.items():
        torch.testing.assert_close(gradient, (1 - beta) * ends[0][1][m] + beta * ends[1][1][m])


def test_partition_mix_0_and_1_compute_one_partition():
    embeddings = draw_batch(5, 3, 6, 5)
    inside, between = {f"uniformity/m{m}" for m in range(3)}, {"partition/m0-m1", "partition/m0-m2"}
    assert set(UniAlign("m0", partition_mix=0.0)(embeddings).terms) == between | {"alignment"}
    assert set(UniAlign("m0", partition_mix=1.0)(embeddings).terms) == inside | {"alignment"}
    assert set(UniAlign("m0", partition_mix=0.5)(embeddings).terms) == inside | between | {"alignment"}


def test_uniformity_weight_multiplies_both_partitions():
    embeddings = draw_batch(6, 3, 6, 5)
    for beta in (0.0, 0.3, 1.0):
        none, one, three = (
            UniAlign("m0", partition_mix=beta, uniformity_weight=weight)(embeddings) for weight in (0.0, 1.0, 3.0)
        )
        torch.testing.assert_close(three.total - none.total, 3 * (one.total - none.total))
        assert set(none.terms) == {"alignment"}


def test_errors():
    for options, message in [
        ({"anchor": "centroid"}, r"does not support anchor='centroid': .*use a modality or 'all'"),
        ({"weighting": "sum"}, r"does not support weighting='sum': only 'mean' and 'infonce_matched'"),
        ({"weighting": "exclude_anchor"}, r"does not support weighting='exclude_anchor'"),
        ({"preset": "paper"}, r"does not support weighting='sum'"),
        ({"stop_gradient": "anchor"}, r"does not support stop_gradient='anchor': .*use 'none'"),
        ({"reduction": "outer_log"}, r"does not support reduction='outer_log': .*use 'mean_log'"),
        ({"kernel": "wang_isola"}, r"does not support kernel='wang_isola': .*reduction='mean_log'"),
        ({"kernel": "geodesic"}, r"kernel='geodesic': with distance='euclidean' .*two geometries"),
        ({"distance": "geodesic"}, r"kernel='clip': with distance='geodesic' .*two geometries"),
        ({"partition_mix": -0.1}, r"partition_mix must be in \[0, 1\], got -0.1"),
        ({"partition_mix": 1.1}, r"partition_mix must be in \[0, 1\], got 1.1"),
        ({"partition_mix": float("nan")}, r"partition_mix must be in \[0, 1\], got nan"),
    ]:
        with pytest.raises(ConfigError, match=message):
            UniAlign(**({"anchor": "m0", "partition_mix": 0.5} | options))
        if "partition_mix" not in options:
            UniAlign(**({"anchor": "m0"} | options))  # All combinations are allowed at the default, 1.


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "gaussian", "temperature": 0.3},
        {"kernel": "wang_isola", "reduction": "mean_log"},
        {"kernel": "geodesic", "distance": "geodesic", "temperature": 0.3},
        {"centroid_weight": 0.5, "volume_weight": 0.5},
    ],
)
def test_other_options_combine(options: dict[str, Any]):
    """The batch contains equal rows and opposite rows, at which the derivative of arccos is infinite."""
    embeddings = draw_batch(7, 3, 6, 5)
    embeddings["m1"][0], embeddings["m2"][1] = -embeddings["m0"][0], embeddings["m0"][1]
    value, gradients = value_and_gradients(UniAlign("all", partition_mix=0.5, **options), embeddings)
    assert torch.isfinite(value)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
