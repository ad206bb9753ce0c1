"""Compare the public formulas with the reference implementations and with closed forms."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import reference
from score_tables import cross_volumes
from unialign.batch import make_batch
from unialign.errors import ConfigError, ShapeError
from unialign.functional import alignment, centroids, gram_volume, uniformity
from unialign.ops import KernelFunction, arccos_squared, safe_sqrt

KERNELS = ["clip", "gaussian", "wang_isola", "geodesic"]
SEEDS = st.integers(0, 2**31 - 1)


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def draw_mask(seed: int, items: int) -> Tensor:
    return torch.rand(items, generator=torch.Generator().manual_seed(seed)) < 0.7


def modalities(seed: int, count: int, items: int, dim: int) -> dict[str, Tensor]:
    return {f"m{m}": z for m, z in enumerate(draw(seed, count, items, dim))}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reduction", [None, "mean_log", "outer_log"])
@given(
    seed=SEEDS,
    items=st.integers(1, 9),
    dim=st.integers(2, 16),
    temperature=st.sampled_from([0.07, 0.5]),
    order=st.integers(1, 4),
    masked=st.booleans(),
    grouped=st.booleans(),
)
def test_uniformity_equals_the_reference(
    kernel: str,
    reduction: str | None,
    seed: int,
    items: int,
    dim: int,
    temperature: float,
    order: int,
    masked: bool,
    grouped: bool,
):
    z = draw(seed, items, dim)
    present = draw_mask(seed, items) if masked else None
    ids = torch.arange(items) // 2 if grouped else None
    value = uniformity(
        z, kernel=kernel, temperature=temperature, reduction=reduction, order=order, present=present, ids=ids
    )
    rows = reference.unit_rows({"z": z}, None if present is None else {"z": present})["z"]
    expected = reference.uniformity(
        rows,
        kernel=kernel,
        tau=temperature,
        reduction=reduction,
        order=order,
        ids=None if ids is None else ids.tolist(),
    )
    assert value.item() == pytest.approx(0.0 if expected is None else expected.item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("anchor", ["m0", "m1", "all", "centroid"])
@pytest.mark.parametrize("distance", ["euclidean", "geodesic"])
@given(
    seed=SEEDS,
    count=st.integers(2, 6),
    items=st.integers(1, 9),
    dim=st.integers(2, 16),
    masked=st.booleans(),
)
def test_alignment_equals_the_reference(
    anchor: str, distance: str, seed: int, count: int, items: int, dim: int, masked: bool
):
    embeddings = modalities(seed, count, items, dim)
    present = {m: draw_mask(seed + n, items) for n, m in enumerate(embeddings)} if masked else None
    value = alignment(embeddings, anchor=anchor, distance=distance, present=present)
    rows = reference.unit_rows(embeddings, present)
    expected = reference.alignment(rows, anchor=anchor, distance=distance, stop_gradient="none")
    assert value.item() == pytest.approx(0.0 if expected is None else expected.item(), rel=1e-9, abs=1e-9)


@given(seed=SEEDS, count=st.integers(1, 6), items=st.integers(1, 9), dim=st.integers(2, 16), masked=st.booleans())
def test_centroids_and_volumes_equal_the_reference(seed: int, count: int, items: int, dim: int, masked: bool):
    embeddings = modalities(seed, count, items, dim)
    present = {m: draw_mask(seed + n, items) for n, m in enumerate(embeddings)} if masked else None
    rows = reference.unit_rows(embeddings, present)
    empty = torch.zeros(dim, dtype=torch.float64)
    expected_BD = torch.stack([empty if c is None else c for c in reference.centroids(rows)])
    torch.testing.assert_close(centroids(embeddings, present=present), expected_BD)
    if count >= 2:
        volumes_B = torch.stack(reference.gram_volumes(rows))
        # If dim < M, the determinants are 0 up to rounding errors of about 1e-16, and the volumes are their square
        # roots.
        torch.testing.assert_close(gram_volume(embeddings, present=present), volumes_B, rtol=1e-7, atol=3e-8)


@given(seed=SEEDS, count=st.integers(2, 6), items=st.integers(1, 7))
def test_cross_volumes_equal_the_reference(seed: int, count: int, items: int):
    embeddings = modalities(seed, count, items, 8)
    table_BB = cross_volumes(make_batch(embeddings), anchor=1, eps=0.0)
    rows = reference.unit_rows(embeddings)
    table = reference.cross_volumes(rows, anchor="m1", items=range(items))
    torch.testing.assert_close(table_BB, torch.stack([torch.stack(row) for row in table]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_gradient_of_uniformity_equals_the_formula(temperature: float):
    """The gradient is dU/dz_i = -1 / (B tau^2) sum_j (p_ij + p_ji) (z_i - z_j), projected onto the tangent space."""
    z = torch.nn.functional.normalize(draw(1, 7, 5), dim=-1).requires_grad_()
    (gradient,) = torch.autograd.grad(uniformity(z, kernel="gaussian", temperature=temperature), z)
    with torch.no_grad():
        items = len(z)
        formula = torch.zeros_like(z)
        square = torch.tensor([[float(((x - y) ** 2).sum()) for y in z] for x in z], dtype=torch.float64)
        kappa = torch.exp(-square / (2 * temperature**2)).fill_diagonal_(0)
        p = kappa / kappa.sum(1, keepdim=True)
        for i in range(items):
            for j in range(items):
                formula[i] -= (p[i, j] + p[j, i]) * (z[i] - z[j]) / (items * temperature**2)
        formula -= (formula * z).sum(-1, keepdim=True) * z
    torch.testing.assert_close(gradient, formula)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("reduction", ["mean_log", "outer_log"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_uniformity_is_highest_for_equal_rows(kernel: str, reduction: str, dtype: torch.dtype):
    z = draw(2, 1, 6, dtype=dtype).repeat(5, 1).requires_grad_()
    value = uniformity(z, kernel=kernel, temperature=0.3, reduction=reduction)
    assert value.item() == pytest.approx(0, abs=1e-5 if dtype == torch.float32 else 1e-12)
    (gradient,) = torch.autograd.grad(value, z)
    assert torch.isfinite(gradient).all()
    spread = uniformity(draw(3, 5, 6, dtype=dtype), kernel=kernel, temperature=0.3, reduction=reduction)
    assert spread < -0.1


@pytest.mark.parametrize("kernel", KERNELS)
def test_uniformity_of_too_few_rows_is_zero_with_zero_gradient(kernel: str):
    for items, present, ids in (
        (1, None, None),
        (0, None, None),
        (3, torch.tensor([False, True, False]), None),
        (3, None, torch.tensor([5, 5, 5])),
    ):
        for reduction in ("mean_log", "outer_log"):
            z = draw(4, items, 5).requires_grad_()
            value = uniformity(z, kernel=kernel, reduction=reduction, present=present, ids=ids)
            (gradient,) = torch.autograd.grad(value, z)
            assert value == 0
            assert (gradient == 0).all()


def test_gaussian_equals_clip_at_the_squared_temperature():
    z = draw(5, 6, 4)
    torch.testing.assert_close(
        uniformity(z, kernel="gaussian", temperature=math.sqrt(0.07)), uniformity(z, kernel="clip", temperature=0.07)
    )


def test_uniformity_does_not_underflow():
    # At tau = 0.07 the kernel of a pair is exp(-204), which underflows in float32 (smallest number: exp(-103)).
    z = torch.eye(4, dtype=torch.float32)
    assert uniformity(z, kernel="gaussian", temperature=0.07).item() == pytest.approx(-1 / 0.07**2, rel=1e-6)


def test_uniformity_ignores_autocast():
    """Cosines computed in bfloat16 would cause errors in the third digit of U."""
    z = draw(6, 5, 6, dtype=torch.float32)
    expected = uniformity(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(uniformity(z), expected)


def test_alignment_is_two_minus_twice_the_mean_cosine():
    embeddings = modalities(7, 2, 5, 6)
    cosine = torch.nn.functional.cosine_similarity(embeddings["m0"], embeddings["m1"]).mean()
    torch.testing.assert_close(alignment(embeddings, anchor="m0"), 2 - 2 * cosine)


def test_alignment_to_the_centroid_is_the_mean_squared_distance_to_it():
    embeddings = modalities(8, 3, 5, 6)
    z_MBD = make_batch(embeddings).z_MBD
    by_hand = ((z_MBD - centroids(embeddings)) ** 2).sum(-1).mean()
    torch.testing.assert_close(alignment(embeddings, anchor="centroid"), by_hand)


@pytest.mark.parametrize("anchor", ["m0", "centroid"])
def test_stop_gradient_changes_gradients_only(anchor: str):
    embeddings = {m: z.requires_grad_() for m, z in modalities(9, 3, 4, 5).items()}
    free = alignment(embeddings, anchor=anchor)
    still = alignment(embeddings, anchor=anchor, stop_gradient="anchor")
    assert torch.equal(free, still)
    gradient, *_ = torch.autograd.grad(still, list(embeddings.values()), allow_unused=True)
    if anchor == "m0":
        assert (gradient == 0).all()


@given(cosine=st.floats(-1, 1))
def test_arccos_squared(cosine: float):
    value = arccos_squared(torch.tensor(cosine, dtype=torch.float64)).item()
    # Near cosine 1, arccos loses half of the digits; near -1, the cosine is clamped to -1 + 1e-12.
    assert value == pytest.approx(math.acos(cosine) ** 2, rel=1e-7, abs=1e-12 if cosine > 0 else 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_arccos_squared_has_a_finite_derivative(dtype: torch.dtype):
    cosine = torch.tensor([-1, -1 + 1e-6, 0, 1 - 1e-3, 1 - 1e-6, 1, 1 + 1e-6], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(arccos_squared(cosine).sum(), cosine)
    assert torch.isfinite(slope).all()
    assert slope[5] == -2
    torch.testing.assert_close(slope[2], torch.tensor(-math.pi, dtype=dtype))


def test_arccos_squared_is_continuous_where_the_series_ends():
    below, above = (arccos_squared(torch.tensor(1 - u, dtype=torch.float64)) for u in (0.001 + 1e-12, 0.001 - 1e-12))
    assert abs(below - above) < 1e-11


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_equal_the_reference(kernel: str):
    x, y = torch.nn.functional.normalize(draw(10, 2, 5), dim=-1)
    fast = KernelFunction(kernel, 0.3).log((x * y).sum())
    torch.testing.assert_close(fast, reference.log_kernel(x, y, kernel, 0.3))


@given(angle=st.floats(0, math.pi))
def test_volume_of_two_vectors_is_the_sine(angle: float):
    a, b = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    pair = {"a": a[None], "b": b[None]}
    assert gram_volume(pair).item() == pytest.approx(abs(math.sin(angle)), abs=2e-8)


def test_volumes_of_special_tuples():
    axes = torch.eye(4, dtype=torch.float64)
    orthonormal = {f"m{m}": axes[m : m + 1] for m in range(4)}
    assert gram_volume(orthonormal).item() == pytest.approx(1)
    coplanar = {"a": axes[:1], "b": axes[1:2], "c": axes[:1] + axes[1:2]}
    assert gram_volume(coplanar).item() == pytest.approx(0, abs=1e-7)
    z = modalities(11, 3, 5, 6)
    torch.testing.assert_close(gram_volume(z | {"m1": -z["m1"]}), gram_volume(z))
    absent = {"m1": torch.zeros(5, dtype=torch.bool)}
    torch.testing.assert_close(gram_volume(z, present=absent), gram_volume({"m0": z["m0"], "m2": z["m2"]}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_volume_of_equal_vectors_has_a_finite_gradient(dtype: torch.dtype):
    z = draw(12, 4, 6, dtype=dtype)
    for eps in (0.0, 1e-8):
        leaves = {f"m{m}": z.clone().requires_grad_() for m in range(3)}
        gradients = torch.autograd.grad(gram_volume(leaves, eps=eps).sum(), list(leaves.values()))
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert max(gradient.abs().max() for gradient in gradients) < 1e-3


def test_volumes_of_nearly_equal_vectors_are_accurate():
    """For nearly equal vectors, the float32 determinant is only rounding error and would overestimate the volume."""
    base = torch.nn.functional.normalize(draw(13, 200, 8), dim=-1)
    # The volume of three vectors that are 1e-4 apart is about 1e-8.
    exact = {f"m{m}": (base + 1e-4 * draw(20 + m, 200, 8)).float() for m in range(3)}
    truth_B = gram_volume({m: z.double() for m, z in exact.items()})
    torch.testing.assert_close(gram_volume(exact).double(), truth_B, rtol=0, atol=3e-7)


@pytest.mark.parametrize("distance", [1e-3, 1e-2])
def test_volumes_of_true_tuples_are_accurate_in_float32(distance: float):
    # In the table, det(H) - g' adj(H) g has a rounding error of 1e-7, so volumes have an error of 3e-4; the diagonal
    # uses a more accurate formula.
    base = torch.nn.functional.normalize(draw(30, 20, 8), dim=-1)
    near = {f"m{m}": (base + distance * draw(31 + m, 20, 8)).float() for m in range(3)}
    truth_B = gram_volume({m: z.double() for m, z in near.items()})
    own_B = cross_volumes(make_batch(near), anchor=0, eps=0.0).diagonal()
    torch.testing.assert_close(own_B.double(), truth_B, rtol=1e-3, atol=1e-6)


def test_safe_sqrt_has_a_finite_derivative():
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    (slope,) = torch.autograd.grad(safe_sqrt(x).sum(), x)
    assert slope.tolist() == [0.0, 0.25]


def test_the_centroid_of_opposite_vectors_is_zero():
    z = draw(15, 2, 4).requires_grad_()
    middle_BD = centroids({"a": z, "b": -z})
    (gradient,) = torch.autograd.grad(middle_BD.sum(), z)
    assert (middle_BD == 0).all()
    assert torch.isfinite(gradient).all()


def test_centroid_of_one_modality_is_the_row_itself():
    z = draw(16, 3, 4)
    torch.testing.assert_close(centroids({"a": z}), torch.nn.functional.normalize(z, dim=-1))


def test_invalid_options():
    z = draw(17, 3, 4)
    pair = {"a": z, "b": z}
    for options, message in (
        ({"kernel": "rbf"}, "unknown kernel 'rbf'"),
        ({"temperature": 0}, "temperature must be a positive finite number"),
        # Invalid values must raise an error instead of selecting another option.
        ({"reduction": "log_mean"}, "unknown reduction 'log_mean'; expected one of None, 'mean_log', 'outer_log'"),
        ({"order": 0}, "order must be at least 1"),
        ({"order": math.nan}, "order must be at least 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            uniformity(z, **options)
    for options, message in (
        ({"anchor": "c"}, "'c' is not a modality"),
        ({"anchor": "a", "distance": "cosine"}, "unknown distance 'cosine'; expected one of 'euclidean', 'geodesic'"),
        ({"anchor": "a", "stop_gradient": "target"}, "unknown stop_gradient 'target'"),
        ({"anchor": "all", "stop_gradient": "anchor"}, "needs an anchor modality or"),
    ):
        with pytest.raises(ConfigError, match=message):
            alignment(pair, **options)
    with pytest.raises(ShapeError, match="at least 2 modalities"):
        gram_volume({"a": z})
