"""Rules about the rows: invalid values, presence, dims, duplicates, constant columns and norms."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain

import numpy as np

from unialign._plain_text import count, join_words
from unialign.diagnostics import _limits as limits
from unialign.diagnostics._finding import Case, Rule, RuleTable, always
from unialign.diagnostics._format import at_most, number, pair_list, percent, row_list, rows_of, size
from unialign.diagnostics._measure import Measurements, names_of, stand_in_cosines


def _invalid_rows(measured: Measurements) -> Iterator[Case]:
    for name, m in measured.modalities.items():
        blank = m.scan.blank == sum(invalid.count for invalid in m.scan.invalid.values())
        advice = (_MARK_ABSENT if blank else _EMBED_AGAIN).format(name=name)
        for kind, invalid in m.scan.invalid.items():
            if invalid.count:
                yield Case(name, kind=kind, which=rows_of(invalid.count, m.rows), advice=advice,
                           rows=row_list(invalid.first, invalid.count),
                           unmarked=kind == "zero" and name not in measured.data.masked)  # fmt: skip


_MARK_ABSENT = (
    "These rows contain only NaN or only zeros, as absent items often do. Mark them with a bool array present.{name}, "
    "so that they are excluded and do not distort means, losses and ranks."
)
_EMBED_AGAIN = (
    "Find the cause (overflow in half precision, a logarithm of 0 or a division by 0, an empty input) and embed these "
    "items again, or mark them as missing with a bool array present.{name}."
)
_INVALID = RuleTable(
    _invalid_rows,
    (
        Rule("nan", "problem", lambda c: c.kind == "nan", "{name}: {which} contain NaN ({rows}).", "{advice}"),
        Rule("inf", "problem", lambda c: c.kind == "inf", "{name}: {which} contain infinity ({rows}).", "{advice}"),
        Rule("zero_rows", "warning", lambda c: c.unmarked,
             "{name}: {which} contain only zeros ({rows}), so the items are absent or their embeddings are broken.",
             "Mark absent rows with present= (in a file: a bool array present.{name}), so that they are excluded, and "
             "embed the other items again."),
        Rule("zero_rows", "problem", lambda c: c.kind == "zero",
             "{name}: {which} contain only zeros and have no direction ({rows}).", "{advice}"),
        Rule("zero_rows", "problem", lambda c: c.kind == "tiny",
             "{name}: {which} are so short that rounding has destroyed their direction ({rows}).", "{advice}"),
    ),
    otherwise=(
        lambda measured: [Case(rows=sum(m.rows for m in measured.modalities.values()))],
        Rule("values", "ok", always, "All {rows:,} rows are finite and nonzero."),
    ),
)  # fmt: skip


def _data_set(measured: Measurements) -> Iterator[Case]:
    data, apart = measured.data, measured.no_overlap
    absent = {name: m.absent for name, m in measured.modalities.items() if m.absent}
    listed = [f"{name} {percent(rows / data.items)}" for name, rows in absent.items()]
    yield Case(*absent, kind="missing" if absent else "", listed=listed, items=data.items)
    # With fewer than two items, no pair can overlap; the finding `few_items` covers this case.
    yield Case(*names_of(apart), kind="overlap" if apart and data.items > 1 else "", pairs=pair_list(apart))
    yield Case(kind="few" if data.items < limits.FEW_ITEMS else "", items=count(data.items, "item"),
               are="is" if data.items == 1 else "are")  # fmt: skip
    yield from _rare(measured)
    yield Case(*measured.modalities, kind="lone" if len(measured.modalities) == 1 else "")
    yield Case(kind="matched" if data.matched else "", files=data.matched)
    yield Case(kind="sources" if data.notes else "", listed=at_most(data.notes))
    yield Case(kind="ignored" if data.ignored else "", listed=at_most(data.ignored))
    yield _dims(measured)


def _rare(measured: Measurements) -> Iterator[Case]:
    if measured.data.items < limits.FEW_ITEMS:
        return
    rows = {name: m.usable for name, m in measured.modalities.items() if 0 < m.usable < limits.FEW_ITEMS}
    if rows:
        listed = [f"{name} has only {count(number, 'row')}" for name, number in rows.items()]
        yield Case(*rows, kind="rare", listed=at_most(listed), about="about them" if len(rows) > 1 else "about it")
    pairs = {
        pair: stats.items
        for pair, stats in measured.pairs.items()
        if stats.items < limits.FEW_ITEMS and not set(pair) & set(rows)
    }
    if pairs:
        listed = [f"only {count(number, 'item')} have both {a} and {b}" for (a, b), number in pairs.items()]
        yield Case(*names_of(pairs), kind="rare", listed=at_most(listed), about="about these pairs")


def _dims(measured: Measurements) -> Case:
    dims = {name: m.dim for name, m in measured.modalities.items()}
    good = [pair for pair, (_, p) in measured.cka.items() if p <= limits.MAX_CKA_P]
    # With few items, the test may not detect shared structure.
    enough = measured.data.items >= limits.FEW_ITEMS
    bad = [pair for pair, (_, p) in measured.cka.items() if p > limits.MAX_CKA_P and enough]
    ckas = join_words(f"{a} and {b} ({number(measured.cka[a, b][0])})" for a, b in good[:6])
    paired = f" Their rows are paired, though: the items have similar neighbors in {ckas} (CKA, at most 1)."
    unpaired = f" There is no evidence that the rows of {pair_list(bad)} are paired; check their order."
    usual, times = Counter(dims.values()).most_common(1)[0]
    odd = [name for name, dim in dims.items() if dim != usual] if times > 1 else []
    return Case(*odd, kind="dims" if len(set(dims.values())) > 1 else "", paired=paired if good else "",
                unpaired=unpaired if bad else "", dims=[f"{name} {dim:,}" for name, dim in dims.items()])  # fmt: skip


_DATA_SET = RuleTable(
    _data_set,
    (
        Rule("missing", "note", lambda c: c.kind == "missing",
             "Rows marked as missing were excluded: {listed:words} of {items:,} items."),
        Rule("no_overlap", "warning", lambda c: c.kind == "overlap",
             "Fewer than two items have both {pairs}, so their alignment cannot be measured.",
             "Check the presence masks. To train these modalities into one space, a third modality must link them."),
        Rule("few_items", "note", lambda c: c.kind == "few",
             "There {are} only {items}, so the values are mostly noise; rely on the intervals.",
             "Use at least a few hundred items."),
        Rule("few_items", "note", lambda c: c.kind == "rare",
             "{listed:words}, so numbers {about} are mostly noise; rely on their intervals.",
             "Use at least a few hundred items that have these modalities."),
        Rule("one_modality", "note", lambda c: c.kind == "lone",
             "{modalities[0]} is the only modality, so gap, pairing and retrieval across modalities cannot be "
             "measured.",
             "Add the file of a second modality with the same items, in the same order or with the same ids."),
        Rule("matched", "note", lambda c: c.kind == "matched",
             "Rows of {files:words} were in a different order and were matched by ids; row numbers are those of the "
             "first file."),
        Rule("sources", "note", lambda c: c.kind == "sources", "How the files were read: {listed:words}."),
        Rule("ignored", "note", lambda c: c.kind == "ignored", "Not used: {listed:words}."),
        Rule("dim_mismatch", lambda c: "problem" if c.unpaired else "note", lambda c: c.kind == "dims",
             "Dims differ: {dims:words}. Modalities with different dims are not in the same space, so cosines between "
             "them are undefined.{paired}{unpaired}",
             "Features of different encoders may have different dims. To compare them by cosine, map them into one "
             "space: `unialign train` on these files learns a head for each."),
    ),
)  # fmt: skip


def _ids_advice(measured: Measurements) -> str:
    ids_N, given = measured.proposed_ids, "ids" in measured.data.values
    change = "change the" if given else "give"
    advice = f"{change} `ids` so that these items have the same id and are not negatives of each other"
    if ids_N is None:
        return advice
    use = "replace the given ids" if given else "can be given as an additional file"
    return (
        f"{advice}. Proposed ids with {len(np.unique(ids_N)):,} distinct values are in report.proposed_ids; the "
        f"command writes them to ids.npy next to its report, and they {use}"
    )


def _near_rows(measured: Measurements) -> Iterator[Case]:
    for name, m in measured.modalities.items():
        yield Case(name, near=m.near, cosine=m.near.cosine, fraction=m.near.repeats / max(m.sampled, 1),
                   which=rows_of(m.near.repeats, m.sampled).replace("rows", "sampled rows"),
                   give=_ids_advice(measured), answers=_ANSWERS[m.near.are_answers])  # fmt: skip


_ANSWERS = {
    True: "This diagnosis scores nearly equal rows as correct answers; training without ids does not.",
    False: "Without ids, they are scored as incorrect answers to each other, which lowers recalls slightly.",
}


def _duplicate_rows(measured: Measurements) -> Iterator[Case]:
    every = {name: m.duplicates for name, m in measured.modalities.items()}
    first = next(iter(every.values()))
    give = _ids_advice(measured)
    # If the same items are copied in every modality, report them once rather than for each modality.
    whole = len(every) > 1 and first.distinct > 1 and all(d == first for d in every.values())
    for name, d in {"": first}.items() if whole else every.items():
        # With ids, equal rows of the same item are not duplicates, but a modality with equal rows for all items is
        # still constant.
        rows = d.repeats + d.distinct
        usable = measured.modalities[name].usable if name else rows
        cosines = stand_in_cosines(measured.pairs, name)
        stand_in = (
            ""
            if cosines is None
            else (f"cosine {number(cosines[0])}, against {number(cosines[1])} for all other items")
        )
        examples = ", ".join(f"{a:,} and {b:,}" for a, b in d.examples)
        yield Case(*([name] if name else []), duplicates=d, usable=usable, constant=d.distinct == 1 and usable > 1,
                   whole=whole, examples=examples, give=give, stand_in=stand_in,
                   fraction=d.repeats / max(rows, 1), which=rows_of(d.repeats, rows))  # fmt: skip


_COPIES = (
    "{name}: {which} repeat another item's row exactly (such as {examples}); {duplicates.distinct:,} distinct rows "
    "remain, and the most frequent one occurs {duplicates.largest:,} times."
)
_DUPLICATES = RuleTable(
    _duplicate_rows,
    (
        Rule("constant", "problem", lambda c: c.constant,
             "{name}: all {usable:,} rows are equal. Pairing, gap and retrieval of this modality cannot be judged.",
             "The encoder was not run, its input was constant, or one row was broadcast: embed this modality again."),
        Rule("duplicates", lambda c: "warning" if c.fraction >= limits.DUPLICATES else "note",
             lambda c: c.whole and c.fraction > 0,
             "Whole items are duplicated: in every modality {which} repeat another item's row (such as {examples}).",
             "Drop the copies or give them the same id: copies leak across splits, and within a split they are "
             "negatives of each other."),
        Rule("duplicates", "warning", lambda c: c.fraction > 0 and c.stand_in != "",
             _COPIES + " The most frequent row does not match its items ({stand_in}).",
             "It is probably the embedding of an empty or unreadable input. Embed these items again, or mark them as "
             "missing with a bool array present.{name}."),
        Rule("duplicates", "warning", lambda c: c.fraction >= limits.DUPLICATES, _COPIES,
             "If equal rows are correct (one caption for several images, a common phrase), {give}. Otherwise, check "
             "the inputs of these rows: they may be empty, not loaded, or truncated to the same beginning."),
        Rule("duplicates", "note", lambda c: c.fraction > 0, _COPIES),
    ),
    otherwise=(
        lambda measured: [Case()],
        Rule("duplicates", "ok", always, "No row is an exact copy of another item's row."),
    ),
)  # fmt: skip
_NEAR = RuleTable(
    _near_rows,
    (
        Rule("near_duplicates", lambda c: "warning" if c.fraction >= limits.DUPLICATES else "note",
             lambda c: c.near.repeats > 0,
             "{name}: {which} are nearly equal to another item's row (cosine of at least {cosine:number}), and hardly "
             "any pairs have slightly lower cosines. The same input was probably embedded in several batches.",
             "If these inputs are equal, {give}. {answers}"),
    ),
)  # fmt: skip


# With fewer distinct rows, a column with few values may be constant by chance.
_MIN_ROWS = 16


def _constant_columns(measured: Measurements) -> Iterator[Case]:
    for name, m in measured.modalities.items():
        columns = m.scan.constant_columns
        if columns and m.duplicates.distinct != 1 and m.distinct_sampled >= _MIN_ROWS:
            listed = ", ".join(map(str, columns[:5])) + (", ..." if len(columns) > 5 else "")
            are = f"{count(len(columns), 'column')} of {m.dim:,} {'is' if len(columns) == 1 else 'are'} constant"
            yield Case(name, kind="columns", are=are, listed=listed, fraction=len(columns) / m.dim)


def _norms(measured: Measurements) -> Iterator[Case]:
    for name, m in measured.modalities.items():
        if m.norms is not None:
            outliers = m.norms.long + m.norms.short
            yield Case(name, norms=m.norms, kind="outliers", outliers=outliers,
                       which=rows_of(outliers, m.usable), rows=row_list(m.norms.first, outliers))  # fmt: skip
            large, small = m.scan.largest > limits.FLOAT16_MAX, m.norms.median < limits.FLOAT16_TINY
            yield Case(name, norms=m.norms, kind="range", largest=m.scan.largest,
                       extreme="large" if large else "small" if small else "")  # fmt: skip


def _median_norms(measured: Measurements) -> Iterator[Case]:
    norms = {name: m.norms for name, m in measured.modalities.items() if m.norms is not None}
    uneven = {name: n for name, n in norms.items() if n.deviation > limits.UNEVEN_NORMS * n.mean}
    changed = {name: measured.modalities[name].changed_top1 for name in uneven}
    changed = {name: fraction for name, fraction in changed.items() if fraction >= limits.CHANGED_TOP1}
    if changed:
        ranges = [f"{name} {size(norms[name].low)} to {size(norms[name].high)}" for name in changed]
        yield Case(*changed, kind="uneven", ranges=ranges, changed=max(changed.values()))
    if norms:
        equal = all(n.deviation <= limits.EQUAL_NORMS * n.mean for n in norms.values())
        medians = [n.median for n in norms.values()]
        yield Case(kind="scale", equal=equal, unit=all(abs(n.mean - 1) <= limits.EQUAL_NORMS for n in norms.values()),
                   differ=max(medians) > limits.NORM_RATIO * min(medians),
                   listed=[f"{name} {size(n.median)}" for name, n in norms.items()])  # fmt: skip


_VALUES = RuleTable(
    lambda measured: chain(_constant_columns(measured), _norms(measured), _median_norms(measured)),
    (
        Rule("constant_columns", lambda c: "warning" if c.fraction >= limits.CONSTANT_COLUMNS else "note",
             lambda c: c.kind == "columns",
             "{name}: {are} ({listed}).",
             "Constant columns (padding, dead units) waste memory, and nonzero ones raise all cosines."),
        Rule("norm_outliers", "warning", lambda c: c.kind == "outliers" and c.outliers > 0,
             "{name}: {which} are more than ten times longer or shorter than the median norm {norms.median:size} "
             "({rows}; norms from {norms.least:size} to {norms.most:size}).",
             "Check the inputs of these rows."),
        Rule("norm_range", "warning", lambda c: c.kind == "range" and c.extreme != "",
             "{name}: values are too {extreme} for half precision (median norm {norms.median:size}, largest entry "
             "{largest:size}; float16 ranges from 6.1e-5 to 65504).",
             "Normalize rows before casting to float16."),
        Rule("norms", "note", lambda c: c.kind == "uneven",
             "Norms vary (middle 90 %): {ranges:words}. Dot products and cosines return different first results for "
             "{changed:percent} of the sampled queries.",
             "Normalize rows before indexing them: a dot-product index depends on norms, cosines do not."),
        Rule("norms", "ok", lambda c: c.kind == "scale" and c.equal and c.unit, "All rows have norm 1."),
        Rule("norm_scale", "note", lambda c: c.kind == "scale" and c.differ,
             "Median norms differ between the modalities: {listed:words}.",
             "Normalize rows before taking dot products: the modality with the longest rows dominates them."),
        Rule("norms", "ok", lambda c: c.kind == "scale" and c.equal,
             "All rows of a modality have the same norm ({listed:words})."),
    ),
)  # fmt: skip

ROW_TABLES = (_INVALID, _DATA_SET, _DUPLICATES, _NEAR, _VALUES)
