"""Findings about a pairing that holds for some rows and not for others. Pure functions of the numbers."""

from unialign.diagnostics._finding import Finding, Severity, joined_words, number
from unialign.diagnostics._measure import Measured
from unialign.diagnostics._row_alignment import Order, Shift
from unialign.diagnostics._rules import Pairs, by_culprit, unpaired
from unialign.diagnostics._thresholds import SCATTERED

__all__ = ["order_findings"]

# Two rows this near each other, as a share of all, are one place.
_NEAR = 0.02


def order_findings(measured: Measured, judged: Pairs) -> list[Finding]:
    """Files that slip by some rows, blocks of rows in another order, scattered rows with a wrong partner."""
    slipped = {pair: p for pair, p in judged.items() if p.shifts}
    found = [_slipped(measured, names, pairs) for names, pairs in by_culprit(measured, judged, slipped)]
    for names, order in measured.orders.items():
        own = [p for pair, p in judged.items() if set(names) & set(pair)]
        shifts = [shift for p in own for shift in p.shifts]
        # Where the file slips no row is paired; and where nothing is paired, that is said of the whole.
        if any(not any(_overlaps(*block, shift) for shift in shifts) for block in order.blocks):
            found.append(_swapped(measured, names, order))
        elif order.random_share > 0 and not shifts and not all(unpaired(p) for p in own):
            found.append(_scattered(names, order))
    return found


def _overlaps(first: int, last: int, shift: Shift) -> bool:
    start = -1 if shift.start is None else shift.start[0]
    return start <= last and (shift.stop is None or first <= shift.stop[1])


def _slipped(measured: Measured, names: tuple[str, ...], pairs: Pairs) -> Finding:
    (a, b), pair = max(pairs.items(), key=lambda item: max(shift.z for shift in item[1].shifts))
    items = measured.singles[a].rows + measured.singles[a].absent
    one = len(names) == 1
    # Row i of `a` fits row i + by of `b`; said of `a` it is the other way round.
    sign = -1 if one and names[0] == a else 1
    who, other = (names[0], "the others") if one else (b, a)
    parts = []
    for shift in pair.shifts:
        by = sign * shift.by
        rows = f"{abs(by)} row{'s' if abs(by) > 1 else ''}"
        parts.append(
            f"by {rows}{_where(shift, items)}: its row i {'+' if by > 0 else '-'} {abs(by)} fits row i of {other} "
            f"(cosine {number(shift.cosine)} so, {number(shift.as_is)} as the files stand)"
        )
    text = f"{who} is shifted {'; '.join(parts)}."
    if not one and len(pairs) > 1:
        text += f" Shifts were found among {joined_words(names)}."
    advice = (
        "A row was lost, doubled or inserted there, in one of the files: look at that row, and write the files again "
        "with `ids`, so that this is checked."
    )
    return Finding("row_offset", "problem", names, text, advice)


def _where(shift: Shift, items: int) -> str:
    start = "" if shift.start is None else f" from {_place(shift.start, items)}"
    if shift.stop is None:
        return f"{start} on" if start else ""
    return f"{start} up to {_place(shift.stop, items)}"


def _place(rows: tuple[int, int], items: int) -> str:
    low, high = rows
    if high - low <= max(1, _NEAR * items):
        return f"about row {high:,}"
    return f"somewhere between rows {low:,} and {high:,}"


def _swapped(measured: Measured, names: tuple[str, ...], order: Order) -> Finding:
    single = measured.singles[names[0]]
    blocks = joined_words([f"{first:,} to {last:,}" for first, last in order.blocks])
    about = "Rows" if single.looked == single.usable else "About the rows"
    whose = f"{names[0]} are not paired with the others" if len(names) == 1 else f"{joined_words(names)} are not paired"
    text = (
        f"{about} {blocks} of {whose}: true pairs have a mean cosine of {number(order.inside)} there and "
        f"{number(order.outside)} elsewhere."
    )
    advice = (
        "Most likely these rows were written in another order or for other items (a shard in the wrong place, a part "
        "that was embedded again): write them again, and give `ids` in each file so that this is checked."
    )
    return Finding("misaligned_block", "problem", names, text, advice)


def _scattered(names: tuple[str, ...], order: Order) -> Finding:
    who = f"{names[0]} and the others" if len(names) == 1 else joined_words(names)
    severity: Severity = "problem" if order.random_share >= SCATTERED else "warning"
    text = (
        f"About {100 * order.random_share:.0f} % of the items have a random partner: in them the rows of {who} are no "
        "closer than random ones, while the rest is clearly paired."
    )
    advice = (
        "Look at the items whose rows are farthest from each other: wrong partners (rows swapped, a join on a key "
        "that is not unique) or broken inputs; give `ids` in each file so that the pairing is checked."
    )
    return Finding("random_pairs", severity, names, text, advice)
