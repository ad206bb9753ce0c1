"""Findings about the rows themselves: damage, presence, copies, lengths, widths, columns."""

from collections import Counter

from unialign.diagnostics._finding import (
    Code,
    Finding,
    Severity,
    counted,
    joined_words,
    number,
    percent,
    rows_text,
    share,
    size,
)
from unialign.diagnostics._measure import Measured, Single
from unialign.diagnostics._sources import Material
from unialign.diagnostics._thresholds import (
    EVEN_NORM,
    FEW_ITEMS,
    HALF_LARGEST,
    HALF_SMALLEST,
    NORM_RATIO,
    REPEATS,
    STILL_SHARE,
    TURNED,
    UNEVEN_NORM,
)

__all__ = ["row_findings"]

_DAMAGE: dict[str, tuple[Code, str]] = {
    "nan": ("nan", "hold NaN"),
    "inf": ("inf", "hold infinity"),
    "zero": ("zero_rows", "hold only zeros and have no direction"),
    "short": ("zero_rows", "are so short that rounding has taken their direction"),
}


def row_findings(material: Material, measured: Measured) -> list[Finding]:
    """All findings that need no pair of modalities."""
    found: list[Finding] = []
    for name, single in measured.singles.items():
        found += _damage(name, single, given=name in material.masked)
    if not any(f.code in ("nan", "inf", "zero_rows") for f in found):
        rows = sum(single.rows for single in measured.singles.values())
        found.append(Finding("values", "ok", (), f"All {rows:,} rows are finite and none is empty."))
    found += _presence(material, measured)
    found += _widths(measured)
    whole = _whole_copies(measured)
    found += whole
    for name, single in measured.singles.items():
        found += [] if whole else _copies(name, single, material)
        found += _columns(name, single)
        found += _lengths(name, single)
    found += _uneven(measured)
    if not any(f.code in ("duplicates", "constant") for f in found):
        found.append(Finding("duplicates", "ok", (), "No row is an exact copy of another item's."))
    found += _scales(measured)
    if material.matched:
        text = (
            f"Rows of {joined_words(material.matched)} were in another order; they were matched by ids, and rows are "
            "numbered as in the first file."
        )
        found.append(Finding("matched", "note", (), text))
    if material.ignored:
        found.append(Finding("ignored", "note", (), f"Left alone: {joined_words(material.ignored[:8])}."))
    return found


def _damage(name: str, single: Single, *, given: bool) -> list[Finding]:
    found = []
    total = sum(damage.count for damage in single.scan.broken.values())
    blank = single.scan.blank
    for kind, damage in single.scan.broken.items():
        if damage.count == 0:
            continue
        code, what = _DAMAGE[kind]
        text = f"{name}: {share(damage.count, single.rows)} {what} ({rows_text(damage.first, damage.count)})."
        if kind == "zero" and not given:
            rows = rows_text(damage.first, damage.count)
            text = f"{name}: {share(damage.count, single.rows)} hold only zeros ({rows}): absent or broken."
            advice = (
                f"Say which with present= (in a file: a bool array present.{name}): absent rows are then left out; if "
                "they should be there, embed them again."
            )
            found.append(Finding(code, "warning", (name,), text, advice))
            continue
        if blank == total:
            advice = (
                f"These rows are blank from end to end, as missing items often are: say so with a bool array "
                f"present.{name}, so that they are left out instead of ruining means, losses and ranks."
            )
        else:
            advice = (
                "Find what made them (overflow in half precision, a log or division of 0, an empty input) and embed "
                f"these items again; or mark them as missing with a bool array present.{name}."
            )
        found.append(Finding(code, "problem", (name,), text, advice))
    return found


def _presence(material: Material, measured: Measured) -> list[Finding]:
    found = []
    absent = {name: single for name, single in measured.singles.items() if single.absent}
    if absent:
        parts = [f"{name} {percent(s.absent / material.items)}" for name, s in absent.items()]
        text = f"Marked as missing: {joined_words(parts)} of {material.items:,} items; those rows were left out."
        found.append(Finding("missing", "note", tuple(absent), text))
    if measured.apart:
        pairs = joined_words([f"{a} and {b}" for a, b in measured.apart[:6]])
        found.append(
            Finding(
                "no_overlap",
                "warning",
                tuple(dict.fromkeys(name for pair in measured.apart for name in pair)),
                f"Fewer than two items have both of: {pairs}. Nothing can be said about how they fit each other.",
                "Check the presence masks; to train such modalities into one space, a third one must link them.",
            )
        )
    if material.items < FEW_ITEMS:
        text = f"Only {counted(material.items, 'item')}: read the intervals, the numbers themselves are mostly luck."
        found.append(Finding("few_items", "note", (), text, "Give at least a few hundred items."))
    if len(measured.singles) == 1:
        (name,) = measured.singles
        text = f"{name} is the only modality, so gap, pairing and retrieval across modalities cannot be measured."
        advice = "Give the file of a second modality with the same items in the same order."
        found.append(Finding("one_modality", "note", (name,), text, advice))
    return found


def _widths(measured: Measured) -> list[Finding]:
    widths = {name: single.width for name, single in measured.singles.items()}
    if len(set(widths.values())) < 2:
        return []
    listed = joined_words([f"{name} {width:,}" for name, width in widths.items()])
    usual, many = Counter(widths.values()).most_common(1)[0]
    odd = tuple(name for name, width in widths.items() if width != usual) if many > 1 else ()
    text = f"Widths differ: {listed}. Modalities of different widths are not in one space and have no cosine."
    good = [pair for pair, (_, p) in measured.structure.items() if p <= 0.01]
    if good:
        pairs = joined_words([f"{a} and {b} ({number(measured.structure[a, b][0])})" for a, b in good[:6]])
        text += f" Their rows do belong together: similarities agree between {pairs} (CKA, 1 = alike)."
    bad = [pair for pair, (_, p) in measured.structure.items() if p > 0.01]
    if bad:
        pairs = joined_words([f"{a} and {b}" for a, b in bad[:6]])
        text += f" No sign that the rows belong together between {pairs}: check their order."
    advice = "Map them into one space: `unialign train` on an EmbeddingStore of these files learns a head for each."
    return [Finding("widths", "problem", odd, text, advice)]


def _copies(name: str, single: Single, material: Material) -> list[Finding]:
    copies = single.copies
    rows = copies.repeats + copies.distinct
    if copies.repeats == 0:
        return []
    if copies.distinct == 1:
        text = f"{name}: all {rows:,} rows are the same."
        text += " Pairing, gap and retrieval with it cannot be judged."
        advice = "The encoder was not run, its input was constant, or one row was broadcast; embed this modality again."
        return [Finding("constant", "problem", (name,), text, advice)]
    pairs = ", ".join(f"{a:,} and {b:,}" for a, b in copies.examples)
    text = (
        f"{name}: {share(copies.repeats, rows)} repeat another item's row exactly (such as {pairs}); "
        f"{copies.distinct:,} different rows are left, the most frequent stands {copies.largest:,} times."
    )
    advice = (
        "Where equal rows are right (several captions of one picture, a common phrase), give `ids` that are equal for "
        "them, so that they are no negatives and no wrong answers of each other; where they are not, look at the "
        "inputs of these rows: empty, failed to load, cut to the same beginning."
    )
    if material.ids_N is not None:
        advice = advice.replace("give `ids` that are", "make their `ids`")
    if copies.repeats / rows < REPEATS:
        return [Finding("duplicates", "note", (name,), text)]
    return [Finding("duplicates", "warning", (name,), text, advice)]


def _whole_copies(measured: Measured) -> list[Finding]:
    """One finding where the same items are copies of each other in every modality."""
    copies = [single.copies for single in measured.singles.values()]
    first = copies[0]
    if len(copies) < 2 or first.repeats == 0 or first.distinct == 1 or any(c != first for c in copies):
        return []
    rows = first.repeats + first.distinct
    pairs = ", ".join(f"{a:,} and {b:,}" for a, b in first.examples)
    text = (
        f"Whole items are there twice: in every modality {share(first.repeats, rows)} repeat another item's (such as "
        f"{pairs})."
    )
    advice = "Drop the copies, or give them equal `ids`: across splits they leak, within one they answer each other."
    severity: Severity = "note" if first.repeats / rows < REPEATS else "warning"
    return [Finding("duplicates", severity, (), text, advice)]


def _columns(name: str, single: Single) -> list[Finding]:
    still = single.scan.still
    if not still or single.copies.distinct == 1:
        return []
    text = (
        f"{name}: {counted(len(still), 'column')} of {single.width:,} never change"
        f"{'s' if len(still) == 1 else ''} (column{'' if len(still) == 1 else 's'} "
        f"{', '.join(map(str, still[:5]))}{', ...' if len(still) > 5 else ''})."
    )
    advice = "Padding or dead units: they cost memory; if their value is not 0, they also push all cosines up."
    return [Finding("constant_columns", "warning" if len(still) / single.width >= STILL_SHARE else "note",
                    (name,), text, advice)]  # fmt: skip


def _lengths(name: str, single: Single) -> list[Finding]:
    lengths = single.lengths
    if lengths is None:
        return []
    found = []
    if lengths.long or lengths.short:
        many = lengths.long + lengths.short
        text = (
            f"{name}: {share(many, single.usable)} are ten times longer or shorter than the median "
            f"{size(lengths.median)} ({rows_text(lengths.first, many)}; from {size(lengths.least)} to "
            f"{size(lengths.most)})."
        )
        found.append(Finding("norm_outliers", "warning", (name,), text, "Look at the inputs of these rows."))
    if single.scan.largest > HALF_LARGEST or lengths.median < HALF_SMALLEST:
        end = "large" if single.scan.largest > HALF_LARGEST else "small"
        text = (
            f"{name}: numbers are too {end} for half precision (median length {size(lengths.median)}, largest entry "
            f"{size(single.scan.largest)}; float16 holds 6.1e-5 to 65504)."
        )
        found.append(Finding("norm_range", "warning", (name,), text, "Normalise rows before casting to float16."))
    return found


def _uneven(measured: Measured) -> list[Finding]:
    uneven = {
        name: s.lengths
        for name, s in measured.singles.items()
        if s.lengths is not None and s.lengths.deviation > UNEVEN_NORM * s.lengths.mean and s.turned >= TURNED
    }
    if not uneven:
        return []
    ranges = joined_words([f"{name} {size(x.low)} to {size(x.high)}" for name, x in uneven.items()])
    most = max(measured.singles[name].turned for name in uneven)
    text = (
        f"Rows are of uneven length (middle 90 %): {ranges}. A dot product finds another first answer than the cosine "
        f"for {percent(most)} of the sampled queries."
    )
    advice = "Cosines do not see it, a dot-product index does: normalise rows before you index them."
    return [Finding("norms", "note", tuple(uneven), text, advice)]


def _scales(measured: Measured) -> list[Finding]:
    lengths = {name: s.lengths for name, s in measured.singles.items() if s.lengths is not None}
    if not lengths:
        return []
    even = all(x.deviation <= EVEN_NORM * x.mean for x in lengths.values())
    unit = even and all(abs(x.mean - 1) <= EVEN_NORM for x in lengths.values())
    if unit:
        return [Finding("norms", "ok", (), "All rows have length 1.")]
    middle = {name: x.median for name, x in lengths.items()}
    listed = joined_words([f"{name} {size(value)}" for name, value in middle.items()])
    if max(middle.values()) > NORM_RATIO * min(middle.values()):
        text = f"Lengths differ between the modalities: median {listed}."
        advice = "Cosines do not see it; with dot products the longest modality rules: normalise rows first."
        return [Finding("norm_scale", "note", (), text, advice)]
    if even:
        text = f"All rows of a modality have one length ({listed})."
        return [Finding("norms", "ok", (), text)]
    return []
