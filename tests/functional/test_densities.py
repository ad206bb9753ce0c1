"""Compare divergences of unit rows with reference implementations, finite differences and theory.

Shapes: `M` modalities m0, m1, ...; `B` items; `D` dim.
"""

import itertools
import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import reference
from related import draw
from unialign.batch import make_batch
from unialign.functional._density import log_densities, mean_neighbors, median_bandwidth_of
from unialign.functional._divergence import unit_cauchy_schwarz, unit_holder, unit_mmd2
from unialign.ops import _tiles

ESTIMATORS = ("plugin", "plugin_avg", "pooled", "debiased", "exact")


def draw_present(modalities: int, items: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {f"m{m}": torch.rand(items, generator=g) < 0.7 for m in range(modalities)}


def units(embeddings: dict[str, Tensor]) -> list[Tensor]:
    return list(make_batch(embeddings).z_MBD)


def value_and_gradients(function, embeddings: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    leaves = {m: z.detach().clone().requires_grad_() for m, z in embeddings.items()}
    value = function(leaves)
    return value.detach(), list(torch.autograd.grad(value, list(leaves.values())))


@given(
    modalities=st.integers(2, 4),
    items=st.integers(1, 5),
    seed=st.integers(0, 999),
    bandwidth=st.sampled_from([0.3, 0.5, 1.0, 3.0]),
    masked=st.booleans(),
    estimator=st.sampled_from(ESTIMATORS),
    first=st.booleans(),
)
def test_holder_and_its_gradient_equal_the_reference(modalities, items, seed, bandwidth, masked, estimator, first):
    embeddings = draw(modalities, items, 4, seed)
    present = draw_present(modalities, items, seed) if masked else None
    center = "m1" if first and estimator in ("plugin", "debiased") else None

    def fast(leaves):
        batch = make_batch(leaves, present=present)
        return unit_holder(batch, bandwidth=bandwidth, estimator=estimator, reference=center)

    def slow(leaves):
        rows = reference.unit_rows(leaves, present)
        value = reference.holder(rows, tau=bandwidth, estimator=estimator, reference=center)
        return value + sum(z.sum() for z in leaves.values()) * 0.0

    value, gradients = value_and_gradients(fast, embeddings)
    expected, expected_gradients = value_and_gradients(slow, embeddings)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)


@given(left=st.integers(2, 5), right=st.integers(2, 5), seed=st.integers(0, 999), bandwidth=st.sampled_from([0.3, 1.0]))
def test_pairwise_divergences_and_gradients_equal_their_references(left, right, seed, bandwidth):
    embeddings = {"x": draw(1, left, 4, seed)["m0"], "y": draw(1, right, 4, seed + 1)["m0"]}

    def fast(leaves):
        x, y = (torch.nn.functional.normalize(z) for z in leaves.values())
        both = [unit_mmd2(x, y, bandwidth=bandwidth, unbiased=unbiased) for unbiased in (False, True)]
        return torch.stack([unit_cauchy_schwarz(x, y, bandwidth=bandwidth), *both])

    def slow(leaves):
        x, y = ([z[i] / z[i].norm() for i in range(len(z))] for z in leaves.values())
        both = [reference.mmd2(x, y, tau=bandwidth, diagonals=kind) for kind in ("kept", "dropped")]
        return torch.stack([reference.cauchy_schwarz(x, y, tau=bandwidth), *both])

    for part in range(3):
        value, gradients = value_and_gradients(lambda leaves, part=part: fast(leaves)[part], embeddings)
        expected, expected_gradients = value_and_gradients(lambda leaves, part=part: slow(leaves)[part], embeddings)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
        for found, wanted in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bandwidth", [0.2, 0.7])
def test_holder_passes_gradcheck(estimator, bandwidth):
    present = {"m1": torch.tensor([True, True, False, True])}

    def value(*leaves):
        batch = make_batch(dict(zip(("m0", "m1", "m2"), leaves, strict=True)), present=present)
        return unit_holder(batch, bandwidth=bandwidth, estimator=estimator)

    assert torch.autograd.gradcheck(value, [z.requires_grad_() for z in draw(3, 4, 3, 0).values()])


@pytest.mark.parametrize("bandwidth", [0.2, 0.7])
def test_pairwise_divergences_pass_gradcheck(bandwidth):
    x, y = (torch.nn.functional.normalize(z).requires_grad_() for z in draw(2, 4, 3, 1).values())
    assert torch.autograd.gradcheck(lambda a, b: unit_cauchy_schwarz(a, b[:3], bandwidth=bandwidth), (x, y))
    for unbiased in (False, True):
        assert torch.autograd.gradcheck(
            lambda a, b, u=unbiased: unit_mmd2(a, b[:3], bandwidth=bandwidth, unbiased=u), (x, y)
        )


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("bandwidth", [0.01, 0.5, 100.0])
@pytest.mark.parametrize("kind", ["coinciding", "far", "equal sets", "one row", "no row"])
def test_values_and_gradients_are_finite_in_float32(estimator, bandwidth, kind):
    """At bandwidth 0.01, the kernel of distant rows is exp(-20,000), which underflows unless log-sum-exp is used."""
    embeddings = {m: z.float() for m, z in draw(3, 4, 6, 2).items()}
    present = None
    if kind == "coinciding":
        embeddings = {m: torch.ones(4, 6) for m in embeddings}
    elif kind == "far":
        embeddings = dict(zip(embeddings, (torch.eye(6)[:4], -torch.eye(6)[:4], torch.eye(6)[2:6]), strict=True))
    elif kind == "equal sets":
        embeddings = dict.fromkeys(embeddings, embeddings["m0"])
    elif kind == "one row":
        embeddings = {m: z[:1] for m, z in embeddings.items()}
    else:
        present = {m: torch.zeros(4, dtype=torch.bool) for m in embeddings}

    def value(leaves):
        return unit_holder(make_batch(leaves, present=present), bandwidth=bandwidth, estimator=estimator)

    total, gradients = value_and_gradients(value, embeddings)
    assert torch.isfinite(total)
    assert all(torch.isfinite(z).all() for z in gradients)
    if kind in ("coinciding", "no row"):
        # The float32 error of cosines, 1e-7, is divided by the squared bandwidth.
        assert float(total) == pytest.approx(0.0, abs=1e-6 / bandwidth**2)
    if kind == "equal sets" and estimator != "debiased":
        assert float(total) == pytest.approx(0.0, abs=1e-5 + 1e-6 / bandwidth**2)


def test_absent_rows_may_hold_nan_and_get_no_gradient():
    present = {"m1": torch.tensor([True, False, True, True])}
    clean = draw(3, 4, 5, 3)
    spoilt = {**clean, "m1": torch.where(present["m1"][:, None], clean["m1"], torch.nan)}
    for estimator in ESTIMATORS:

        def value(leaves, estimator=estimator):
            return unit_holder(make_batch(leaves, present=present), bandwidth=0.5, estimator=estimator)

        found, wanted = (value_and_gradients(value, batch) for batch in (spoilt, clean))
        assert torch.equal(found[0], wanted[0])
        assert all(torch.equal(a, b) for a, b in zip(found[1], wanted[1], strict=True))
        assert not found[1][1][1].any()


def test_modalities_without_density_are_omitted():
    """A modality without rows (`debiased`: with a single row) has no density, and only the others are compared."""
    embeddings = draw(3, 5, 4, 4)
    pair = {m: embeddings[m] for m in ("m0", "m2")}
    for rows, estimators in ((0, ESTIMATORS), (1, ("debiased",))):
        present = {"m1": torch.arange(5) < rows}
        for estimator in estimators:
            whole = unit_holder(make_batch(embeddings, present=present), bandwidth=0.5, estimator=estimator)
            without = unit_holder(make_batch(pair), bandwidth=0.5, estimator=estimator)
            torch.testing.assert_close(whole, without)
    gone = unit_holder(
        make_batch(embeddings, present={"m1": torch.zeros(5, dtype=torch.bool)}),
        bandwidth=0.5,
        estimator="plugin",
        reference="m1",
    )
    assert float(gone) == 0.0


@given(
    modalities=st.integers(2, 5),
    items=st.integers(1, 6),
    seed=st.integers(0, 999),
    bandwidth=st.sampled_from([0.05, 0.2, 0.5, 2.0]),
)
def test_pooled_and_exact_are_nonnegative(modalities, items, seed, bandwidth):
    batch = make_batch(
        draw(modalities, items, 3, seed), present=draw_present(modalities, items, seed) if seed % 2 else None
    )
    assert float(unit_holder(batch, bandwidth=bandwidth, estimator="pooled")) >= -1e-10
    if items**modalities <= 1300:
        assert float(unit_holder(batch, bandwidth=bandwidth, estimator="exact")) >= -1e-10


@pytest.mark.parametrize("bandwidth", [0.2, 0.5, 1.0])
def test_two_modalities_have_half_the_cauchy_schwarz_divergence(bandwidth):
    """For M = 2, every estimator equals half of D_CS over its own pairs of rows; `exact` uses sqrt(2) * bandwidth."""
    batch = make_batch(draw(2, 7, 4, 5))
    x, y = batch.z_MBD

    def half(own_x, own_y, cross):
        return (own_x.log() + own_y.log() - 2 * cross.log()) / 2

    def table(a, b, tau=bandwidth):
        return torch.exp(-(torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / (2 * tau**2))

    off = ~torch.eye(7, dtype=torch.bool)
    points = torch.cat([x, y])
    p, q = table(points, x).mean(1), table(points, y).mean(1)
    whole = half(table(x, x).mean(), table(y, y).mean(), table(x, y).mean())
    wide = 2**0.5 * bandwidth
    expected = {
        "plugin": whole,
        "plugin_avg": whole,
        "pooled": half((p * p).sum(), (q * q).sum(), (p * q).sum()),
        "debiased": half(table(x, x)[off].mean(), table(y, y)[off].mean(), table(x, y)[off].mean()),
        "exact": half(table(x, x, wide).mean(), table(y, y, wide).mean(), table(x, y, wide).mean()),
    }
    for estimator, value in expected.items():
        torch.testing.assert_close(unit_holder(batch, bandwidth=bandwidth, estimator=estimator), value)
    torch.testing.assert_close(unit_cauchy_schwarz(x, y, bandwidth=bandwidth) / 2, whole)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_divergences_are_invariant_to_order_scale_and_rotation(estimator):
    embeddings = draw(3, 6, 5, 6)
    g = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=g, dtype=torch.float64)).Q
    order = torch.randperm(6, generator=g)
    center = "m1" if estimator == "plugin" else None
    value = unit_holder(make_batch(embeddings), bandwidth=0.5, estimator=estimator, reference=center)
    moved = {m: 3 * z[order] @ turn for m, z in reversed(embeddings.items())}
    other = unit_holder(make_batch(moved), bandwidth=0.5, estimator=estimator, reference=center)
    torch.testing.assert_close(other, value)


@pytest.mark.parametrize("bandwidth", [0.07, 0.5, 1.0])
def test_equal_sets_have_divergence_zero(bandwidth):
    z = draw(1, 40, 16, 7)["m0"]
    batch = make_batch({"a": z, "b": z, "c": z})
    for estimator in ("plugin", "plugin_avg", "pooled"):
        assert float(unit_holder(batch, bandwidth=bandwidth, estimator=estimator)) == pytest.approx(0.0, abs=1e-10)
    few = make_batch({m: x[:8] for m, x in zip("abc", (z, z, z), strict=True)})
    assert float(unit_holder(few, bandwidth=bandwidth, estimator="exact")) == pytest.approx(0.0, abs=1e-10)
    (x,) = units({"m0": z, "m1": z})[:1]
    assert float(unit_cauchy_schwarz(x, x, bandwidth=bandwidth)) == pytest.approx(0.0, abs=1e-10)
    assert float(unit_mmd2(x, x, bandwidth=bandwidth)) == pytest.approx(0.0, abs=1e-12)


def test_exact_equals_the_integral_by_quadrature():
    """For rows in two dimensions, the densities are integrated numerically over the plane."""
    batch = make_batch(draw(3, 4, 2, 8))
    tau = 0.4
    axis = torch.linspace(-4, 4, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    densities = [torch.exp(-(torch.cdist(grid, z) ** 2) / (2 * tau**2)).mean(1) for z in batch.z_MBD]
    own = sum((p**3).sum().log() for p in densities) / 3
    wanted = own - math.prod(densities[1:], start=densities[0]).sum().log()
    torch.testing.assert_close(unit_holder(batch, bandwidth=tau, estimator="exact"), wanted, rtol=1e-6, atol=1e-6)


def test_only_debiased_is_near_zero_for_independent_draws():
    g = torch.Generator().manual_seed(0)
    batch = make_batch({f"m{m}": torch.randn(256, 64, generator=g, dtype=torch.float64) for m in range(3)})
    value = {e: float(unit_holder(batch, bandwidth=0.5, estimator=e)) for e in ("plugin_avg", "debiased", "pooled")}
    assert value["plugin_avg"] == pytest.approx(0.34, abs=0.03)
    assert value["pooled"] == pytest.approx(0.03, abs=0.01)
    assert abs(value["debiased"]) < 0.02


def test_self_pairs_dominate_densities_at_small_bandwidths():
    """At small bandwidths, a density at its own rows is dominated by the self pair, 1/B, so its gradient vanishes.

    The self pair must be excluded from the sum, since subtracting it afterwards leaves only rounding errors.
    """
    z = units(draw(2, 64, 32, 9))[0].float()
    tau, items = 0.05, torch.arange(64)
    inside = log_densities(z, z, bandwidth=tau)
    assert torch.allclose(inside, torch.full((64,), -math.log(64)), atol=1e-3)
    assert not torch.isfinite(torch.log((64 * inside.exp() - 1) / 63)).all()

    others = [torch.logsumexp((z.double()[i] @ z.double()[items != i].T - 1) / tau**2, 0) for i in range(64)]
    left_out = log_densities(z, z, bandwidth=tau, items=(items, items))
    torch.testing.assert_close(left_out.double(), torch.stack(others) - math.log(63), rtol=1e-6, atol=1e-3)

    def repulsion(pairs):
        leaf = z.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(log_densities(leaf, leaf, bandwidth=tau, items=pairs).sum(), leaf)
        return float((gradient - (gradient * z).sum(1, keepdim=True) * z).norm())

    assert repulsion(None) < 1e-3 * repulsion((items, items))


def test_effective_neighbors_do_not_depend_on_tiles(monkeypatch):
    batch = make_batch(draw(3, 23, 6, 10), present=draw_present(3, 23, 10))
    neighbors = [mean_neighbors(batch.z_MBD[0], bandwidth=0.5, self_pairs=s) for s in ("included", "excluded")]
    monkeypatch.setattr(_tiles, "TILE", 23 * 5)
    assert neighbors == pytest.approx(
        [mean_neighbors(batch.z_MBD[0], bandwidth=0.5, self_pairs=s) for s in ("included", "excluded")]
    )


@given(sizes=st.lists(st.integers(0, 6), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_median_bandwidth_equals_the_reference(sizes, seed):
    g = torch.Generator().manual_seed(seed)
    sets = [torch.nn.functional.normalize(torch.randn(n, 3, generator=g, dtype=torch.float64)) for n in sizes]
    assert median_bandwidth_of(sets) == pytest.approx(reference.median_bandwidth([list(z) for z in sets]))


def test_median_bandwidth_of_many_rows_uses_a_fixed_sample():
    z = torch.nn.functional.normalize(torch.randn(300, 8, generator=torch.Generator().manual_seed(0)))
    whole, sample = median_bandwidth_of([z]), median_bandwidth_of([z], limit=64)
    assert isinstance(whole, float)
    assert sample == median_bandwidth_of([z], limit=64)
    assert sample == pytest.approx(whole, rel=0.1)
    assert median_bandwidth_of([z.requires_grad_()]) == whole
    assert median_bandwidth_of([torch.ones(5, 4) / 2]) == 0.01


@given(items=st.integers(2, 6), seed=st.integers(0, 99), bandwidth=st.sampled_from([0.2, 0.5, 2.0]))
def test_effective_neighbors_equal_the_reference(items, seed, bandwidth):
    z = units(draw(2, items, 4, seed))[0]
    for kind in ("included", "excluded"):
        found = mean_neighbors(z, bandwidth=bandwidth, self_pairs=kind)
        wanted = reference.effective_neighbors({"m0": list(z)}, tau=bandwidth, own=kind)
        assert found == pytest.approx(wanted)
        assert 1 - 1e-9 <= found <= items - (kind == "excluded") + 1e-9


def test_effective_neighbors_at_extreme_bandwidths():
    z = units(draw(2, 12, 6, 0))[0]
    for kind, most in (("included", 12), ("excluded", 11)):
        assert mean_neighbors(z, bandwidth=1e-3, self_pairs=kind) == pytest.approx(1.0)
        assert mean_neighbors(z, bandwidth=1e3, self_pairs=kind) == pytest.approx(most)
    assert mean_neighbors(z[:1], bandwidth=0.5, self_pairs="included") == 1.0
    assert mean_neighbors(z[:1], bandwidth=0.5, self_pairs="excluded") == 0.0


def test_the_spread_of_a_tuple_is_a_sum_of_pairwise_distances():
    """The spread S = sum_m |x_m - mean|^2 equals (1/M) sum_{m<n} |x_m - x_n|^2."""
    points = units(draw(4, 1, 5, 11))
    pairs = sum(((x - y) ** 2).sum() for x, y in itertools.combinations([z[0] for z in points], 2))
    mass = reference.gaussian_mass([z[0] for z in points], 0.7)
    torch.testing.assert_close(-torch.log(mass) * 2 * 0.7**2, pairs / 4)
