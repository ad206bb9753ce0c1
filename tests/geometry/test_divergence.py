"""Test the public divergences with golden values and degenerate spaces, and their errors and warnings."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

import reference
from related import draw
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.geometry import (
    DivergenceWarning,
    cauchy_schwarz_divergence,
    effective_neighbors,
    gcsd,
    holder_divergence,
    holder_upper_bound,
    median_bandwidth,
    mmd2,
)

few_rows = pytest.mark.filterwarnings("ignore::unialign.geometry.DivergenceWarning")
ESTIMATORS = ("plugin", "plugin_avg", "pooled", "debiased", "exact")


@few_rows
@pytest.mark.parametrize(
    ("bandwidth", "estimator", "center", "expected"),
    [
        (0.5, "plugin", None, 1.1869392152),
        (0.5, "plugin", "z0", 1.1869392152),
        (0.5, "plugin", "z1", 1.0108984236),
        (0.5, "plugin", "z2", 1.2610092617),
        (0.5, "plugin_avg", None, 1.1473681317),
        (0.5, "pooled", None, 0.4354055315),
        (0.5, "exact", None, 0.4410483340),
        (0.5, "debiased", None, -1.0798152070),
        (1.0, "plugin", "z0", 0.1397389075),
        (1, "plugin_avg", None, 0.1305692382),
        (1.0, "pooled", None, 0.0153507424),
        (1.0, "exact", None, 0.0372950154),
        (1.0, "debiased", None, -0.0984472115),
    ],
)
def test_golden_holder(golden, bandwidth, estimator, center, expected):
    value = holder_divergence(golden, bandwidth=bandwidth, estimator=estimator, reference=center)
    assert float(value) == pytest.approx(expected, abs=1e-9)
    assert float(
        reference.holder(reference.unit_rows(golden), tau=bandwidth, estimator=estimator, reference=center)
    ) == pytest.approx(expected, abs=1e-9)


@few_rows
@pytest.mark.parametrize(
    ("bandwidth", "d_cs", "mmd"), [(0.5, 0.9180673074, 0.1943869911), (1.0, 0.0982193941, 0.0474559487)]
)
def test_golden_pairs(golden, bandwidth, d_cs, mmd):
    x, y = golden["z0"], golden["z1"]
    assert float(cauchy_schwarz_divergence(x, y, bandwidth=bandwidth)) == pytest.approx(d_cs, abs=1e-9)
    assert float(mmd2(x, y, bandwidth=bandwidth)) == pytest.approx(mmd, abs=1e-9)


def test_golden_upper_bound(golden):
    assert float(holder_upper_bound(golden, bandwidth=0.5, anchor="z0")) == pytest.approx(1.4664789990, abs=1e-9)


@few_rows
@given(
    modalities=st.integers(2, 4),
    items=st.integers(1, 6),
    dim=st.integers(2, 5),
    seed=st.integers(0, 9999),
    spread=st.sampled_from([0.05, 0.3, 1.0]),
    bandwidth=st.sampled_from([0.1, 0.3, 1.0]),
    masked=st.booleans(),
)
def test_the_upper_bound_holds_and_equals_its_reference(modalities, items, dim, seed, spread, bandwidth, masked):
    embeddings = draw(modalities, items, dim, seed, spread)
    present = None
    if masked:
        g = torch.Generator().manual_seed(seed)
        present = {f"m{m}": torch.rand(items, generator=g) < 0.7 for m in range(modalities)}
        for mask in present.values():
            mask[0] = True
    value = holder_divergence(embeddings, bandwidth=bandwidth, estimator="plugin", present=present)
    bounds = {
        kind: holder_upper_bound(embeddings, bandwidth=bandwidth, anchor="m0", uniformity=kind, present=present)
        for kind in ("outer_log", "mean_log")
    }
    assert float(value) <= float(bounds["outer_log"]) + 1e-9
    rows = reference.unit_rows(embeddings, present)
    slack = 0.0
    for found in ([x for x in rows[m] if x is not None] for m in rows):
        kernels = torch.exp(-torch.cdist(torch.stack(found), torch.stack(found)).square() / (2 * bandwidth**2))
        log_s = kernels.mean(1).log()
        slack += (modalities - 1) ** 2 * float(log_s.max() - log_s.min()) ** 2 / 8 / modalities
    assert -1e-9 <= float(bounds["outer_log"] - bounds["mean_log"]) <= slack + 1e-9
    for kind, bound in bounds.items():
        wanted = reference.holder_upper_bound(rows, tau=bandwidth, anchor="m0", uniformity=kind)
        torch.testing.assert_close(bound, wanted, rtol=1e-9, atol=1e-9)


@few_rows
def test_the_upper_bound_holds_in_many_draws():
    """The draws include aligned and unrelated tuples, and bandwidths from 0.05 to 5."""
    margins = []
    for seed in range(300):
        spread, bandwidth = (0.0, 0.1, 0.5, 3.0)[seed % 4], (0.05, 0.2, 0.5, 1.0, 5.0)[seed % 5]
        space = draw(2 + seed % 3, 2 + seed % 11, 2 + seed % 7, seed, spread)
        value = holder_divergence(space, bandwidth=bandwidth, estimator="plugin", reference="m1")
        margins.append(float(holder_upper_bound(space, bandwidth=bandwidth, anchor="m1") - value))
    assert min(margins) > -1e-9
    assert min(margins) < 0.1


@few_rows
def test_the_mean_of_logs_is_not_an_upper_bound():
    """The loss with `mean_log` is not a bound, since by Jensen's inequality it is at most that with `outer_log`.

    In this example, half of the anchor's rows are close together and the others are isolated. All positives are 12
    bandwidths away.
    """
    axis = torch.eye(66, dtype=torch.float64)
    near, far = 0.006, 0.12
    pairs = []
    for j in range(1, 33):
        pairs.append([math.cos(angle) * axis[0] + math.sin(angle) * axis[j] for angle in (near, near + far)])
    for j in range(33, 65):
        pairs.append([axis[j], math.cos(far) * axis[j] + math.sin(far) * axis[65]])
    space = dict(zip("ab", torch.stack([torch.stack(pair) for pair in pairs], 1), strict=True))
    value = float(holder_divergence(space, bandwidth=0.01, estimator="plugin"))
    bound, proxy = (
        float(holder_upper_bound(space, bandwidth=0.01, anchor="a", uniformity=kind))
        for kind in ("outer_log", "mean_log")
    )
    assert proxy + 0.3 < value <= bound


@few_rows
def test_gcsd_is_the_divergence_at_its_prescribed_bandwidth():
    embeddings = draw(3, 6, 5, 0)
    present = {"m1": torch.arange(6) != 2}
    rows = reference.unit_rows(embeddings, present)
    for kind in ("none", "modalities", "modalities_minus_one"):
        wanted = reference.gcsd(rows, normalization=kind)
        torch.testing.assert_close(gcsd(embeddings, normalization=kind, present=present), wanted)
    plain = gcsd(embeddings, present=present)
    tau = (0.15 / 2) ** 0.5 * median_bandwidth(embeddings, present=present)
    torch.testing.assert_close(plain, holder_divergence(embeddings, bandwidth=tau, present=present))


@few_rows
def test_values_are_differentiable():
    leaves = {m: z.requires_grad_() for m, z in draw(2, 5, 4, 1).items()}
    x, y = leaves.values()
    values = [holder_divergence(leaves, bandwidth=b, estimator=e) for e in ESTIMATORS for b in (0.5, "median")]
    values += [
        cauchy_schwarz_divergence(x, y, bandwidth="median"),
        mmd2(x, y, bandwidth=0.5),
        mmd2(x, y, bandwidth=0.5, unbiased=True),
        gcsd(leaves),
        holder_upper_bound(leaves, bandwidth=0.5, anchor="m1"),
    ]
    for value in values:
        assert value.dtype == torch.float64
        for gradient in torch.autograd.grad(value, (x, y), retain_graph=True):
            assert torch.isfinite(gradient).all()
            assert gradient.abs().max() > 0


@few_rows
@pytest.mark.parametrize("function", ["cauchy_schwarz", "mmd", "unbiased", "upper_bound"])
def test_public_functions_pass_gradcheck(function):
    def value(x, y):
        if function == "cauchy_schwarz":
            return cauchy_schwarz_divergence(x, y, bandwidth=0.5)
        if function == "upper_bound":
            return holder_upper_bound({"x": x, "y": y}, bandwidth=0.5, anchor="x")
        return mmd2(x, y, bandwidth=0.5, unbiased=function == "unbiased")

    x, y = (z.requires_grad_() for z in draw(2, 4, 3, 2).values())
    assert torch.autograd.gradcheck(value, (x, y))


@few_rows
@pytest.mark.parametrize("bandwidth", [0.01, 0.5, "median"])
def test_degenerate_spaces_have_a_value(bandwidth):
    """Single rows and collapsed, opposite or unpaired sets have finite divergences; equal sets have divergence 0."""
    row = torch.tensor([[1.0, 2.0, 2.0]])
    point, z = row.repeat(5, 1), draw(1, 6, 3, 0)["m0"]
    halves = {"a": torch.arange(6) < 3, "b": torch.arange(6) >= 3}
    cases = {
        "one row": ({"a": row, "b": row}, None, 0.0),
        "one row, two points": ({"a": row, "b": -row}, None, None),
        "one point": ({"a": point, "b": point, "c": point}, None, 0.0),
        "two points": ({"a": point, "b": -point}, None, None),
        "equal sets": ({"a": z, "b": z, "c": z}, None, 0.0),
        "no common row": ({"a": z, "b": torch.where(halves["b"][:, None], z, torch.nan)}, halves, None),
    }
    for name, (space, present, wanted) in cases.items():
        for estimator in ESTIMATORS:
            if estimator == "debiased" and name.startswith("one row"):
                with pytest.raises(ShapeError, match=r"'a' has 1 present rows of 1, .*at least 2"):
                    holder_divergence(space, bandwidth=bandwidth, estimator=estimator)
                continue
            value = float(holder_divergence(space, bandwidth=bandwidth, estimator=estimator, present=present))
            assert math.isfinite(value), (name, estimator)
            if wanted is not None and not (estimator == "debiased" and name == "equal sets"):
                assert value == pytest.approx(wanted, abs=1e-9), (name, estimator)
        if present is None:
            x, y = space["a"], space["b"]
            for value in (cauchy_schwarz_divergence(x, y, bandwidth=bandwidth), mmd2(x, y, bandwidth=bandwidth)):
                assert torch.isfinite(value)
                assert wanted is None or float(value) == pytest.approx(0.0, abs=1e-9)


@few_rows
@pytest.mark.parametrize("bandwidth", [1e-6, 1e200])
def test_extreme_bandwidths_have_a_value(bandwidth):
    space = {m: z.requires_grad_() for m, z in draw(3, 4, 3, 9).items()}
    x, y, _ = space.values()
    values = [holder_divergence(space, bandwidth=bandwidth, estimator=estimator) for estimator in ESTIMATORS]
    values += [f(x, y, bandwidth=bandwidth) for f in (cauchy_schwarz_divergence, mmd2)]
    values += [holder_upper_bound(space, bandwidth=bandwidth, anchor="m0")]
    for value in values:
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, x)[0]).all()
    if bandwidth > 1:
        assert torch.stack(values[:-1]).detach().abs().max() < 1e-9


def test_sets_need_not_be_paired_nor_equally_many():
    x, y = draw(1, 9, 4, 3)["m0"], draw(1, 5, 4, 4)["m0"]
    order = torch.randperm(5, generator=torch.Generator().manual_seed(0))
    for function in (cauchy_schwarz_divergence, mmd2):
        value = function(x, y, bandwidth=1.0)
        torch.testing.assert_close(function(x, y[order], bandwidth=1.0), value)
        torch.testing.assert_close(function(y.numpy(), x.numpy(), bandwidth=1.0), value)
    padded = {"a": x, "b": torch.cat([y, torch.full((4, 4), torch.nan, dtype=y.dtype)])}
    half = holder_divergence(padded, bandwidth=1.0, present={"b": torch.arange(9) < 5})
    torch.testing.assert_close(2 * half, cauchy_schwarz_divergence(x, y, bandwidth=1.0))


def test_unbiased_mmd_is_zero_on_average():
    values = []
    for seed in range(40):
        x, y = draw(1, 30, 8, 2 * seed)["m0"], draw(1, 30, 8, 2 * seed + 1)["m0"]
        values.append([float(mmd2(x, y, bandwidth=1.0, unbiased=kind)) for kind in (True, False)])
    unbiased, biased = np.array(values).T
    assert abs(unbiased.mean()) < 3 * unbiased.std() / 40**0.5
    assert (unbiased < 0).any()
    assert (biased > 0).all()


def test_a_small_bandwidth_warns():
    space = draw(2, 64, 64, 5)
    calls = {
        "holder": lambda b: holder_divergence(space, bandwidth=b),
        "cauchy_schwarz": lambda b: cauchy_schwarz_divergence(space["m0"], space["m1"], bandwidth=b),
        "mmd": lambda b: mmd2(space["m0"], space["m1"], bandwidth=b),
    }
    for call in calls.values():
        with pytest.warns(
            DivergenceWarning, match=r"at bandwidth 0.07 a density has 1.00 effective neighbors"
        ) as caught:
            call(0.07)
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            call(1.0)
            call("median")
    assert effective_neighbors(space, bandwidth=0.07) == pytest.approx(1.0)
    assert effective_neighbors(space, bandwidth=0.3) < effective_neighbors(space, bandwidth=0.3, estimator="debiased")


@given(seed=st.integers(0, 99), bandwidth=st.sampled_from([0.3, 1.0]))
def test_effective_neighbors_equal_the_reference(seed, bandwidth):
    space = draw(3, 6, 4, seed)
    present = {"m2": torch.arange(6) != seed % 6}
    rows = reference.unit_rows(space, present)
    for estimator in ESTIMATORS:
        own = "excluded" if estimator == "debiased" else "included"
        found = effective_neighbors(space, bandwidth=bandwidth, estimator=estimator, present=present)
        assert found == pytest.approx(reference.effective_neighbors(rows, tau=bandwidth, own=own))


def test_median_bandwidth():
    space = draw(2, 20, 6, 6)
    rows = torch.nn.functional.normalize(torch.cat(list(space.values())))
    assert median_bandwidth(space) == pytest.approx(float(np.median(torch.pdist(rows).numpy())))
    one = {"m0": space["m0"]}
    assert median_bandwidth(one) == pytest.approx(float(np.median(torch.pdist(rows[:20]).numpy())))
    assert median_bandwidth(space, present={"m1": torch.zeros(20, dtype=torch.bool)}) == median_bandwidth(one)
    with pytest.raises(ShapeError, match="two present rows"):
        median_bandwidth({"m0": space["m0"][:1]})


@few_rows
def test_half_precision_is_measured_in_float64():
    space = draw(3, 12, 8, 7)
    exact = holder_divergence(space, bandwidth=0.5)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
        value = holder_divergence({m: z.to(dtype) for m, z in space.items()}, bandwidth=0.5)
        assert value.dtype == torch.float64
        assert float(value) == pytest.approx(float(exact), abs=tolerance)


def test_exact_beyond_max_bytes_raises():
    space = draw(3, 10, 4, 8)
    # Each of the 10^3 tuples takes three numbers; a gradient needs those of all four integrals.
    with pytest.raises(ConfigError, match="needs about 24,000 bytes"):
        holder_divergence(space, bandwidth=1.0, estimator="exact", max_bytes=23_999)
    holder_divergence(space, bandwidth=1.0, estimator="exact", max_bytes=24_000)
    leaves = {m: z.requires_grad_() for m, z in space.items()}
    with pytest.raises(ConfigError, match="needs about 56,000 bytes"):
        holder_divergence(leaves, bandwidth=1.0, estimator="exact", max_bytes=50_000)
    with pytest.raises(ConfigError, match="all pairs for the gradient and needs about 7,200 bytes"):
        gcsd(leaves, max_bytes=7_000)
    with pytest.raises(ConfigError, match="24,000,000,000,000,000"):
        holder_divergence(draw(5, 1000, 4, 8), bandwidth=1.0, estimator="exact")


def test_errors():
    for options, error, text in [
        ({"estimator": "plug-in"}, ConfigError, "'plug-in'"),
        ({"bandwidth": 0.0}, ConfigError, "bandwidth must be a positive"),
        ({"bandwidth": math.nan}, ConfigError, "bandwidth"),
        ({"bandwidth": "mean"}, ConfigError, "'median', got 'mean'"),
        ({"bandwidth": {"m0": 0.5, "m1": 1.0}}, ConfigError, "one number for all modalities"),
        ({"estimator": "plugin", "reference": "m7"}, ConfigError, "'m7'; expected one of 'm0', 'm1'"),
        ({"reference": "m0"}, ConfigError, "'plugin_avg' has no reference"),
        ({"max_bytes": 0}, ConfigError, "max_bytes"),
        ({"embeddings": {"m0": torch.ones(2, 2)}}, ShapeError, "at least 2 modalities"),
        ({"embeddings": {"m0": torch.ones(0, 2), "m1": torch.ones(0, 2)}}, ShapeError, "'m0' has 0 present rows"),
        ({"present": {"m1": torch.zeros(3, dtype=torch.bool)}}, ShapeError, "'m1' has 0 present rows of 3.*omit"),
        ({"embeddings": {"m0": torch.ones(2, 2), "m1": torch.zeros(2, 2)}}, NonFiniteError, "'m1' row 0"),
    ]:
        embeddings = options.pop("embeddings", draw(2, 3, 4, 0))
        with pytest.raises(error, match=text):
            holder_divergence(embeddings, **{"bandwidth": 1.0, **options})


def test_errors_of_other_functions():
    x = torch.eye(3)
    with pytest.raises(ShapeError, match="'y' has one row"):
        mmd2(x, x[:1], bandwidth=1.0, unbiased=True)
    with pytest.raises(ConfigError, match="unbiased"):
        mmd2(x, x, bandwidth=1.0, unbiased="yes")
    with pytest.raises(ShapeError, match="'x' has dim 3, but 'y' has dim 2"):
        cauchy_schwarz_divergence(x, torch.eye(2), bandwidth=1.0)
    with pytest.raises(NonFiniteError, match="'y' row 2 holds nan"):
        cauchy_schwarz_divergence(x, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, math.nan, 0]]), bandwidth=1.0)
    with pytest.raises(ConfigError, match="normalization 'M'"):
        gcsd({"a": x, "b": x}, normalization="M")
    with pytest.raises(ConfigError, match="'text'"):
        holder_upper_bound({"a": x, "b": x}, bandwidth=1.0, anchor="text")
    apart = {"a": torch.tensor([True, False, False]), "b": torch.tensor([False, True, True])}
    with pytest.raises(ShapeError, match="complete"):
        holder_upper_bound({"a": x, "b": x}, bandwidth=1.0, anchor="a", present=apart)
    with pytest.raises(ConfigError, match="uniformity"):
        holder_upper_bound({"a": x, "b": x}, bandwidth=1.0, anchor="a", uniformity="inner")
