"""Write the tables of the page "Speed and memory"."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.speed.cases import DIM, OBJECTIVE_DIM, OBJECTIVE_MODALITIES, OBJECTIVE_SIZES, SIZES, growth
from benchmarks.speed.implementations import IMPLEMENTATIONS
from benchmarks.speed.peers import COMPARISONS, PEER_SIZES, why_slower
from benchmarks.speed.requirements import judge
from research.pages import Section, Table, markdown_page, replace_blocks

__all__ = ["page", "sections"]

TITLE = "Speed and memory"
GROUPS = {
    "uniformity/outer_log": ("outer-log", "Uniformity, log of the mean"),
    "uniformity/mean_log": ("mean-log", "Uniformity, mean of row logs"),
    "alignment and uniformity": ("alignment-and-uniformity", "Alignment and uniformity"),
    "infonce": ("infonce", "InfoNCE, two modalities"),
    "nt-xent": ("nt-xent", "NT-Xent, another loss"),
    "sigmoid": ("sigmoid", "Sigmoid, two modalities"),
}
DRAWN = ("symile",)
Row = Mapping[str, Any]
NOTHING = "–"


def page(results: Mapping[str, Any], retrieval: Mapping[str, Any], there: str | None) -> str:
    made = sections(results, retrieval)
    return markdown_page(TITLE, made) if there is None else replace_blocks(there, made, name="speed.md")


def sections(results: Mapping[str, Any], retrieval: Mapping[str, Any]) -> list[Section]:
    return [
        Section("machine", "Machine and protocol", [_machine(results), *_notes(results)]),
        Section("summary", "In short", [_summary(results)]),
        Section("peers", "Side by side with other libraries", list(_peers(results))),
        Section("requirements", "Requirements", [_requirements(results)]),
        *(_formula(results, group, key, title) for group, (key, title) in GROUPS.items()),
        Section("objectives", "Whole objectives", list(_objectives(results))),
        Section("retrieval", "Retrieval", list(_retrieval(retrieval))),
        Section("gpu", "GPU", [_gpu(results["gpu"])]),
    ]


def _summary(results: Mapping[str, Any]) -> Table:
    def cell(group: str, modalities: int, size: int, name: str = "unialign") -> str:
        row = results["cases"].get(f"{group}/{name}/{modalities}/{size}")
        if row is None or row["status"] != "measured":
            return NOTHING
        return f"{_short(row['cpu_seconds']['best'])} s, {_mb(row['memory']['peak'])} MB"

    rows = [
        (
            f"{size:,}",
            cell("uniformity/mean_log", 1, size),
            cell("infonce", 2, size),
            cell("objectives", 3, size),
            cell("infonce", 2, size, "torch"),
        )
        for size in SIZES
    ]
    return Table(
        ("B", "uniformity", "InfoNCE, M = 2", "UniAlign, M = 3", "InfoNCE in plain torch"),
        rows,
        f"Time of forward and backward on one thread; memory without process and libraries, with inputs. D = {DIM} "
        f"(UniAlign: D = {OBJECTIVE_DIM}).",
    )


def _peers(results: Mapping[str, Any]) -> Iterable[str | Table]:
    found = results.get("peers", {})
    if not found:
        yield "Not measured yet."
        return

    def cell(key: str, size: int) -> str:
        row = found.get(f"{key}/{size}")
        return _or_why(row, lambda r: f"{r['ratio']:.2f} ({_short(1000 * r['cpu_seconds']['ours'])} ms)")

    rows = [(c.key, c.peer, c.what, *(cell(c.key, size) for size in PEER_SIZES)) for c in COMPARISONS]
    loads = [row["load"] for row in found.values() if row["status"] == "measured"]
    yield Table(
        ("loss", "peer", "settings", *(f"B = {size:,}" for size in PEER_SIZES)),
        rows,
        f"Our processor time divided by that of the peer (our time), forward and backward. M = 2 and D = {DIM} unless "
        f"stated. {_processor(results['environment_of_peers'])}; load of the machine: {min(loads):.1f} to "
        f"{max(loads):.1f}, of which this benchmark causes 1.",
    )
    slower = [
        f"- {key.replace('/', ', B = ')}: {why_slower(row['items'])}"
        for key, row in found.items()
        if row["status"] == "measured" and row["ratio"] > 1
    ]
    if slower:
        yield "Ratios above 1, and their causes:"
        yield "\n".join(slower)


def _machine(results: Mapping[str, Any]) -> str | Table:
    facts = results["environment"]
    if facts is None:
        return "Not measured yet."
    packages = ", ".join(f"{name} {number or 'not installed'}" for name, number in facts["packages"].items())
    limits = results["protocol"]["limits"]
    rows = [
        ("processor", _processor(facts)),
        ("memory", f"{facts['memory_gb']} GB"),
        ("threads", str(facts["threads"])),
        ("software", f"Python {facts['python']}, torch {facts['torch']}, unialign {facts['unialign']}"),
        ("baselines", packages),
        ("date", facts["date"]),
        (
            "limits of a case",
            f"{limits['gigabytes']:g} GB; {limits['seconds']:g} s a step for baselines, {limits['our_seconds']:g} s "
            f"for ours, {limits['objective_seconds']:g} s for whole objectives",
        ),
    ]
    return Table(("what", "value"), rows)


def _processor(facts: Mapping[str, Any]) -> str:
    return f"{facts['processor']}, {facts['cores']} cores, {facts['capability']}"


def _notes(results: Mapping[str, Any]) -> list[str]:
    rows = list(results["cases"].values())
    notes = []
    if len({row["source"] for row in rows}) > 1:
        notes.append("The cases were measured with different versions of the code.")
    if len({row["threads"] for row in rows}) > 1:
        notes.append("The cases were measured with different numbers of threads.")
    loads = [row["load"] for row in rows if row["status"] == "measured"]
    if loads:
        notes.append(
            f"The load average of the machine was {min(loads):.1f} to {max(loads):.1f}; this benchmark itself accounts "
            "for about 1."
        )
    return notes


def _requirements(results: Mapping[str, Any]) -> Table:
    return Table(("requirement", "state", "found"), [(v.requirement, v.state, v.found) for v in judge(results)])


def _formula(results: Mapping[str, Any], group: str, key: str, title: str) -> Section:
    own = [c for c in IMPLEMENTATIONS if c.loss == group]
    found = {
        (c.name, size): results["cases"].get(f"{group}/{c.name}/{c.modalities}/{size}") for c in own for size in SIZES
    }
    head = ("", *(f"B = {size:,}" for size in SIZES))

    def table(cell: Any, note: str) -> Table:
        return Table(head, [(c.name, *(cell(found[c.name, size]) for size in SIZES)) for c in own], note)

    growing = []
    for c in own:
        measured = [(size, row) for size in SIZES if (row := found[c.name, size]) and row["status"] == "measured"]
        growing.append((c.name, *(_exponent(measured, column) for column in ("time", "memory", "kept"))))
    compiling = [
        f"B = {size:,}: {row['first_step_seconds']['wall']:.0f} s"
        for c in own
        if c.compiled
        for size in SIZES
        if (row := found[c.name, size]) and row["status"] == "measured"
    ]
    parts: list[str | Table] = [
        "\n".join(f"- **{c.name}**: {c.what}" for c in own),
        table(_seconds, "Processor seconds of a forward and a backward pass, best of the repetitions (median)."),
        table(_memory, "Peak resident memory above the baseline in MB, `ru_maxrss` (sampled during the steps)."),
        table(_kept, "MB that autograd keeps for the backward pass, inputs included."),
        table(_error, "Relative error against float64: value, gradient (norm of the difference)."),
        Table(("growth with B", "time", "memory", "kept"), growing, "Fitted exponents, B from 1,024 on."),
    ]
    if compiling:
        parts.append(f"Wall time of the first call of compiled code, not counted above: {', '.join(compiling)}.")
    return Section(key, title, parts)


def _seconds(row: Row | None) -> str:
    return _or_why(row, lambda r: f"{_short(r['cpu_seconds']['best'])} ({_short(r['cpu_seconds']['median'])})")


def _memory(row: Row | None) -> str:
    return _or_why(row, lambda r: f"{_mb(r['memory']['peak'])} ({_mb(r['memory']['sampled_peak'])})")


def _kept(row: Row | None) -> str:
    return _or_why(row, lambda r: NOTHING if r["bytes_kept"] is None else _mb(r["bytes_kept"]))


def _error(row: Row | None) -> str:
    def text(measured: Row) -> str:
        error = measured.get("error")
        return NOTHING if error is None else f"{error['value']:.0e}, {error['gradient']:.0e}"

    return _or_why(row, text)


def _or_why(row: Row | None, text: Any) -> str:
    if row is None:
        return NOTHING
    return str(text(row)) if row["status"] == "measured" else f"{row['status']}: {row['reason']}"


def _mb(number: float) -> str:
    return f"{number / 10**6:,.0f}"


def _short(seconds: float) -> str:
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


def _exponent(measured: Iterable[tuple[int, Row]], column: str, *, least: int = 1024) -> str:
    """Use 1,024 items or more; below, constant costs hide the growth."""

    def number(row: Row) -> float:
        if column == "time":
            return float(row["cpu_seconds"]["best"])
        return float(row["memory"]["peak"] if column == "memory" else row["bytes_kept"] or 0)

    found = growth([(x, number(row)) for x, row in measured if x >= least])
    return NOTHING if found is None else f"{found:.2f}"


def _objectives(results: Mapping[str, Any]) -> Iterable[str | Table]:
    rows = [row for row in results["cases"].values() if row["group"] == "objectives"]
    names = list(dict.fromkeys(row["name"] for row in rows))
    yield (
        "Each objective with its defaults (first modality as anchor, where it has one), called with the rows of all "
        "modalities, D = 256, forward and backward."
    )
    found = {(row["name"], row["modalities"], row["items"]): row for row in rows}
    head = ("objective", "M", *(f"B = {size:,}" for size in OBJECTIVE_SIZES), "growth with B")
    for column, cell, note in (
        ("time", _seconds, "Processor seconds, best (median)."),
        ("memory", _memory, "Peak resident memory above the baseline in MB, `ru_maxrss` (sampled)."),
        ("kept", _kept, "MB that autograd keeps for the backward pass, inputs included."),
    ):
        lines = []
        for name in names:
            for m in OBJECTIVE_MODALITIES:
                sized = [(size, found.get((name, m, size))) for size in OBJECTIVE_SIZES]
                if not any(row for _, row in sized):
                    continue
                measured = [(size, row) for size, row in sized if row and row["status"] == "measured"]
                lines.append((name, str(m), *(cell(row) for _, row in sized), _exponent(measured, column)))
        yield Table(head, lines, note + " The exponent of the growth with B is fitted to B of at least 1,024.")
    growing = []
    for name in names:
        sizes = [s for s in OBJECTIVE_SIZES if len(_over_modalities(found, name, s)) >= 3]
        if sizes:
            measured = _over_modalities(found, name, sizes[-1])
            exponents = [_exponent(measured, column, least=1) for column in ("time", "memory", "kept")]
            growing.append((name, f"{sizes[-1]:,}", *exponents))
    yield Table(
        ("growth with M", "B", "time", "memory", "kept"),
        growing,
        "Exponents are fitted over M, at the largest B measured for three values of M or more.",
    )
    doubled = [row for row in rows if "error" in row and row["name"] not in DRAWN]
    if doubled:
        value, gradient = (max(row["error"][part] for row in doubled) for part in ("value", "gradient"))
        yield (
            f"Float32 against float64 of the same code at B = 256: values within {value:.0e}, gradients within "
            f"{gradient:.0e}. Not counted: {' and '.join(DRAWN)}, which draws other negatives at every call."
        )


def _over_modalities(found: Mapping[tuple[str, int, int], Row], name: str, size: int) -> list[tuple[int, Row]]:
    rows = [(m, found.get((name, m, size))) for m in OBJECTIVE_MODALITIES]
    return [(m, row) for m, row in rows if row is not None and row["status"] == "measured"]


def _retrieval(facts: Mapping[str, Any]) -> Iterable[str | Table]:
    environment, found = facts["environment"], facts["results"]
    names = {
        "ranks": "unialign, ranks of all queries (`retrieval`)",
        "knn": "unialign, `metrics.knn`",
        "faiss": "faiss, `IndexFlatIP`",
    }
    rounds = len(facts["contestants"]["ranks"]["rounds"])
    rows = [
        (
            name,
            _short(facts["contestants"][key]["cpu_seconds"]),
            "1" if key == "faiss" else f"{facts['times_of_faiss'][key]['cpu_seconds']:.2f}",
            _mb(facts["contestants"][key]["peak_bytes"]),
        )
        for key, name in names.items()
    ]
    yield Table(
        ("implementation", "processor seconds", "times of faiss", "peak MB above the rows"),
        rows,
        f"{facts['queries']:,} queries among {facts['gallery']:,} rows of dim {facts['dim']}, "
        f"{facts['neighbors']} neighbors, {environment['threads']} thread; best of {rounds} alternating rounds; "
        f"faiss-cpu {environment['faiss-cpu']}, torch {environment['torch']}.",
    )
    yield (
        f"Of {found['places']:,} places {found['places_with_another_row']} hold another row than with faiss, and "
        f"{found['of_those_wrong']} of {found['ranks_checked_in_float64']} ranks differ from float64. Required: at "
        f"most {facts['required_at_most']:g} times the time of faiss: {'met' if facts['met'] else 'not met'}."
    )
    small = facts["torchmetrics"]
    yield (
        f"Reciprocal ranks of {small['queries']:,} queries among {small['gallery']:,} rows: torchmetrics "
        f"{environment['torchmetrics']} takes {small['ratio']:.0f} times as long; the results differ by "
        f"{small['difference_of_mrr']:.0e}."
    )


def _gpu(facts: Mapping[str, Any]) -> str | Table:
    if facts["status"] != "measured":
        return f"Open: {facts['reason']}."
    rows: list[Sequence[str]] = [
        (
            row["what"],
            f"{row['items']:,}",
            row["dtype"],
            *(
                (NOTHING, NOTHING, NOTHING, row["reason"])
                if row["status"] != "measured"
                else (
                    f"{1e3 * row['seconds']:.2f}",
                    f"{100 * row['matmul_fraction']:.0f} %",
                    f"{100 * row['copy_fraction']:.1f} %",
                    _mb(row["peak"]),
                )
            ),
        )
        for row in facts["rows"]
    ]
    return Table(
        ("what", "B", "rows", "ms", "of the matmul rate", "of the copy bandwidth", "peak MB"),
        rows,
        f"{facts['device']}: {facts['matmul_tflops']:.0f} TFLOP/s in bf16 products and {facts['copy_gbs']:.0f} GB/s in "
        "copies, both measured. The work is that of the closed form: 4 B^2 D for uniformity, 8 B^2 D for "
        "InfoNCE.",
    )
