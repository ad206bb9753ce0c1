"""Test flow matching against closed-form solutions."""

import pytest
import torch
from torch import Tensor

from unialign.generation._flow import draw_times, flow_loss, sample

MEAN, DEVIATION = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 1.0, 2.0])


def exact(x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
    t = t[:, None]
    mean, variance = MEAN.to(x_t) + condition, DEVIATION.to(x_t).square()
    gain = t * variance / (t.square() * variance + (1 - t).square())
    return mean + gain * (x_t - t * mean)


def test_the_exact_prediction_carries_noise_to_the_data() -> None:
    noise = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = sample(exact, noise, torch.zeros(len(noise), 3, dtype=torch.float64), steps=200)
    torch.testing.assert_close(x.mean(0), MEAN.double(), atol=0.05, rtol=0)
    torch.testing.assert_close(x.std(0), DEVIATION.double(), atol=0, rtol=0.05)


def test_one_step_lands_on_the_prediction() -> None:
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample(exact, noise, torch.zeros(5, 3), steps=1), MEAN.expand(5, 3))


def test_guidance_moves_past_the_conditional_prediction() -> None:
    noise = torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
    condition, none = torch.ones(4000, 3), torch.zeros(3)
    plain = sample(exact, noise, condition, steps=20).mean(0)
    same = sample(exact, noise, condition, steps=20, guidance=1.0, unconditional_C=none).mean(0)
    torch.testing.assert_close(plain, same)
    guided = sample(exact, noise, condition, steps=20, guidance=2.0, unconditional_C=none).mean(0)
    # The prediction is affine in the condition, so guidance 2 has the effect of twice the condition.
    torch.testing.assert_close(guided, sample(exact, noise, 2 * condition, steps=20).mean(0))
    unguided = sample(exact, noise, condition, steps=20, guidance=0.0, unconditional_C=none).mean(0)
    torch.testing.assert_close(unguided, sample(exact, noise, 0 * condition, steps=20).mean(0))


def test_the_loss_is_that_of_the_velocity() -> None:
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(64, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    times = torch.rand(64, generator=generator, dtype=torch.float64) * 0.9

    def predict(x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return 0.5 * x_t + 1

    slow = 0.0
    for i in range(64):
        x_t = (1 - times[i]) * noise[i] + times[i] * x[i]
        velocity = (predict(x_t, times[i], x_t) - x_t) / (1 - times[i])
        slow += float(((velocity - (x[i] - noise[i])) ** 2).mean()) / 64
    loss = flow_loss(predict, x, torch.zeros(64, 1), times_N=times, noise=noise)
    assert float(loss) == pytest.approx(slow, rel=1e-5)


def test_the_weight_is_held_near_the_end() -> None:
    x, noise = torch.ones(1, 3), torch.zeros(1, 3)
    at = [flow_loss(lambda *_: x + 1, x, x, times_N=torch.tensor([t]), noise=noise).item() for t in (0.5, 0.9, 0.999)]
    assert at == pytest.approx([4, 100, 100], rel=1e-4)


def test_the_loss_is_least_at_the_exact_prediction() -> None:
    generator = torch.Generator().manual_seed(0)
    x = MEAN + DEVIATION * torch.randn(40_000, 3, generator=generator)
    times, noise = draw_times(40_000, generator), torch.randn(40_000, 3, generator=generator)
    zero = torch.zeros(40_000, 3)
    best = float(flow_loss(exact, x, zero, times_N=times, noise=noise))
    for shift in (-0.1, 0.1):
        worse = flow_loss(lambda a, t, c, s=shift: exact(a, t, c) + s, x, zero, times_N=times, noise=noise)
        assert float(worse) > best


def test_times_are_logit_normal() -> None:
    times = draw_times(50_000, torch.Generator().manual_seed(0))
    assert float(times.min()) > 0
    assert float(times.max()) < 1
    assert float(times.logit().mean()) == pytest.approx(-0.4, abs=0.02)
    assert float(times.logit().std()) == pytest.approx(1, abs=0.02)
