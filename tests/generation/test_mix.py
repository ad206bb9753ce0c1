"""Mixtures against slow loops and closed forms."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unialign.errors import ConfigError, NonFiniteError, ShapeError
from unialign.generation import barycentre, combine, interpolate, mean, slerp

K, B, D = 3, 5, 4


def unit(*shape: int, seed: int = 0) -> Tensor:
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(z, dim=-1)


def rows(seed: int = 0) -> dict[str, Tensor]:
    """Rows of one item lie within a cone, as embeddings of one thing do."""
    centre = unit(B, D, seed=seed)
    return {name: torch.nn.functional.normalize(centre + 0.6 * unit(B, D, seed=seed + 1 + k), dim=1)
            for k, name in enumerate(("text", "audio", "video"))}  # fmt: skip


def rotation() -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    return q


def test_mean_is_the_loop() -> None:
    z, weights = rows(), {"text": 1.0, "audio": 2.0, "video": 0.5}
    for lengths in ("unit", "kept"):
        mixed = mean(z, weights=weights, lengths=lengths)  # type: ignore[arg-type]
        for i in range(B):
            slow = sum(weights[name] * z[name][i] for name in z) / 3.5
            slow = slow / slow.norm() if lengths == "unit" else slow
            torch.testing.assert_close(mixed[i], slow)


def test_the_kept_mean_of_two_has_the_length_of_their_agreement() -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    length = mean([a, b], lengths="kept").norm(dim=1)
    torch.testing.assert_close(length, ((1 + (a * b).sum(1)) / 2).sqrt())


def test_rows_are_made_unit_first() -> None:
    z = rows()
    torch.testing.assert_close(mean([3 * z["text"], z["audio"]]), mean([z["text"], z["audio"]]))


def test_absent_rows_leave_the_mean_whatever_they_hold() -> None:
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


def test_only_ratios_of_weights_count_and_zero_leaves_out() -> None:
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


def test_slerp_at_one_half_is_the_renormalised_mean() -> None:
    a, b = unit(B, D), unit(B, D, seed=1)
    torch.testing.assert_close(slerp(a, b, 0.5), mean([a, b]))


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


def test_opposite_rows_are_refused() -> None:
    a = unit(B, D)
    b = unit(B, D, seed=1)
    b[2] = -a[2]
    with pytest.raises(NonFiniteError, match="row 2 of the mixture is opposite"):
        slerp(a, b, 0.5)
    with pytest.raises(NonFiniteError, match="row 2 of the mixture cancels"):
        mean([a, b])


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.8])
def test_the_barycentre_of_two_is_slerp(weight: float) -> None:
    a, b = unit(B, D), torch.nn.functional.normalize(unit(B, D) + 0.8 * unit(B, D, seed=1), dim=1)
    torch.testing.assert_close(barycentre([a, b], weights=[1 - weight, weight]), slerp(a, b, weight))


def test_the_barycentre_has_the_least_squared_angles() -> None:
    z, weights = rows(), [0.2, 0.5, 0.3]
    best = barycentre(z, weights=weights)

    def cost(at: Tensor) -> Tensor:
        return sum(w * torch.arccos((at * x).sum(1)).square() for w, x in zip(weights, z.values(), strict=True))  # type: ignore[return-value]

    for seed in range(6):
        near = torch.nn.functional.normalize(best + 1e-3 * unit(B, D, seed=seed), dim=1)
        assert bool((cost(near) > cost(best)).all())
    # At the best point the weighted steps towards the rows cancel.
    pull = torch.zeros(B, D, dtype=torch.float64)
    for w, x in zip(weights, z.values(), strict=True):
        cos = (best * x).sum(1, keepdim=True)
        side = x - cos * best
        pull += w * torch.arccos(cos) * side / side.norm(dim=1, keepdim=True)
    torch.testing.assert_close(pull, torch.zeros_like(pull), atol=1e-9, rtol=0)


def test_arithmetic() -> None:
    king, man, woman = unit(B, D), unit(B, D, seed=1), unit(B, D, seed=2)
    queen = combine([(1.0, king), (-1.0, man), (1.0, woman)])
    torch.testing.assert_close(queen, torch.nn.functional.normalize(king - man + woman, dim=1))
    with pytest.raises(NonFiniteError, match="cancels"):
        combine([(1.0, king), (-1.0, king)])


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
    chord = interpolate(ends[:2], steps=3, path="linear")
    torch.testing.assert_close(chord[1], (ends[0] + ends[1]) / 2)


@pytest.mark.parametrize("mixture", ["mean", "kept", "slerp", "barycentre", "combine"])
def test_gradients_and_rotations(mixture: str) -> None:
    def mixed(a: Tensor, b: Tensor) -> Tensor:
        calls: dict[str, Any] = {
            "mean": lambda: mean([a, b], weights=[1, 3]),
            "kept": lambda: mean([a, b], lengths="kept"),
            "slerp": lambda: slerp(a, b, 0.3),
            "barycentre": lambda: barycentre([a, b, a + b], weights=[1, 3, 1]),
            "combine": lambda: combine([(2.0, a), (-0.5, b)]),
        }
        result: Tensor = calls[mixture]()
        return result

    a, b = unit(2, D), torch.nn.functional.normalize(unit(2, D) + unit(2, D, seed=1), dim=1)
    turn = rotation()
    torch.testing.assert_close(mixed(a @ turn, b @ turn), mixed(a, b) @ turn)
    if mixture != "barycentre":  # its number of steps may change with the input
        torch.autograd.gradcheck(mixed, (a.requires_grad_(), b.requires_grad_()))


def test_dtypes() -> None:
    z = [unit(B, D), unit(B, D, seed=1)]
    assert mean(z).dtype == torch.float64
    assert mean([x.half() for x in z]).dtype == torch.float32
    assert mean([x.numpy() for x in z]).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: mean([]), ShapeError, "at least one"),
        (lambda a: mean("text"), ShapeError, "mapping or a sequence"),
        (lambda a: mean([a, a[:, :2]]), ShapeError, "expected \\(B, D\\) for all"),
        (lambda a: mean([a, a[:2]]), ShapeError, "expected \\(B, D\\) for all"),
        (lambda a: mean([a, torch.full_like(a, torch.nan)]), NonFiniteError, "'rows 1', row 0, holds nan"),
        (lambda a: mean([a, torch.zeros_like(a)]), NonFiniteError, "'rows 1', row 0, has norm zero"),
        (lambda a: mean([a, a], weights=[1]), ConfigError, "expected 2 finite numbers"),
        (lambda a: mean([a, a], weights=[1, -1]), ConfigError, "at least 0"),
        (lambda a: mean([a, a], weights=[0, 0]), ConfigError, "at least 0"),
        (lambda a: mean({"x": a}, weights={"y": 1}), ConfigError, "expected one for each of x"),
        (lambda a: mean([a], lengths="short"), ConfigError, "lengths"),
        (lambda a: mean({"x": a}, present={"y": torch.ones(B).bool()}), ConfigError, "names 'y'"),
        (lambda a: mean({"x": a}, present={"x": torch.ones(2).bool()}), ShapeError, "expected \\(5,\\) bool"),
        (lambda a: slerp(a, a, float("nan")), ConfigError, "finite numbers"),
        (lambda a: interpolate(a[:1], steps=3), ShapeError, "at least 2 waypoints"),
        (lambda a: interpolate(a, steps=1), ConfigError, "steps"),
        (lambda a: combine([]), ConfigError, "at least one"),
        (lambda a: barycentre([a], iterations=0), ConfigError, "iterations"),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(unit(B, D))
