"""Write the results of an inspection as text."""

from collections.abc import Mapping
from typing import Any

from unialign._plain_text import count, join_words, table_lines

_COMBINATIONS = 12


def summary(results: Mapping[str, Any]) -> str:
    data, groups, split = results["data"], results["groups"], results["split"]
    lines = [f"{data['name']}: {count(data['items'], 'item')}, license {data['license']}", ""]
    lines += table_lines(_HEAD, [_modality_row(name, found) for name, found in results["modalities"].items()])
    lines += ["", "Items by the modalities they have:"]
    shown = results["combinations"][:_COMBINATIONS]
    lines += [f"  {row['items']:>9,}  {', '.join(row['modalities']) or 'none'}" for row in shown]
    if len(results["combinations"]) > len(shown):
        lines.append(f"  and {count(len(results['combinations']) - len(shown), 'other combination')}")
    lines += ["", _duplicate_line(results)]
    lines += [_common_line(name, found) for name, found in results["common_texts"].items() if found["texts"]]
    cause = "" if groups["largest_by"] is None else f", mostly joined by equal values of {groups['largest_by']!r}"
    lines.append(
        f"Groups of duplicates: {groups['count']:,} for {count(data['items'], 'item')}; the largest has "
        f"{count(groups['largest'], 'item')}{cause}"
    )
    parts = join_words(f"{number:,} {name}" for name, number in split["items"].items())
    lines.append(f"Split: {parts} ({'given' if split['given'] else 'suggested, by group'})")
    if groups["crossing"]:
        lines.append(
            f"{count(groups['crossing'], 'group')} with items in more than one part of the split, so test scores will "
            f"be too high: {', '.join(groups['examples'])}"
        )
    if results["labels"]["classes"]:
        largest = ", ".join(f"{name} {number:,}" for name, number in results["labels"]["largest"].items())
        lines.append(f"Labels: {count(results['labels']['classes'], 'class', 'classes')} ({largest}, ...)")
    lines += [f"Note: {note}" for note in data["notes"]]
    return "\n".join(lines)


_HEAD = ("modality", "kind", "items", "MB", "size: smallest, median, largest", "broken", "silent or blank")


def _modality_row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = found["quartiles"]
    size = "" if sizes is None else f"{_plain(sizes[0])}, {_plain(sizes[2])}, {_plain(sizes[4])} {found['unit']}"
    broken = ", ".join(f"{number} {code}" for code, number in found["broken"].items()) or "0"
    return (
        name,
        found["kind"],
        f"{found['present']:,}",
        f"{found['bytes'] / 1e6:,.1f}",
        size,
        broken,
        f"{found['silent'] + found['blank']:,}",
    )


def _duplicate_line(results: Mapping[str, Any]) -> str:
    found = results["duplicates"]
    parts = [f"{values['items']:,} in {name}" for name, values in found.items()]
    hint = "" if results["hashed"] else " (files are compared with --hash)"
    return f"Items with the same content as another item: {', '.join(parts) or 'not compared'}{hint}"


def _common_line(name: str, found: Mapping[str, Any]) -> str:
    return (
        f"{count(found['texts'], 'text')} of {name!r}, each of more than 5 % of the items, not used for groups: "
        f"{count(found['items'], 'item')}, such as {', '.join(found['examples'])}"
    )


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
