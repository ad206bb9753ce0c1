"""Test `partition_mix`, from InfoNCE's partition across modalities (0) to UniAlign's partition within them (1)."""

from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import reference
from loss_cases import draw_batch, draw_present, value_and_gradients
from unialign.errors import ConfigError
from unialign.losses import PRESETS, InfoNCE, UniAlign


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
    plain = UniAlign("m0", preset=preset)  # the rows are not in a narrow cone
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
        ({"partition_mix": -0.1}, r"partition_mix must be 'auto' or a number in \[0, 1\], got -0.1"),
        ({"partition_mix": 1.1}, r"partition_mix must be 'auto' or a number in \[0, 1\], got 1.1"),
        ({"partition_mix": float("nan")}, r"partition_mix must be 'auto' or a number in \[0, 1\], got nan"),
    ]:
        with pytest.raises(ConfigError, match=message):
            UniAlign(**({"anchor": "m0", "partition_mix": 0.5} | options))
        if "partition_mix" not in options:
            UniAlign(**({"anchor": "m0"} | options))  # all combinations are allowed at the default


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


def cone(seed: int, cosine: float, items: int = 12, dim: int = 9) -> dict[str, Tensor]:
    """Two wide modalities, and one whose items have about the given mean cosine."""
    embeddings = draw_batch(seed, 3, items, dim)
    direction_D = torch.ones(dim, dtype=torch.float64) / dim**0.5
    unit_BD = torch.nn.functional.normalize(embeddings["m1"] - embeddings["m1"] @ direction_D[:, None] * direction_D)
    return embeddings | {"m1": cosine**0.5 * direction_D + (1 - cosine) ** 0.5 * unit_BD}


def as_rows(embeddings: dict[str, Tensor], present: dict[str, Tensor]) -> dict[str, list[Tensor | None]]:
    unit = {m: torch.nn.functional.normalize(x_BD) for m, x_BD in embeddings.items()}
    return {m: [z_D if m not in present or present[m][i] else None for i, z_D in enumerate(unit[m])] for m in unit}


@pytest.mark.parametrize("cosine", [0.0, 0.2, 0.35, 0.4, 0.6, 0.999])
@pytest.mark.parametrize("anchor", ["m0", "all"])
def test_auto_mixes_by_the_mean_cosine(cosine: float, anchor: str):
    """Value and gradient equal those of the fixed share, which is 1 below a mean cosine of 0.25 and 0 above 0.5."""
    embeddings, present = cone(8, cosine), {"m2": torch.arange(12) != 3}
    share = reference.share_within(as_rows(embeddings, present))
    assert share == 1 if cosine < 0.3 else share == 0 if cosine > 0.5 else 0 < share < 1
    value, gradients = value_and_gradients(UniAlign(anchor), embeddings, present=present)
    fixed = UniAlign(anchor, partition_mix=share)
    expected, expected_gradients = value_and_gradients(fixed, embeddings, present=present)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=1e-10)
    options = {key: x for key, x in UniAlign(anchor).get_config().items() if key != "preset"}
    slow = reference.unialign(as_rows(embeddings, present), **options)
    torch.testing.assert_close(value, slow, rtol=0, atol=1e-10)


def test_auto_ignores_modalities_with_few_rows():
    embeddings = cone(9, 0.95)
    assert any("partition" in name for name in UniAlign()(embeddings).terms)
    few = {"m1": torch.arange(12) < 7}
    assert not any("partition" in name for name in UniAlign()(embeddings, present=few).terms)


def test_auto_is_the_default_where_it_is_supported():
    assert UniAlign("m0").partition_mix == UniAlign("m0", preset="adaptive").partition_mix == "auto"
    assert UniAlign("m0", kernel="geodesic").partition_mix == 1
    for preset, options in PRESETS.items():
        if preset != "adaptive":
            expected = {"small_batch": 0.0, "joint_queries": 0.0, "classes": 0.0, "retrieval": 0.25}.get(preset, 1.0)
            assert UniAlign("m0", preset=preset).partition_mix == options["partition_mix"] == expected
    assert UniAlign("centroid").partition_mix == 1
    with pytest.raises(ConfigError, match="does not support anchor='centroid'"):
        UniAlign("centroid", partition_mix="auto")
    with pytest.raises(ConfigError, match="'auto' or a number"):
        UniAlign(partition_mix="always")  # type: ignore[arg-type]


def test_auto_with_a_temperature_of_the_call():
    embeddings = cone(10, 0.37)
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    total = UniAlign()(embeddings, temperature=1 / scale).total
    share = reference.share_within(as_rows(embeddings, {}))
    expected = UniAlign(partition_mix=share)(embeddings, temperature=1 / scale).total
    torch.testing.assert_close(total, expected)
    slopes = [torch.autograd.grad(x, scale, retain_graph=True)[0] for x in (total, expected)]
    torch.testing.assert_close(slopes[0], slopes[1])


def test_only_unialign_attracts_narrow_cones():
    """The expansions of docs/findings/from_scratch.md: InfoNCE has no term in the distance of the cones."""
    tau, items, dim = 0.07, 32, 16
    generator = torch.Generator().manual_seed(11)
    middles_2D, parts_2BD = (
        torch.nn.functional.normalize(torch.randn(shape, generator=generator, dtype=torch.float64), dim=-1)
        for shape in ((2, dim), (2, items, dim))
    )
    rows_2BD = (middles_2D[:, None] + 0.003 * parts_2BD).requires_grad_(True)
    x_BD, y_BD = torch.nn.functional.normalize(rows_2BD, dim=2)
    x_D, y_D = x_BD.mean(0), y_BD.mean(0)
    covariance = ((x_BD - x_D) * (y_BD - y_D)).sum(1).mean() / tau
    attraction = (x_D - y_D).square().sum() / (2 * tau)
    variances = [((a_BD - a_BD.mean(0)) @ b_D).square().mean() for a_BD, b_D in ((x_BD, y_D), (y_BD, x_D))]
    for loss, expansion in [
        (UniAlign(partition_mix=1), attraction - covariance),
        (InfoNCE(), sum(variances) / (4 * tau**2) - covariance),
    ]:
        (expected,) = torch.autograd.grad(expansion, rows_2BD, retain_graph=True)
        (found,) = torch.autograd.grad(loss({"x": rows_2BD[0], "y": rows_2BD[1]}).total, rows_2BD)
        assert (found - expected).norm() < 0.02 * expected.norm()
