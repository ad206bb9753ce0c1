"""Loss and sampler of flow matching with prediction of the clean sample.

On the straight path x_t = (1 - t) e + t x from noise e (t = 0) to data x (t = 1), the velocity is x - e = (x - x_t) /
(1 - t) (Lipman et al. 2023, section 4; Liu et al. 2023). The network predicts x, which is easier to learn for small t;
the error of this prediction divided by 1 - t is the error of the velocity.

Shapes: `N` samples, `...` the shape of one sample, `C` dimension of the condition.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Maps x_t (N, ...), t (N,) and the condition (N, C) to the clean sample (N, ...).
Predict = Callable[[Tensor, Tensor, Tensor], Tensor]

# Lower bound of 1 - t in the weight 1 / (1 - t)^2; without the bound, a few samples near t = 1 would dominate.
_MIN_REMAINING = 0.1


def draw_times(count: int, generator: torch.Generator, *, mean: float = -0.4) -> Tensor:
    """Draw logit-normal times (Esser et al. 2024, section 3.1); a negative mean favors noisy samples."""
    return torch.sigmoid(torch.randn(count, generator=generator, dtype=torch.float32) + mean)


def flow_loss(predict: Predict, x: Tensor, condition_NC: Tensor, *, times_N: Tensor, noise: Tensor) -> Tensor:
    """Return (1 - t)^-2 |x - predicted|^2, with the weight capped at t = 0.9; times are in (0, 1)."""
    t = times_N.reshape(-1, *(1 for _ in x.shape[1:]))
    predicted = predict((1 - t) * noise + t * x, times_N, condition_NC)
    error_N = (predicted - x).float().square().flatten(1).mean(1)
    return (error_N / (1 - times_N).clamp_min(_MIN_REMAINING).square()).mean()


@torch.no_grad()
def sample(
    predict: Predict,
    noise: Tensor,
    condition_NC: Tensor,
    *,
    steps: int,
    guidance: float = 1.0,
    unconditional_C: Tensor | None = None,
) -> Tensor:
    """Integrate from noise to data by Euler steps at evenly spaced times; return the prediction of the last step.

    Args:
        noise: standard normal noise of shape (N, ...).
        guidance: weight g of classifier-free guidance (Ho & Salimans 2022), u + g (c - u), where c is the conditional
            and u the unconditional prediction. With g = 1, only c is computed.
        unconditional_C: input that represents "no condition"; required unless `guidance` is 1.
    """
    x = noise
    for step in range(steps):
        t, following = step / steps, (step + 1) / steps
        times_N = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        predicted = predict(x, times_N, condition_NC)
        if guidance != 1:
            assert unconditional_C is not None
            without = predict(x, times_N, unconditional_C.expand(len(x), -1))
            predicted = without + guidance * (predicted - without)
        x = x + (following - t) / (1 - t) * (predicted - x)
    return x
