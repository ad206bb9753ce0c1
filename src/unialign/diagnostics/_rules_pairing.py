"""Rules about the pairing of rows: whether row i is the same item in every modality."""

import math
from collections.abc import Iterator

import numpy as np

from unialign._plain_text import count, join_words
from unialign.diagnostics import _limits as limits
from unialign.diagnostics._copies import CopyStats
from unialign.diagnostics._finding import Case, Rule, RuleTable, always
from unialign.diagnostics._format import number, pair_list, percent
from unialign.diagnostics._measure import Measurements, names_of
from unialign.diagnostics._predicates import (
    Pairs,
    by_culprit,
    comparable_pairs,
    is_unclear,
    is_unpaired,
    is_useless,
    touches_block,
)
from unialign.diagnostics._row_offsets import RowOffset

# If the bounds of an offset are closer than this fraction of all items, a single row number is reported.
_CLOSE = 0.02
# A cosine above this value is shown as its difference from 1.
_NEARLY_ONE = 0.9999


def _judged(measured: Measurements, *, decidable: bool) -> Pairs:
    """Return the pairs with enough items for a decision, or if not `decidable`, those with too few."""
    pairs = comparable_pairs(measured, unless=is_useless)
    return {pair: stats for pair, stats in pairs.items() if bool(stats.directions) == decidable}


def _and_others(names: tuple[str, ...]) -> str:
    return f"{names[0]} and the other modalities" if len(names) == 1 else join_words(names)


def _copies(measured: Measurements) -> Iterator[Case]:
    for (a, b), pair in measured.pairs.items():
        yield Case(a, b, a=a, b=b, pair=pair, copy=pair.copy,
                   original=b if pair.copy.copy == a else a, compared=_comparison(pair.copy))  # fmt: skip


def _comparison(copy: CopyStats) -> str:
    cosines = f"is {number(copy.cosine)} on average and at least {number(copy.lowest_cosine)}"
    if copy.lowest_cosine > _NEARLY_ONE:
        cosines = f"is 1 - {1 - copy.cosine:.1e} on average and at least 1 - {1 - copy.lowest_cosine:.1e}"
    return (
        f"The cosine of a row and its copy {cosines}. The nearest row is the same for {percent(copy.same_first)} of "
        f"the sampled rows, and {percent(copy.same_ten)} of the nearest {copy.neighbors} rows are the same."
    )


_NO_PAIR = " Pairing, gap and retrieval between them are not judged, since they are not two different modalities."
_SAME = RuleTable(
    _copies,
    (
        Rule("duplicate_modality", "problem", lambda c: c.pair.identical >= limits.DUPLICATE_MODALITY,
             "{a} and {b} have equal rows for {pair.identical:percent} of the items.",
             "One file was given twice or saved under two names; results about this pair are meaningless."),
        Rule("duplicate_modality", "problem", lambda c: c.copy.kind == "same",
             "{a} and {b} have the same direction for {copy.fraction:percent} of the items: their rows differ only by "
             "a factor." + _NO_PAIR,
             "One file was given twice, once normalized or scaled; give only one of the two."),
        Rule("copied_modality", "warning", lambda c: c.copy.kind in ("rounded", "quantized", "binary"),
             "{copy.copy} is {original} with lower precision ({copy.precision}). {compared}" + _NO_PAIR,
             "If the comparison is intended, pass one file with `--against` to see all differences. "
             "Otherwise, give only one of the two files."),
        Rule("copied_modality", "warning", lambda c: c.copy.kind == "recomputed",
             "{a} and {b} are nearly equal: the same embeddings, computed twice (with a different engine, version or "
             "precision). {compared}" + _NO_PAIR,
             "If the comparison is intended, pass one file with `--against` to see all differences. "
             "Otherwise, give only one of the two files."),
        Rule("duplicate_modality", "warning", lambda c: c.copy.fraction >= limits.DUPLICATES,
             "{a} and {b} have the same row, up to scale, for {copy.fraction:percent} of the items.",
             "Find the cause: rows of one modality may have been used to fill missing rows of the other. Mark these "
             "rows as missing with a bool array present.{b} (or present.{a}), since they inflate the agreement of the "
             "two modalities."),
    ),
)  # fmt: skip


def _undecided(measured: Measurements) -> Iterator[Case]:
    judged = _judged(measured, decidable=False)
    few = {pair: stats for pair, stats in judged.items() if stats.items < limits.MIN_DISTINCT_ITEMS}
    if few:
        counts = sorted({stats.items for stats in few.values()})
        have = f"{counts[0]} to {counts[-1]} items" if len(counts) > 1 else count(counts[0], "item")
        yield Case(*names_of(few), kind="few", pairs=pair_list(few), have=have)
    alike = {pair: stats for pair, stats in judged.items() if pair not in few}
    if alike:
        different = min(stats.distinct_items for stats in alike.values())
        yield Case(*names_of(alike), kind="alike", pairs=pair_list(alike), different=different)
    unclear = {pair: stats for pair, stats in _judged(measured, decidable=True).items() if is_unclear(stats)}
    if unclear:
        pair = min(unclear.values(), key=lambda stats: stats.items)
        yield Case(*names_of(unclear), kind="unclear", pairs=pair_list(unclear), pair=pair,
                   auc=next(iter(pair.directions.values())).auc)  # fmt: skip


_UNDECIDABLE = RuleTable(
    _undecided,
    (
        Rule("undecidable", "warning", lambda c: c.kind == "few",
             "Only {have} have both {pairs}. Judging pairing and retrieval requires at least "
             f"{limits.MIN_DISTINCT_ITEMS} items.",
             "Add items, or omit the modality."),
        Rule("undecidable", "warning", lambda c: c.kind == "alike",
             "There are too few distinct items to tell correct from incorrect answers between {pairs}: grouped by id "
             "and equal rows, their effective number is {different:number}, and retrieval requires at least "
             f"{limits.MIN_DISTINCT_ITEMS}.",
             "Inspect the most frequent row and id. If they are correct, give `labels` to compare classes instead."),
        Rule("undecidable", "warning", lambda c: c.kind == "unclear",
             "There are too few items to tell whether rows are paired between {pairs}: a true pair ranks above "
             "{auc:percent_interval} of the random pairs (50 % by chance).",
             "Use at least a few hundred items."),
    ),
)  # fmt: skip


def _offset_cases(measured: Measurements, judged: Pairs) -> Iterator[Case]:
    shifted = {pair: stats for pair, stats in judged.items() if stats.offsets}
    for names, pairs in by_culprit(measured, judged, shifted):
        (a, b), pair = max(pairs.items(), key=lambda item: max(offset.z for offset in item[1].offsets))
        alone = len(names) == 1
        # Row i of `a` matches row i + offset of `b`. Reverse the sign if the text is about `a`.
        sign = -1 if alone and names[0] == a else 1
        subject, other = (names[0], "the other modalities") if alone else (b, a)
        parts = [_offset_text(measured, offset, sign * offset.offset, other) for offset in pair.offsets]
        more = f" Offsets were found among {join_words(names)}." if not alone and len(pairs) > 1 else ""
        yield Case(*names, kind="offset", subject=subject, offsets="; ".join(parts), more=more)


def _offset_text(measured: Measurements, found: RowOffset, offset: int, other: str) -> str:
    def place(rows: tuple[int, int]) -> str:
        low, high = rows
        close = high - low <= max(1, _CLOSE * measured.data.items)
        return f"about row {high:,}" if close else f"somewhere between rows {low:,} and {high:,}"

    where = f" from {place(found.start)}" if found.start else ""
    where += f" up to {place(found.stop)}" if found.stop else " on" if found.start else ""
    return (
        f"by {count(abs(offset), 'row')}{where}: its row i {'+' if offset > 0 else '-'} {abs(offset)} matches row i of "
        f"{other} (cosine {number(found.cosine)}, against {number(found.cosine_unshifted)} for rows at the same "
        "position)"
    )


def _alignment_cases(measured: Measurements, judged: Pairs) -> Iterator[Case]:
    for names, alignment in measured.row_alignment.items():
        own = [stats for pair, stats in judged.items() if set(names) & set(pair)]
        offsets = [offset for stats in own for offset in stats.offsets]
        m = measured.modalities[names[0]]
        yield Case(
            *names,
            kind="alignment",
            subject=_and_others(names),
            alignment=alignment,
            # All rows after an offset are unpaired, so blocks among them are not reported.
            blocks=any(not any(_overlap(block, offset) for offset in offsets) for block in alignment.blocks),
            # If no rows are paired, another rule reports the fault.
            scattered=alignment.random_fraction > 0 and not offsets and not all(is_unpaired(stats) for stats in own),
            rows="Rows" if m.sampled == m.usable else "About the rows",
            listed=join_words(f"{first:,} to {last:,}" for first, last in alignment.blocks),
            fraction=f"{100 * alignment.random_fraction:.0f} %",
        )


def _overlap(block: tuple[int, int], offset: RowOffset) -> bool:
    start = -1 if offset.start is None else offset.start[0]
    return start <= block[1] and (offset.stop is None or block[0] <= offset.stop[1])


def _unpaired_cases(measured: Measurements, judged: Pairs) -> Iterator[Case]:
    bad = {
        pair: stats
        for pair, stats in judged.items()
        if is_unpaired(stats) and not is_unclear(stats) and not stats.offsets and not touches_block(measured, pair)
    }
    for names, pairs in by_culprit(measured, judged, bad):
        structure = [(stats.cka, stats.cka_p) for stats in pairs.values() if math.isfinite(stats.cka)]
        shared = [cka for cka, p in structure if p <= limits.MAX_CKA_P]
        groups = _matching_groups(names, pairs)
        cka = f"{number(min(shared))} to {number(max(shared))}" if len(shared) > 1 else ""
        yield Case(
            *names,
            kind="unpaired",
            subject=_and_others(names),
            true=float(np.mean([stats.true_pair_cosine.mean for stats in pairs.values()])),
            random=float(np.mean([stats.random_pair_cosine for stats in pairs.values()])),
            auc=float(np.mean([stats.auc for stats in pairs.values()])),
            negatives=min(stats.items for stats in pairs.values()) - 1,
            groups=f" These match each other: {join_words(groups)}." if groups else "",
            same_structure=len(shared) * 2 > len(structure),
            turned=len(shared) == len(structure) and min(shared, default=0.0) >= limits.ROTATED_CKA,
            cka=cka or (number(shared[0]) if shared else ""),
        )


def _matching_groups(names: tuple[str, ...], bad: Pairs) -> list[str]:
    """Return groups of modalities that match each other, without bad pairs."""
    if len(names) < 3:
        return []
    matches = {name: tuple(m for m in names if m == name or not {(m, name), (name, m)} & set(bad)) for name in names}
    return [" with ".join(group) for group in dict.fromkeys(matches.values()) if len(group) > 1]


def _wrong_rows(measured: Measurements) -> Iterator[Case]:
    judged = _judged(measured, decidable=True)
    yield from _offset_cases(measured, judged)
    yield from _alignment_cases(measured, judged)
    yield from _unpaired_cases(measured, judged)


def _least_paired(measured: Measurements) -> Iterator[Case]:
    judged = [stats for stats in _judged(measured, decidable=True).values() if not is_unclear(stats)]
    if judged:
        yield Case(pair=min(judged, key=lambda stats: stats.auc))


_UNPAIRED_TEXT = (
    "True pairs of {subject} are hardly more similar than random pairs: cosine {true:number} against {random:number}, "
    "and a true pair ranks above {auc:percent} of the {negatives:,} sampled alternatives (50 % by chance).{groups}"
)
_WRONG_ROWS = RuleTable(
    _wrong_rows,
    (
        Rule("row_offset", "problem", lambda c: c.kind == "offset",
             "{subject} is shifted {offsets}.{more}",
             "A row was lost, repeated or inserted there in one of the files. Inspect that row, and rewrite the files "
             "with `ids` so that the pairing is checked."),
        Rule("misaligned_block", "problem", lambda c: c.kind == "alignment" and c.blocks,
             "{rows} {listed} of {subject} are not paired: true pairs have a mean cosine of "
             "{alignment.cosine_inside:number} there and {alignment.cosine_outside:number} elsewhere.",
             "These rows were probably written in a different order or belong to other items (a misplaced shard, a "
             "part that was embedded again). Rewrite them, and store `ids` in each file so that the pairing is "
             "checked."),
        Rule("random_pairs", lambda c: "problem" if c.alignment.random_fraction >= limits.MANY_RANDOM else "warning",
             lambda c: c.kind == "alignment" and c.scattered,
             "About {fraction} of the items have a random counterpart: their rows of {subject} are no more similar "
             "than random pairs, while all other items are clearly paired.",
             "Check the items whose rows are least similar for wrong counterparts (swapped rows, a join on a "
             "non-unique key) and broken inputs. Store `ids` in each file so that the pairing is checked."),
        Rule("not_aligned", "problem", lambda c: c.kind == "unpaired" and c.turned,
             _UNPAIRED_TEXT + " All distances between items are the same in the modalities (CKA {cka}), so one is a "
             "rotated or mirrored copy of the other, or has its columns in a different order.",
             "Give the columns the same order and signs, or fit an orthogonal map on a few hundred true pairs."),
        Rule("not_aligned", "problem", lambda c: c.kind == "unpaired" and c.same_structure,
             _UNPAIRED_TEXT + " The rows are paired, though: the items have similar neighbors in the modalities (CKA "
             "{cka}, p < 0.01), but not the same coordinates.",
             "These are features of separate encoders, or one modality was rotated or trained separately: train heads "
             "that align them (`unialign train`), or fit an orthogonal map on a few hundred true pairs."),
        Rule("not_paired", "problem", lambda c: c.kind == "unpaired",
             _UNPAIRED_TEXT + " The items do not have similar neighbors either, so there is no evidence that row i is "
             "the same item in all of them.",
             "The rows are probably in a different order (a shuffled loader, a sorted list of files, a missing row). "
             "Sort all files by an id, and store `ids` in each file so that the pairing is checked."),
    ),
    otherwise=(
        _least_paired,
        Rule("pairing", "ok", always,
             "Rows are paired: a true pair ranks above at least {pair.auc:percent} of the random pairs (50 % by "
             "chance); cosine {pair.true_pair_cosine.mean:number} against {pair.random_pair_cosine:number}."),
    ),
)  # fmt: skip

PAIRING_TABLES = (_SAME, _WRONG_ROWS, _UNDECIDABLE)
