"""Test mixtures of embeddings against loops and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.generation import frechet_mean, interpolate, linear_combination, mean, slerp

K, B, D = 3, 5, 4


def unit(*shape: int, seed: int = 0) -> Tensor:
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(z, dim=-1)


def rows(seed: int = 0) -> dict[str, Tensor]:
    center = unit(B, D, seed=seed)
    return {name: torch.nn.functional.normalize(center + 0.6 * unit(B, D, seed=seed + 1 + k), dim=1)
            for k, name in enumerate(("text", "audio", "video"))}  # fmt: skip


def rotation() -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    return q


def test_mean_is_the_loop() -> None:
    z, weights = rows(), {"text": 1.0, "audio": 2.0, "video": 0.5}
    for normalize in (True, False):
        mixed = mean(z, weights=weights, normalize=normalize)
        for i in range(B):
            slow = sum(weights[name] * z[name][i] for name in z) / 3.5
            slow = slow / slow.norm() if normalize else slow
            torch.testing.assert_close(mixed[i], slow)


def test_the_kept_mean_of_two_has_the_length_of_their_agreement() -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    length = mean([a, b], normalize=False).norm(dim=1)
    torch.testing.assert_close(length, ((1 + (a * b).sum(1)) / 2).sqrt())


def test_rows_are_made_unit_first() -> None:
    z = rows()
    torch.testing.assert_close(mean([3 * z["text"], z["audio"]]), mean([z["text"], z["audio"]]))


def test_absent_rows_are_excluded_from_the_mean_for_any_content() -> None:
    z = rows()
    present = {"audio": torch.tensor([True, False, True, False, True])}
    damaged = z | {"audio": torch.where(present["audio"][:, None], z["audio"], torch.nan).requires_grad_()}
    mixed = mean(damaged, present=present)
    both = mean({name: z[name] for name in ("text", "video")})
    torch.testing.assert_close(mixed[[1, 3]], both[[1, 3]])
    torch.testing.assert_close(mixed[[0, 2, 4]], mean(z)[[0, 2, 4]])
    mixed.sum().backward()
    assert damaged["audio"].grad is not None
    assert not damaged["audio"].grad[[1, 3]].any()
    with pytest.raises(NonFiniteError, match="row 1 of the mixture has no weight"):
        mean({"audio": z["audio"]}, present=present)


def test_only_ratios_of_weights_matter_and_weight_zero_excludes() -> None:
    z = rows()
    torch.testing.assert_close(mean(z, weights=[2, 4, 6]), mean(z, weights=[1, 2, 3]))
    torch.testing.assert_close(mean(z, weights=[1, 0, 0]), z["text"])


def test_one_row_is_mixed_with_all() -> None:
    z = rows()
    torch.testing.assert_close(mean([z["text"][:1], z["audio"]])[3], mean([z["text"][:1], z["audio"][3:4]])[0])


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_divides_the_angle(t: float) -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    middle = slerp(a, b, t)
    angle = torch.arccos((a * b).sum(1))
    torch.testing.assert_close(torch.arccos((a * middle).sum(1).clamp(-1, 1)), t * angle, atol=1e-7, rtol=0)
    torch.testing.assert_close(torch.arccos((b * middle).sum(1).clamp(-1, 1)), (1 - t) * angle, atol=1e-7, rtol=0)
    torch.testing.assert_close(middle.norm(dim=1), torch.ones(B, dtype=torch.float64))


def test_slerp_at_one_half_is_the_renormalized_mean() -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    torch.testing.assert_close(slerp(a, b, 0.5), mean([a, b]))


def test_the_ends_are_met_to_the_last_bit() -> None:
    for dtype in (torch.float32, torch.float64):
        a, b, c = (unit(B, D, seed=seed).to(dtype) for seed in range(3))
        start, stop = slerp(a, b, 0.0), slerp(a, b, 1.0)
        torch.testing.assert_close(start, a)
        assert torch.equal(start, slerp(c, a, [0.5, 1.0])[1])
        assert torch.equal(stop, slerp(b, c, 0))
        z = interpolate(torch.stack([a, c, b]), steps=6)
        assert torch.equal(z[0], start)
        assert torch.equal(z[-1], stop)
    assert torch.equal(slerp(torch.eye(D)[:1], torch.eye(D)[1:2], 1.0), torch.eye(D)[1:2])


def test_times_are_any_kind_of_number() -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    for t in (torch.tensor(0.25), np.float32(0.25), np.array(0.25)):
        assert torch.equal(slerp(a, b, t), slerp(a, b, 0.25))
    assert slerp(a, b, [0.25]).shape == (1, B, D)
    torch.testing.assert_close(slerp(a, slerp(a, b, 0.5), 2.0), b)


def test_slerp_of_several_times() -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    path = slerp(a, b, torch.tensor([0.0, 0.3, 1.0]))
    assert path.shape == (3, B, D)
    torch.testing.assert_close(path[0], a)
    torch.testing.assert_close(path[1], slerp(a, b, 0.3))
    torch.testing.assert_close(path[2], b)


def test_nearly_equal_rows_have_a_finite_gradient() -> None:
    a = unit(1, D).requires_grad_()
    b = (a.detach() + 1e-9 * unit(1, D, seed=1)).requires_grad_()
    for second in (a.detach().clone().requires_grad_(), b):
        middle = slerp(a, second, 0.3)
        torch.testing.assert_close(middle, a)
        middle.sum().backward()
        assert second.grad is not None
        assert bool(torch.isfinite(second.grad).all())


def test_the_arc_joins_the_chord_without_a_step() -> None:
    a = unit(1, D)
    side = torch.nn.functional.normalize(unit(1, D, seed=1) - (unit(1, D, seed=1) * a).sum() * a, dim=1)
    for angle in (0.99e-4, 1.01e-4):
        b = math.cos(angle) * a + math.sin(angle) * side
        exact = math.cos(0.3 * angle) * a + math.sin(0.3 * angle) * side
        torch.testing.assert_close(slerp(a, b, 0.3), exact, atol=1e-12, rtol=0)


def test_opposite_rows_raise() -> None:
    a = unit(B, D)
    b = unit(B, D, seed=1)
    b[2] = -a[2]
    with pytest.raises(NonFiniteError, match="row 2 of the mixture is opposite"):
        slerp(a, b, 0.5)
    for normalize in (True, False):
        with pytest.raises(NonFiniteError, match="row 2 of the mixture cancels"):
            mean([a, b], normalize=normalize)
    with pytest.raises(NonFiniteError, match="row 2 of the mixture cancels"):
        frechet_mean([a, b])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearly_opposite_rows_have_an_arc(dtype: torch.dtype) -> None:
    b = torch.tensor([[math.cos(math.pi - 1e-3), math.sin(math.pi - 1e-3)]], dtype=torch.float64)
    t = torch.linspace(0, 1, 7, dtype=torch.float64)
    path = slerp(torch.tensor([[1.0, 0.0]], dtype=dtype), b.to(dtype), t)
    angles = t * (math.pi - 1e-3)
    exact = torch.stack([torch.cos(angles), torch.sin(angles)], 1)[:, None].to(dtype)
    # Rounding the second row rotates the arc by eps / 1e-3, where 1e-3 is the distance of that row from the opposite
    # point.
    torch.testing.assert_close(path, exact, atol=2 * torch.finfo(dtype).eps / 1e-3, rtol=0)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 0.8])
def test_the_barycenter_of_two_is_slerp(weight: float) -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    torch.testing.assert_close(frechet_mean([a, b], weights=[1 - weight, weight]), slerp(a, b, weight))


def test_the_barycenter_has_the_least_squared_angles() -> None:
    z, weights = rows(), [0.2, 0.5, 0.3]
    best = frechet_mean(z, weights=weights)

    def cost(at: Tensor) -> Tensor:
        return sum(w * torch.arccos((at * x).sum(1)).square() for w, x in zip(weights, z.values(), strict=True))  # type: ignore[return-value]

    for seed in range(6):
        near = torch.nn.functional.normalize(best + 1e-3 * unit(B, D, seed=seed), dim=1)
        assert bool((cost(near) > cost(best)).all())
    pull = torch.zeros(B, D, dtype=torch.float64)
    for w, x in zip(weights, z.values(), strict=True):
        cos = (best * x).sum(1, keepdim=True)
        side = x - cos * best
        pull += w * torch.arccos(cos) * side / side.norm(dim=1, keepdim=True)
    torch.testing.assert_close(pull, torch.zeros_like(pull), atol=1e-9, rtol=0)


def test_the_barycenter_on_a_circle_is_the_mean_angle() -> None:
    angles, weights = torch.tensor([0.1, 0.4, 2.5], dtype=torch.float64), [0.5, 0.2, 0.3]
    z = [torch.stack([angle.cos(), angle.sin()])[None] for angle in angles]
    middle = float((angles * torch.tensor(weights, dtype=torch.float64)).sum())
    best = frechet_mean(z, weights=weights)
    torch.testing.assert_close(torch.atan2(best[0, 1], best[0, 0]).item(), middle)
    # The normalized mean minimizes squared chords, so the distant row has less influence on it.
    chord = mean(z, weights=weights)
    assert float(torch.atan2(chord[0, 1], chord[0, 0])) < middle - 0.1


def test_the_barycenter_is_the_slow_descent() -> None:
    z, weights = rows(3), [0.2, 0.5, 0.3]
    best = frechet_mean(z, weights=weights)
    for i in range(B):
        at = z["text"][i].clone()
        for _ in range(400):
            pull = torch.zeros(D, dtype=torch.float64)
            for w, name in zip(weights, z, strict=True):
                cos = float(at @ z[name][i])
                side = z[name][i] - cos * at
                if float(side.norm()) > 1e-12:
                    pull += w * math.acos(min(cos, 1.0)) * side / side.norm()
            at = torch.nn.functional.normalize(at + 0.2 * pull, dim=0)
        torch.testing.assert_close(best[i], at, atol=1e-9, rtol=0)


def test_the_derivative_of_the_frechet_mean_is_exact_where_it_equals_the_mean() -> None:
    # By symmetry, the iteration ends at the normalized mean, but the derivative must be that of the Fréchet mean.
    z = tuple(torch.eye(3, dtype=torch.float64)[k : k + 1].clone().requires_grad_() for k in range(3))
    torch.testing.assert_close(frechet_mean(z), mean(z))
    torch.autograd.gradcheck(lambda *z: frechet_mean(z), z)
    same = tuple(unit(1, D).requires_grad_() for _ in range(3))
    torch.autograd.gradcheck(lambda *z: frechet_mean(z, weights=[1, 2, 3]), same)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda w: frechet_mean(rows(), weights=w), (weights,))


def test_rows_without_a_frechet_mean_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    # The mean of these rows is a saddle point of the cost, since five rows are more than 90 degrees away from it.
    angles = torch.arange(5, dtype=torch.float64) * 2 * math.pi / 5
    z = torch.stack([angles.cos(), angles.sin(), torch.full((5,), -0.5), torch.zeros(5)], 1)
    pole = torch.tensor([[0.0, 0.0, 1.0, 0.0]]).expand(4, -1)
    around = [*torch.nn.functional.normalize(z, dim=1)[:, None], *pole[:, None]]
    with pytest.raises(NonFiniteError, match="spread too far"):
        frechet_mean(around)
    monkeypatch.setattr("unialign.generation._interpolation._MAX_STEPS", 2)
    with pytest.raises(NonFiniteError, match="row 0 of the mixture still moved by more than 1e-12 after 2 steps"):
        frechet_mean(rows(), weights=[1, 2, 3])


def test_wide_rows_settle_in_float32() -> None:
    z = [torch.nn.functional.normalize(torch.randn(3, 512, generator=torch.Generator().manual_seed(k)), dim=1)
         for k in range(12)]  # fmt: skip
    best = frechet_mean(z, weights=range(1, 13))
    exact = frechet_mean([x.double() for x in z], weights=range(1, 13))
    assert best.dtype == torch.float32
    torch.testing.assert_close(best.double(), exact, atol=1e-6, rtol=0)


def test_order_does_not_matter() -> None:
    z, weights = rows(), {"text": 1.0, "audio": 2.0, "video": 0.5}
    turned = dict(reversed(z.items()))
    for mixture in (mean, frechet_mean):
        torch.testing.assert_close(mixture(turned, weights=weights), mixture(z, weights=weights))
        items = mixture({name: x.flip(0) for name, x in z.items()}, weights=weights)
        torch.testing.assert_close(items, mixture(z, weights=weights).flip(0))


def test_extreme_scales_are_only_scales() -> None:
    z = [x.float() for x in rows().values()]
    weights, exact = [1.0, 2.0, 4.0], mean(z, weights=[1, 2, 4])
    for scale in (1e-300, 1e-30, 1e300):
        torch.testing.assert_close(mean(z, weights=[scale * w for w in weights]), exact)
        torch.testing.assert_close(linear_combination([(scale * w, x) for w, x in zip(weights, z, strict=True)]), exact)
    for scale in (1e-25, 1e30):
        torch.testing.assert_close(mean([scale * x for x in z], weights=weights), exact)
    with pytest.raises(NonFiniteError, match="row 0 of the mixture cancels"):
        linear_combination([(1e4, z[0]), (-1e4, 3 * z[0])])
    with pytest.raises(NonFiniteError, match="too short to have a direction"):
        mean([1e-40 * x for x in z])


def test_no_rows_and_one() -> None:
    none = torch.empty(0, D)
    for mixed in (
        mean([none, none]),
        frechet_mean([none, none]),
        slerp(none, none, 0.5),
        linear_combination([(1, none)]),
    ):
        assert mixed.shape == (0, D)
    a = unit(1, D)
    for mixed in (mean([a]), frechet_mean([a]), linear_combination([(2, a)])):
        torch.testing.assert_close(mixed, a)


def test_arithmetic() -> None:
    king, man, woman = unit(B, D), unit(B, D, seed=1), unit(B, D, seed=2)
    queen = linear_combination([(1.0, king), (-1.0, man), (1.0, woman)])
    torch.testing.assert_close(queen, torch.nn.functional.normalize(king - man + woman, dim=1))
    with pytest.raises(NonFiniteError, match="cancels"):
        linear_combination([(1.0, king), (-1.0, king)])


def test_a_path_meets_its_waypoints_and_keeps_its_pace() -> None:
    ends = unit(3, D)
    path = interpolate(ends, steps=9)
    assert path.shape == (9, D)
    torch.testing.assert_close(path[[0, 4, 8]], ends)
    angles = torch.arccos((path[1:] * path[:-1]).sum(1))
    torch.testing.assert_close(angles[:4], angles[0].expand(4))
    torch.testing.assert_close(angles[4:], angles[4].expand(4))
    many = interpolate(unit(3, B, D), steps=4)
    assert many.shape == (4, B, D)


@pytest.mark.parametrize("mixture", ["mean", "kept", "slerp", "frechet_mean", "combine"])
def test_gradients_and_rotations(mixture: str) -> None:
    def mixed(a: Tensor, b: Tensor) -> Tensor:
        calls: dict[str, Any] = {
            "mean": lambda: mean([a, b], weights=[1, 3]),
            "kept": lambda: mean([a, b], normalize=False),
            "slerp": lambda: slerp(a, b, 0.3),
            "frechet_mean": lambda: frechet_mean([a, b, a + b], weights=[1, 3, 1]),
            "combine": lambda: linear_combination([(2.0, a), (-0.5, b)]),
        }
        result: Tensor = calls[mixture]()
        return result

    a, b = unit(2, D), torch.nn.functional.normalize(unit(2, D) + unit(2, D, seed=1), dim=1)
    turn = rotation()
    torch.testing.assert_close(mixed(a @ turn, b @ turn), mixed(a, b) @ turn)
    torch.autograd.gradcheck(mixed, (a.requires_grad_(), b.requires_grad_()))


def test_gradients_by_times_and_with_absent_rows() -> None:
    a, b = unit(2, D).requires_grad_(), unit(2, D, seed=1).requires_grad_()
    times = torch.tensor([0.0, 0.3, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(slerp, (a, b, times))
    present = {"rows 1": torch.tensor([True, False])}
    torch.autograd.gradcheck(lambda a, b: mean([a, b], weights=[1, 3], present=present), (a, b))


def test_dtypes() -> None:
    z = [unit(B, D), unit(B, D, seed=1)]
    assert mean(z).dtype == torch.float64
    assert mean([x.half() for x in z]).dtype == torch.float32
    assert mean([x.numpy() for x in z]).dtype == torch.float64


def test_invalid_input_raises() -> None:
    for call, error, message in (
        (lambda a: mean([]), ShapeError, "at least 1"),
        (lambda a: mean("text"), ShapeError, "mapping or a sequence"),
        (lambda a: mean([a, a[:, :2]]), ShapeError, "'rows 1' has dim 2, 'rows 0' has dim 4"),
        (lambda a: mean([a, a[:2]]), ShapeError, "'rows 1' has 2 rows, 'rows 0' has 5"),
        (lambda a: mean([a, torch.full_like(a, torch.nan)]), NonFiniteError, "'rows 1' row 0 holds nan"),
        (lambda a: mean([a, torch.zeros_like(a)]), NonFiniteError, "'rows 1' row 0 has norm zero"),
        (lambda a: mean([a, a], weights=[1]), ConfigError, "must be 2 finite numbers"),
        (lambda a: mean([a, a], weights=[1, -1]), ConfigError, "at least 0"),
        (lambda a: mean([a, a], weights=[0, 0]), ConfigError, "at least 0"),
        (lambda a: mean({"x": a}, weights={"y": 1}), ConfigError, "expected one for each of x"),
        (lambda a: mean([a], normalize="short"), ConfigError, "normalize"),
        (lambda a: mean({"x": a}, present={"y": torch.ones(B).bool()}), ConfigError, "`present` has 'y'"),
        (
            lambda a: mean({"x": a}, present={"x": torch.ones(2).bool()}),
            ShapeError,
            "expected torch.bool of shape \\(5,\\)",
        ),
        (lambda a: mean({"x": a}, present=torch.ones(B).bool()), ShapeError, "must be a mapping"),
        (lambda a: mean([a[0]]), ShapeError, "'rows 0' has shape \\(4,\\)"),
        (lambda a: mean([a[:, :0]]), ShapeError, "has dim 0"),
        (lambda a: mean([a + 0j]), ShapeError, "expected a floating-point dtype"),
        (lambda a: mean([a > 0]), ShapeError, "expected a floating-point dtype"),
        (lambda a: mean([a], weights=[math.inf]), ConfigError, "finite numbers"),
        (lambda a: mean([a], weights=[1j]), ConfigError, "finite numbers"),
        (lambda a: mean([a], weights=["one"]), ShapeError, "cannot be converted to a tensor"),
        (lambda a: slerp(a, -a * torch.tensor([[1.0]]), 0.5), NonFiniteError, "4 more such rows"),
        (lambda a: slerp(a, torch.full_like(a, torch.inf), 0.5), NonFiniteError, "'b' row 0 holds inf"),
        (lambda a: slerp(a, a, [[0.5]]), ConfigError, "expected a number or \\(T,\\)"),
        (lambda a: interpolate(a[0], steps=3), ShapeError, "expected \\(K, D\\)"),
        (lambda a: interpolate(torch.stack([a, -a]), steps=3), NonFiniteError, "row 0 of the mixture is opposite"),
        (lambda a: interpolate(torch.stack([a, 0 * a]), steps=3), NonFiniteError, "'waypoint 1' row 0 has norm zero"),
        (lambda a: linear_combination([a]), ConfigError, "pair"),
        (lambda a: linear_combination([(0, a), (0, a)]), ConfigError, "all 0"),
        (lambda a: linear_combination([(math.nan, a)]), ConfigError, "finite numbers"),
        (lambda a: linear_combination([(1, a), (1, a.fill_(math.nan))]), NonFiniteError, "'term 0' row 0 holds nan"),
        (lambda a: slerp(a, a, float("nan")), ConfigError, "finite numbers"),
        (lambda a: interpolate(a[:1], steps=3), ShapeError, "at least 2 waypoints"),
        (lambda a: interpolate(a, steps=1), ConfigError, "steps"),
        (lambda a: linear_combination([]), ConfigError, "at least one"),
    ):
        with pytest.raises(error, match=message):
            call(unit(B, D))


def test_names_that_would_collide_raise() -> None:
    a, b = torch.eye(2, 4), torch.ones(2, 4)
    with pytest.raises(ShapeError, match="names must be strings, got 1"):
        mean({1: a, "1": b})  # type: ignore[dict-item]


def test_an_arc_is_not_followed_out_of_all_digits() -> None:
    with pytest.raises(ConfigError, match="between -1000 and 1000"):
        slerp(torch.eye(1, 4), torch.ones(1, 4), 1e8)


def test_weights_may_be_tensors_that_want_a_gradient() -> None:
    z = torch.eye(2, 4)
    weight = torch.tensor(1.0, requires_grad=True)
    torch.testing.assert_close(mean([z, z.flip(0)], weights=[weight, 1.0]), mean([z, z.flip(0)]))
