"""Compare the conflict of forces with golden values, float64 loops, autograd and the propositions of the paper."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import unialign.geometry._forces as module
from unialign.batch import make_batch
from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.geometry import conflict, conflict_over_anchors
from unialign.geometry._bounds import expected_zeta, residual_correlation, zeta_lower_bound
from unialign.ops import _tiles

PER_ITEM = ("zeta", "zeta_neg", "zeta_neg_renormalized", "zeta_tan", "zeta_neg_tan", "net_ratio", "chi")
ONES = torch.ones(3, 3, dtype=torch.float64)


def golden():
    m, i, k = (torch.arange(1, n + 1, dtype=torch.float64) for n in (3, 4, 5))
    m, i, k = m[:, None, None], i[None, :, None], k[None, None, :]
    x = torch.sin(i * k) + 0.5 * torch.sin(3 * m + 2 * i + 5 * k * m)
    return dict(zip(("z0", "z1", "z2"), x, strict=True))


def random_space(modalities, items, dim, seed, shared=1.0):
    g = torch.Generator().manual_seed(seed)
    common = shared * torch.randn(items, dim, generator=g, dtype=torch.float64)
    return {f"m{m}": common + torch.randn(items, dim, generator=g, dtype=torch.float64) for m in range(modalities)}


def loops(embeddings, anchor, tau, direction, present, weights=None):
    z = {name: torch.nn.functional.normalize(x.double()).numpy() for name, x in embeddings.items()}
    has = {name: present.get(name, torch.ones(len(x), dtype=torch.bool)).numpy() for name, x in z.items()}
    items, dim = z[anchor].shape
    weights = weights or {}
    out = {name: np.full(items, np.nan) for name in PER_ITEM}
    c = {n: np.full(items, np.nan) for n in z if n != anchor}
    residuals = [{} for _ in range(items)]

    def softmax(query, keys, mask):
        e = [math.exp(float(query @ key) / tau) if there else 0.0 for key, there in zip(keys, mask, strict=True)]
        return [v / sum(e) for v in e]

    def cos(u, v):
        u_norm, v_norm = np.linalg.norm(u), np.linalg.norm(v)
        return float(u @ v) / (u_norm * v_norm) if min(u_norm, v_norm) > 1e-12 else np.nan

    for i in range(items):
        pull, push, neg, renormalized, total = np.zeros(dim), {}, np.zeros(dim), np.zeros(dim), 0.0
        za = z[anchor][i]
        for n in c:
            if not (has[anchor][i] and has[n][i]):
                continue
            there = weights.get((anchor, n), 1.0) / tau
            back = weights.get((n, anchor), 1.0) / tau if direction == "symmetric" else 0.0
            pull, total = pull + (there + back) * z[n][i], total + there + back
            p = softmax(za, z[n], has[n])
            push[n] = there * sum(p[k] * z[n][k] for k in range(items))
            neg = neg + there * sum(p[k] * z[n][k] for k in range(items) if k != i)
            if any(has[n][k] for k in range(items) if k != i):
                p = softmax(za, z[n], has[n] & (np.arange(items) != i))
                renormalized = renormalized + there * sum(p[k] * z[n][k] for k in range(items))
            for j in range(items if back else 0):
                if has[n][j] and has[anchor][j]:
                    q = softmax(z[n][j], z[anchor], has[anchor])[i]
                    push[n] = push[n] + back * q * z[n][j]
                    if j != i:
                        neg = neg + back * q * z[n][j]
                        q = softmax(z[n][j], z[anchor], has[anchor] & (np.arange(items) != j))[i]
                        renormalized = renormalized + back * q * z[n][j]
        if not push:
            continue
        phi = sum(push.values())
        tan = lambda x, za=za: x - (x @ za) * za  # noqa: E731
        out["zeta"][i], out["zeta_neg"][i] = cos(pull, phi), cos(pull, neg)
        out["zeta_neg_renormalized"][i] = cos(pull, renormalized)
        out["zeta_tan"][i], out["zeta_neg_tan"][i] = cos(tan(pull), tan(phi)), cos(tan(pull), tan(neg))
        out["net_ratio"][i] = np.linalg.norm(pull - phi) / (np.linalg.norm(pull) + np.linalg.norm(phi))
        out["chi"][i] = 1 - np.linalg.norm(pull) / total
        unit = pull / np.linalg.norm(pull)
        for n, value in push.items():
            c[n][i] = value @ unit
            residuals[i][n] = value - c[n][i] * unit
    cross = [e[n] @ e[m] for e in residuals for n in e for m in e if n != m]
    squares = [v @ v for e in residuals for v in e.values()]
    rho = np.mean(cross) / np.mean(squares) if cross else np.nan
    return out, c, rho, squares


@pytest.mark.parametrize(
    ("tau", "values"),
    [
        (0.5, (0.9745909950, -0.125133, 0.897341, 0.091627, 0.211269, 0.0588623164)),
        (0.07, (0.9999645875, 0.205337, 0.999858, 0.264694, 0.002315, 0.0588623164)),
    ],
)
def test_golden_values(tau, values):
    means = conflict(golden(), anchor="z0", temperature=tau).means()
    found = [means[name] for name in ("zeta", "zeta_neg", "zeta_tan", "zeta_neg_tan", "net_ratio", "chi")]
    assert found == pytest.approx(values, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    modalities=st.integers(2, 4),
    items=st.integers(1, 6),
    seed=st.integers(0, 99),
    tau=st.sampled_from([0.07, 0.5, 2.0]),
    direction=st.sampled_from(["forward", "symmetric"]),
    missing=st.booleans(),
    weighted=st.booleans(),
)
def test_equals_float64_loops(modalities, items, seed, tau, direction, missing, weighted):
    space = random_space(modalities, items, 5, seed)
    present = {}
    if missing:
        g = torch.Generator().manual_seed(seed)
        present = {name: torch.rand(items, generator=g) < 0.6 for name in space}
        for name, x in space.items():
            x[~present[name]] = torch.nan
    clean = {name: torch.nan_to_num(x, nan=1.0) for name, x in space.items()}
    weights = None
    if weighted:
        weights = {("m0", f"m{m}"): 0.5 + m for m in range(1, modalities)} | {("m1", "m0"): 0.2}
    result = conflict(space, anchor="m0", temperature=tau, direction=direction, present=present, weights=weights)
    fields, c, rho, squares = loops(clean, "m0", tau, direction, present, weights)
    for name in PER_ITEM:
        np.testing.assert_allclose(getattr(result, name), fields[name], atol=1e-9, err_msg=name)
    for name, values in c.items():
        np.testing.assert_allclose(result.c[name], values, atol=1e-9)
    np.testing.assert_array_equal(result.defined, ~np.isnan(fields["chi"]))
    known = np.concatenate(list(c.values()))
    known = known[~np.isnan(known)]
    # With a single item, the residuals and their correlation are only rounding errors.
    if items > 1 and len(squares) and max(squares) > 1e-12:
        np.testing.assert_allclose(result.residual_correlation, rho, atol=1e-9)
    if len(known):
        assert float(result.frac_c_nonpos) == pytest.approx(np.mean(known <= 0))
        assert float(result.chi.nanmean()) >= float(result.chi_bound) - 1e-12
    if len(known) and known.min() > 0 and not missing:
        wanted = (1 + np.mean(squares) / ((modalities - 1) * known.min() ** 2)) ** -0.5
        assert float(result.zeta_bound) == pytest.approx(wanted)
        others = modalities - 1
        correlated = (1 + (others - 1) * np.nan_to_num(float(result.residual_correlation))) / others
        wanted = (1 + np.mean(squares) / known.mean() ** 2 * max(0.0, correlated)) ** -0.5
        assert float(result.zeta_expected) == pytest.approx(wanted)
    else:
        assert missing or math.isnan(float(result.zeta_bound))


@pytest.mark.parametrize("direction", ["forward", "symmetric"])
@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_forces_are_the_gradient_of_infonce(direction, tau):
    batch = make_batch(random_space(3, 7, 6, 0))
    f = module.forces(batch, 0, [1, 2], temperature=tau, direction=direction, weights_MM=ONES)
    anchor = batch.z_MBD[0].clone().requires_grad_()
    target = torch.arange(7)
    loss = 0.0
    for n in (1, 2):
        logits = anchor @ batch.z_MBD[n].T / tau
        loss = loss + torch.nn.functional.cross_entropy(logits, target, reduction="sum")
        if direction == "symmetric":
            loss = loss + torch.nn.functional.cross_entropy(logits.T, target, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, anchor)
    torch.testing.assert_close(f.push_KBD.sum(0) - f.pull_KBD.sum(0), gradient, rtol=0, atol=1e-12 / tau)


def test_tile_size_does_not_matter(monkeypatch):
    space = random_space(3, 23, 6, 1)
    present = {"m1": torch.arange(23) % 3 > 0}
    whole = conflict(space, anchor="m0", direction="symmetric", present=present)
    monkeypatch.setattr(_tiles, "TILE", 23 * 5)
    tiled = conflict(space, anchor="m0", direction="symmetric", present=present)
    for name in PER_ITEM:
        torch.testing.assert_close(getattr(tiled, name), getattr(whole, name), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_order_of_items_and_modalities_does_not_matter():
    space = random_space(4, 9, 6, 2)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    whole = conflict(space, anchor="m2")
    moved = conflict({name: 3 * x[order] for name, x in reversed(space.items())}, anchor="m2")
    for name in PER_ITEM:
        torch.testing.assert_close(getattr(moved, name), getattr(whole, name)[order], rtol=1e-9, atol=1e-12)
    assert moved.means() == pytest.approx(whole.means(), nan_ok=True)


def test_chi_depends_on_the_positives_only():
    space = random_space(3, 5, 6, 3)
    whole = conflict(space, anchor="m0")
    other = conflict({**space, "m0": random_space(1, 5, 6, 9)["m0"]}, anchor="m0", temperature=1.0)
    torch.testing.assert_close(whole.chi, other.chi)
    assert conflict({k: space[k] for k in ("m0", "m1")}, anchor="m0").chi.abs().max() < 1e-15


def test_chi_bound_is_tight_for_constant_resultants():
    """The positives of every item have equal mutual cosines. With two modalities, the bound is exactly 0."""
    legs = torch.tensor([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2], [0.2, 0.2, 1.0]], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(8, 3, 3, generator=g, dtype=torch.float64)).Q
    space = {f"m{n}": turns @ leg for n, leg in enumerate(legs)}
    space["a"] = torch.randn(8, 3, generator=g, dtype=torch.float64)
    result = conflict(space, anchor="a")
    mu = 0.44 / 1.08
    assert float(result.chi_bound) == pytest.approx(1 - math.sqrt((1 + 2 * mu) / 3))
    assert float(result.chi.mean()) == pytest.approx(float(result.chi_bound))
    assert float(conflict({k: space[k] for k in ("a", "m0")}, anchor="a").chi_bound) == 0.0


def test_zeta_approaches_one_under_the_assumption_of_proposition_2_2():
    """With hard negatives near every positive, c is positive and zeta increases with the number of modalities."""
    zetas = []
    for modalities in (2, 4, 10):
        result = conflict(random_space(modalities, 200, 32, 0, shared=1.5), anchor="m0", temperature=1.0)
        zetas.append(float(result.zeta.mean()))
    assert zetas == sorted(zetas)


def test_weighted_chi_bound_is_tight_for_constant_resultants():
    """For weights w that sum to 1, the bound is 1 - sqrt(sum_n w_n^2 + sum_{n != n'} w_n w_n' mu_nn')."""
    legs = torch.tensor([[1.0, 0.1, 0.3], [0.2, 1.0, 0.2], [0.7, 0.2, 1.0]], dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    turns = torch.linalg.qr(torch.randn(8, 3, 3, generator=g, dtype=torch.float64)).Q
    space = {f"m{n}": turns @ leg for n, leg in enumerate(legs)}
    space["a"] = torch.randn(8, 3, generator=g, dtype=torch.float64)
    there, back = {"m0": 3.0, "m1": 0.5}, {"m1": 2.0}
    weights = {("a", n): w for n, w in there.items()} | {(n, "a"): w for n, w in back.items()}
    unit = torch.nn.functional.normalize(legs)
    mu = unit @ unit.T
    for direction, w in (("forward", [3.0, 0.5, 1.0]), ("symmetric", [4.0, 2.5, 2.0])):
        result = conflict(space, anchor="a", direction=direction, weights=weights)
        share = torch.tensor(w, dtype=torch.float64) / sum(w)
        wanted = 1 - float((share[:, None] * share * mu).sum().sqrt())
        assert float(result.chi_bound) == pytest.approx(wanted)
        assert float(result.chi.mean()) == pytest.approx(wanted)


def test_common_factors_of_weights_do_not_matter():
    space = random_space(3, 9, 6, 2)
    pairs = [(m, n) for m in space for n in space if m != n]
    for direction in ("forward", "symmetric"):
        plain = conflict(space, anchor="m1", direction=direction)
        for weight in (1.0, 7.0):
            same = conflict(space, anchor="m1", direction=direction, weights=dict.fromkeys(pairs, weight))
            for name in PER_ITEM:
                torch.testing.assert_close(getattr(same, name), getattr(plain, name))
            assert float(same.chi_bound) == pytest.approx(float(plain.chi_bound))
            assert float(same.zeta_bound) == pytest.approx(float(plain.zeta_bound), nan_ok=True)


def test_renormalized_negatives_include_aligned_modalities():
    """Without renormalization, the negatives of an aligned modality would vanish next to those of an unaligned one."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, 16, generator=g, dtype=torch.float64) for _ in range(2))
    batch = make_batch({"a": x, "b": x, "c": y})
    aligned = module.forces(batch, 0, [1, 2], temperature=0.05, direction="forward", weights_MM=ONES)
    assert aligned.push_neg_KBD[0].norm() < 1e-3 * aligned.push_neg_KBD[1].norm()
    assert aligned.push_renorm_KBD[0].norm() > 0.3 * aligned.push_renorm_KBD[1].norm()
    tiny = conflict({"a": x, "b": x + 1e-3 * y}, anchor="a", temperature=1e-3)
    assert (~tiny.zeta_neg_renormalized.isnan()).all()


def simulated_zeta(modalities, common, seed, items=4000, dim=24):
    g = torch.Generator().manual_seed(seed)
    c = 0.5 + torch.rand(modalities, items, generator=g, dtype=torch.float64)
    own = torch.randn(modalities, items, dim, generator=g, dtype=torch.float64)
    shared = torch.randn(items, dim, generator=g, dtype=torch.float64)
    residual = (common**0.5 * shared + (1 - common) ** 0.5 * own) / dim**0.5
    total, rest = c.sum(0), residual.sum(0).norm(dim=-1)
    return float((total / (total.square() + rest.square()).sqrt()).mean()), c, residual


def test_proposition_2_2_bounds_zeta_when_residuals_are_independent():
    for modalities in (1, 2, 5, 20, 80):
        zeta, c, residual = simulated_zeta(modalities, 0.0, modalities)
        known = torch.ones_like(c, dtype=torch.bool)
        bound = float(zeta_lower_bound(c, residual, known))
        assert bound == pytest.approx(
            (1 + float(residual.square().sum(-1).mean()) / (modalities * 0.25)) ** -0.5, rel=0.01
        )
        assert bound <= zeta
        assert 1 - zeta <= 1 / (2 * modalities * 0.25)
        assert float(expected_zeta(c, residual, known)) == pytest.approx(zeta, abs=0.02)
    assert zeta > 0.99


def test_correlated_residuals_limit_zeta_as_predicted():
    """With residual correlation rho, the limit of zeta is (1 + rho C / c^2)^(-1/2), here 0.877, instead of 1."""
    rho = 0.3
    zetas, bounds = [], []
    for modalities in (2, 8, 64):
        zeta, c, residual = simulated_zeta(modalities, rho, modalities)
        known = torch.ones_like(c, dtype=torch.bool)
        assert float(residual_correlation(residual, known)) == pytest.approx(rho, abs=0.02)
        assert float(expected_zeta(c, residual, known)) == pytest.approx(zeta, abs=0.02)
        zetas.append(zeta)
        bounds.append(float(zeta_lower_bound(c, residual, known)))
    limit = (1 + rho / 1.0) ** -0.5
    assert zetas[-1] == pytest.approx(limit, abs=0.015)
    assert bounds[0] < zetas[0]
    assert bounds[-1] > zetas[-1] + 0.05


def test_over_anchors():
    space = random_space(3, 7, 5, 6)
    present = {"m2": torch.arange(7) < 4}
    weights = {("m0", "m1"): 2.0}
    whole = conflict_over_anchors(space, temperature=0.2, direction="symmetric", present=present, weights=weights)
    assert list(whole.by_anchor) == list(space)
    results = [
        conflict(space, anchor=a, temperature=0.2, direction="symmetric", present=present, weights=weights)
        for a in space
    ]
    means = whole.means()
    for name in (*PER_ITEM, "chi_bound", "zeta_expected"):
        assert means[name] == pytest.approx(np.mean([r.means()[name] for r in results]))
    assert means["c/m1"] == pytest.approx(np.mean([results[0].means()["c/m1"], results[2].means()["c/m1"]]))
    for wrong in ({}, [1], {"a": torch.ones(2, 2)}):
        with pytest.raises(ShapeError):
            conflict_over_anchors(wrong)


def test_missing_items_are_nan_and_their_values_are_ignored():
    space = random_space(3, 6, 5, 4)
    present = {"m0": torch.tensor([1, 1, 1, 1, 1, 0]).bool(), "m1": torch.tensor([0, 0, 1, 1, 1, 1]).bool(),
               "m2": torch.tensor([0, 1, 1, 1, 1, 1]).bool()}  # fmt: skip
    spoilt = {name: torch.where(present[name][:, None], x, torch.nan) for name, x in space.items()}
    result, clean = (conflict(s, anchor="m0", present=present) for s in (spoilt, space))
    assert result.defined.tolist() == [False, True, True, True, True, False]
    for name in PER_ITEM:
        values = getattr(result, name)
        assert (~values.isnan()).tolist() == result.defined.tolist()
        torch.testing.assert_close(values, getattr(clean, name), equal_nan=True)
    assert result.c["m1"].isnan().tolist() == [True, True, False, False, False, True]


def test_degenerate_spaces():
    x = torch.tensor([[1.0, 2.0, 2.0]]).repeat(4, 1)
    collapsed = conflict({"a": x, "b": x, "c": x}, anchor="a")
    assert collapsed.zeta.tolist() == pytest.approx([1.0] * 4)
    assert collapsed.zeta_tan.isnan().all()  # The direction is undefined without a tangential component.
    assert collapsed.defined.all()
    single = conflict({"a": x[:1], "b": x[:1]}, anchor="a")
    assert single.zeta_neg.isnan().all()  # There are no negatives.
    assert math.isnan(single.means()["residual_correlation"])
    eye = torch.eye(3)
    opposed = conflict({"a": eye, "b": eye.roll(1, 0), "c": -eye.roll(1, 0)}, anchor="a")
    assert opposed.chi.tolist() == pytest.approx([1.0] * 3)
    assert opposed.zeta.isnan().all()
    empty = conflict({"a": x, "b": x}, anchor="a", present={"b": torch.zeros(4, dtype=torch.bool)})
    assert not empty.defined.any()
    assert math.isnan(empty.means()["chi_bound"])


def test_precision_of_inputs():
    space = random_space(3, 12, 8, 5)
    exact = conflict(space, anchor="m0")
    for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 2e-2)):
        half = conflict({name: x.to(dtype).requires_grad_() for name, x in space.items()}, anchor="m0")
        assert half.zeta.dtype == torch.float64
        assert (half.zeta - exact.zeta).abs().max() < bound


def test_errors():
    for options, error, text in [
        ({"anchor": "audio"}, ConfigError, "'audio'"),
        ({"anchor": "all"}, ConfigError, "needs an anchor modality"),
        ({"anchor": "m0", "temperature": 0.0}, ConfigError, "temperature"),
        ({"anchor": "m0", "temperature": math.nan}, ConfigError, "temperature"),
        ({"anchor": "m0", "direction": "backward"}, ConfigError, "'backward'"),
        ({"anchor": "m0", "weights": {("m0", "m9"): 1.0}}, ConfigError, "'m9'"),
        ({"anchor": "m0", "weights": {("m0", "m0"): 1.0}}, ConfigError, "two of"),
        ({"anchor": "m0", "weights": {"m1": 1.0}}, ConfigError, "query, key"),
        ({"anchor": "m0", "weights": {("m0", "m1"): 0.0}}, ConfigError, "a positive finite number, got 0.0"),
        ({"anchor": "m0", "weights": 2.0}, ConfigError, "mapping"),
        ({"anchor": "m0", "embeddings": {"m0": torch.ones(2, 2)}}, ShapeError, "at least 2"),
        ({"anchor": "m0", "embeddings": {"m0": torch.ones(2, 2), "b": torch.ones(2, 2).long()}}, ShapeError, "'b'"),
        ({"anchor": "m0", "embeddings": {"m0": torch.ones(2, 2), "b": torch.zeros(2, 2)}}, NonFiniteError, "'b' row 0"),
    ]:
        embeddings = options.pop("embeddings", random_space(2, 3, 4, 0))
        with pytest.raises(error, match=text):
            conflict(embeddings, **options)
