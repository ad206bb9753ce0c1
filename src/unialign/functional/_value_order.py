"""Order sets of rows by their values, so that sums over them round equally for every order of the modalities.

The rows of x y^T and of y x^T are added in different orders, so the last bits of a loss depend on which modality is x.

Shapes: `M` modalities, `B` items, `D` dimension; the sets may differ in their number of rows.
"""

from collections.abc import Sequence

from torch import Tensor


def value_order(sets: Sequence[Tensor]) -> list[int]:
    """Indices that sort sets of rows by the values of their first row.

    On other devices than the CPU, the order is unchanged, since reading a value would synchronize the device; also for
    tensors without values (`FakeTensorMode`).
    """
    if any(type(z_BD) is not Tensor or z_BD.device.type != "cpu" for z_BD in sets):
        return list(range(len(sets)))
    keys = [z_BD[:1, 0].tolist() for z_BD in sets]
    if any(keys.count(key) > 1 for key in keys):  # such as zeros of sparse rows
        keys = [z_BD[:1].flatten().tolist() for z_BD in sets]
    return sorted(range(len(sets)), key=keys.__getitem__)


def in_value_order(*sets: Tensor) -> list[Tensor]:
    return [sets[m] for m in value_order(sets)]


def pairs_in_value_order(z_MBD: Tensor, pairs: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[int]]:
    """Sort pairs of modalities, and the two modalities of each pair, by their first rows; B and D are positive.

    Returns:
        The sorted pairs, and the position of each given pair among them.
    """
    if type(z_MBD) is not Tensor or z_MBD.device.type != "cpu":
        return list(pairs), list(range(len(pairs)))
    keys = z_MBD.select(2, 0).select(1, 0).tolist()  # cheaper than indexing
    if len(set(keys)) < len(keys):
        keys = z_MBD[:, 0].tolist()
    turned = [(n, m) if keys[n] < keys[m] else (m, n) for m, n in pairs]
    if len(pairs) == 1:
        return turned, [0]
    order = sorted(range(len(pairs)), key=lambda p: (keys[turned[p][0]], keys[turned[p][1]]))
    places = [0] * len(pairs)
    for place, p in enumerate(order):
        places[p] = place
    return [turned[p] for p in order], places
