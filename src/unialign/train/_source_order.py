"""Order in which the batches of an alternating mixture are drawn from its sources."""

import math
from array import array
from collections.abc import Sequence
from fractions import Fraction

__all__ = ["SourceOrder", "integer_weights"]


def integer_weights(weights: Sequence[float]) -> list[int]:
    """Return the smallest integers in the proportion of the weights, which are read as decimal numbers."""
    fractions = [Fraction(repr(weight)) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    integers = [int(fraction * scale) for fraction in fractions]
    divisor = math.gcd(*integers)
    return [integer // divisor for integer in integers]


class SourceOrder:
    """Fixed sequence of sources; after any number of batches, the number of batches of each source differs from its
    share by less than one.

    The rule that takes the source with the largest deficit does not have this property: with four or more sources,
    small ones may wait too long. Instead, batch i of a source has a release floor(i / share) and a deadline
    ceil((i + 1) / share), and the released batch with the earliest deadline comes next. Such a sequence meets all
    deadlines (Baruah, Cohen, Plaxton and Varvel, 1996, "Proportionate progress"), which is the property above.
    The sequence repeats after as many batches as the sum of the integer weights.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights, self._total = list(weights), sum(weights)
        self._sources, self._earlier = array("l"), array("q")
        self._counts = [0] * len(self._weights)

    def at(self, batch: int) -> tuple[int, int]:
        """Return the source of a batch, and the number of earlier batches of this source."""
        periods, place = divmod(batch, self._total)
        while len(self._sources) <= place:
            self._append()
        source = self._sources[place]
        return source, periods * self._weights[source] + self._earlier[place]

    def _append(self) -> None:
        number = len(self._sources)
        released = [s for s in range(len(self._weights)) if self._release(s) <= number]
        source = min(released, key=self._deadline)
        self._sources.append(source)
        self._earlier.append(self._counts[source])
        self._counts[source] += 1

    def _release(self, source: int) -> int:
        return self._counts[source] * self._total // self._weights[source]

    def _deadline(self, source: int) -> tuple[int, int]:
        # Of equal deadlines, the smaller weight comes first, so that weights 2 and 1 give the order 0, 1, 0.
        weight = self._weights[source]
        return -(-(self._counts[source] + 1) * self._total // weight), weight
