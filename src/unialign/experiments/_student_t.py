"""Student's t distribution in plain Python, for paired tests on few tasks.

The tail probability is I_x(v / 2, 1 / 2) with x = v / (v + t^2), where I is the regularized incomplete beta function,
computed by its continued fraction (Abramowitz & Stegun 26.5.8, in the form of Lentz).
"""

import math

_STEPS, _PRECISION, _TINY = 500, 1e-14, 1e-300


def two_sided_p(t: float, freedom: float) -> float:
    """Return P(|T| >= |t|)."""
    if math.isnan(t):
        return math.nan
    if math.isinf(t):
        return 0.0
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def quantile(probability: float, freedom: float) -> float:
    """Return the value that T exceeds with probability 1 - `probability`, for `probability` in [0.5, 1)."""
    low, high = 0.0, 1.0
    tail = 2 * (1 - probability)
    while two_sided_p(high, freedom) > tail:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, freedom) > tail else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b) for x in [0, 1]."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    found = d
    for m in range(1, _STEPS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d, c = 1 / _apart(1 + numerator * d), _apart(1 + numerator / c)
            found *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return found


def _apart(value: float) -> float:
    """Avoid division by a number too close to 0."""
    return value if abs(value) > _TINY else _TINY
