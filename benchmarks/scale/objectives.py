"""Every objective as a list of parts, with the arrays that it keeps and the moments with the most memory.

Shapes: as in `parts`; `Q` pairs of modalities.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from benchmarks.scale.parts import (
    DOUBLE,
    FLOAT,
    SIDE,
    Part,
    Setting,
    between,
    contrast,
    density,
    features,
    median,
    sigmoid,
    singular,
    total,
    tuples,
    volumes,
    weighted,
    weighted_sigmoid,
    within,
)

__all__ = ["OBJECTIVES", "Moment", "Objective"]

# As in `unialign.ops`: entries of a tile of whole rows and its smallest number of rows on a CPU, and side of the tiles
# of weighted sums on a GPU.
ROW_TILE, TILE_ROWS, SIDE_GPU = 2**20, 64, 4096

# Arrays at a time: rows of all modalities and processes, of one modality and all processes, of all modalities and this
# process, of one modality and this process; and bytes of tiles.
Moment = tuple[float, float, float, float, float]


class Objective(NamedTuple):
    """How an objective is created, and its costs.

    Attributes:
        label: name in tables.
        create: name and options of `unialign.losses.create`; the anchor is `m0`.
        parts: the parts of a setting.
        rows: number of (B, D) float32 arrays that are kept besides the rows of all modalities.
        small: bytes per item that are kept besides those of the parts.
        peak: the moments with the most memory.
        weights: whether calls need features that weight the negatives.
    """

    label: str
    create: tuple[str, dict[str, Any]]
    parts: Callable[[Setting], list[Part]]
    rows: Callable[[Setting], float]
    small: Callable[[Setting], float]
    peak: Callable[[Setting], list[Moment]]
    weights: bool = False


def _row_tiles(s: Setting, more: int = 0) -> float:
    """A tile and its weights, while the next tile is computed; `more` temporaries. Triton keeps tiles on the chip."""
    if s.device == "gpu":
        return 0
    rows = min(s.own, max(TILE_ROWS, ROW_TILE // s.items))
    return FLOAT * s.items * ((2 + more) * rows + min(rows, s.own - rows))


def _square_tiles(s: Setting, number: int) -> float:
    """Tiles of the pairs of own and all rows."""
    return FLOAT * number * min(SIDE, s.own) * min(SIDE, s.items)


def _buffers(s: Setting, number: int) -> float:
    """Buffers and temporaries for square tiles of all rows."""
    return FLOAT * number * min(SIDE, s.items) ** 2


def _symmetric_tiles(s: Setting) -> float:
    return 0 if s.device == "gpu" else _buffers(s, 2)


def _weighted_tiles(s: Setting) -> float:
    """Buffers of logits, of a spare tile and of the weights of each modality; features of own items, negated."""
    side = min(SIDE_GPU if s.device == "gpu" else SIDE, s.items)
    features = s.modalities * (s.width > 0)
    return FLOAT * ((2 + features) * side**2 + s.modalities * s.width * s.own)


def _aligned(s: Setting) -> int:
    """Arrays kept by the alignment of all pairs: differences from the mean, or of the only pair."""
    return s.modalities if s.modalities > 2 else 1


def _alignment_small(s: Setting) -> float:
    return FLOAT


def _zero(s: Setting) -> float:
    return 0


def _in_contrasts(s: Setting) -> int:
    """Gradients of modalities while the last contrast of all pairs is differentiated."""
    return s.modalities + 1 if s.modalities > 2 else 1


def _unialign(kind: Literal["all", "anchor", "centroid", "mix"]) -> Objective:
    options: dict[str, Any] = {"preset": "balanced", "anchor": "m0" if kind == "anchor" else kind}
    if kind == "mix":
        options |= {"anchor": "all", "partition_mix": 0.25}

    def parts(s: Setting) -> list[Part]:
        cross = [contrast(s)] * s.pairs if kind == "mix" else []
        return [within(s)] * s.modalities + cross

    def rows(s: Setting) -> float:
        return {"anchor": s.modalities - 1, "centroid": s.modalities + 1}.get(kind, _aligned(s))

    def peak(s: Setting) -> list[Moment]:
        if kind == "centroid":
            return [(5, 1, 2, 0, 0)]
        # The alignment keeps the gradient of all rows if it has the closed form, else those of single modalities.
        closed = kind != "anchor" and s.modalities > 2
        own = (2, s.modalities) if closed else (1, s.modalities + 1)
        moments: list[Moment] = [(*own, 2, 2, _symmetric_tiles(s))]
        if kind == "mix":
            moments.append((own[0], s.modalities + 1, 2, 3, _row_tiles(s)))
        return moments if closed else [*moments, (1, 4 * (s.modalities - 1), 2, 0, 0)]

    label = {"all": "UniAlign, `all`", "anchor": "UniAlign, anchor", "centroid": "UniAlign, `centroid`"}
    name = label.get(kind, "UniAlign, `all`, `partition_mix` 0.25")
    return Objective(name, ("unialign", options), parts, rows, _alignment_small, peak)


def _infonce(anchor: str, *, learnable: bool = False) -> Objective:
    options = {"anchor": "m0" if anchor == "anchor" else anchor}
    if learnable:
        options["temperature_mode"] = "learnable"

    def number(s: Setting) -> int:
        return s.pairs if anchor == "all" else s.modalities - 1

    def peak(s: Setting) -> list[Moment]:
        gradients = _in_contrasts(s) - (anchor == "anchor" and s.modalities > 2)
        return [(1, gradients, 2, 3, _row_tiles(s)), (3 if s.modalities == 2 else 0, 0, 2, 0, 0)]

    label = f"InfoNCE, {'`all`' if anchor == 'all' else 'anchor'}" + (", tau learned" if learnable else "")
    return Objective(
        label,
        ("infonce", options),
        lambda s: [contrast(s, learnable=learnable)] * number(s),
        _zero,
        _zero,
        peak,
    )


def _gram_small(s: Setting) -> float:
    """Gram matrices, factors of the tuples and sums, in float64."""
    others = s.modalities - 1
    return 16 * s.modalities**2 + 53 + (8 * others**2 if others > 1 else 0)


def _gram_rows(s: Setting) -> float:
    """Orthonormal bases; a single other modality is its own basis."""
    return s.modalities - 1 if s.modalities > 2 else 0


def _gram_peak(s: Setting) -> list[Moment]:
    others = s.modalities - 1
    tiles = (1, _gram_rows(s) + s.modalities, 2, 0, _buffers(s, 7 + others))
    return [tiles, (2, 7 * others + s.modalities, 2, 0, 0) if others > 1 else (7, 0, 2, 0, 0)]


def _symile_rows(s: Setting) -> float:
    m = s.modalities
    return m * (2 * m - 3) + m - 2 if m > 2 else m


def _cua(cross: bool) -> Objective:
    def parts(s: Setting) -> list[Part]:
        pairs = ([between(s)] if cross else []) * s.pairs
        return [total(s)] * s.modalities + pairs + [contrast(s)] * s.pairs

    options: dict[str, Any] = {"anchor": "all"} | ({"cross_term": "xu"} if cross else {})
    return Objective(
        "CUAXU" if cross else "CUA",
        ("cua", options),
        parts,
        lambda s: s.modalities + _aligned(s),
        _alignment_small,
        # With the temperature 0.01, exponentials need a shift, and so another tile.
        lambda s: [
            (1, _aligned(s) + s.modalities + _in_contrasts(s), 2, 3, _row_tiles(s, 1)),
            (5 if s.modalities == 2 else 0, 0, 2, 0, 0),
        ],
    )


def _decoupled(preset: str) -> Objective:
    share = preset == "retrieval"

    def sums(s: Setting) -> int:
        return 2 * s.pairs + (s.modalities if share else 0)

    def peak(s: Setting) -> list[Moment]:
        repulsion = (3, 0, 4, 0, _weighted_tiles(s) + 3 * DOUBLE * sums(s) * s.items)
        return [repulsion, (5, max(3, s.modalities), 2, 0, 0)] if share else [repulsion]

    return Objective(
        f"UniAlign, `{preset}`",
        ("unialign", {"preset": preset}),
        lambda s: [weighted(s, modalities=s.modalities if share else 0, pairs=s.pairs)],
        lambda s: 2 * s.modalities if share else _aligned(s),
        lambda s: FLOAT * (s.modalities + 1),
        peak,
        weights=preset != "small_batch",
    )


OBJECTIVES: dict[str, Objective] = {
    "unialign-all": _unialign("all"),
    "unialign-anchor": _unialign("anchor"),
    "unialign-centroid": _unialign("centroid"),
    "unialign-mix": _unialign("mix"),
    "small_batch": _decoupled("small_batch"),
    "joint_queries": _decoupled("joint_queries"),
    "retrieval": _decoupled("retrieval"),
    "infonce-all": _infonce("all"),
    "infonce-learned": _infonce("all", learnable=True),
    "infonce-anchor": _infonce("anchor"),
    "infonce-weighted": Objective(
        "InfoNCE, `all`, weighted",
        ("infonce", {"anchor": "all", "similarity_scale": 5.0}),
        lambda s: [weighted(s, modalities=0, pairs=s.pairs)],
        _zero,
        lambda s: 10 * s.pairs,
        lambda s: [(3, 0, 4, 0, _weighted_tiles(s) + 3 * DOUBLE * 2 * s.pairs * s.items)],
        weights=True,
    ),
    "sigmoid": Objective(
        "Sigmoid, `all`",
        ("sigmoid", {"anchor": "all"}),
        lambda s: [sigmoid(s)] * s.pairs,
        lambda s: 2 * s.pairs,
        _zero,
        lambda s: [(1, 2 * s.pairs + 2 + (s.pairs > 1), 2, 0, 0), (1, 2 * s.pairs - 2, 2, 3, _square_tiles(s, 4))],
    ),
    "sigmoid-weighted": Objective(
        "Sigmoid, `all`, weighted",
        ("sigmoid", {"anchor": "all", "similarity_scale": 5.0}),
        lambda s: [features(s), *[weighted_sigmoid(s)] * s.pairs],
        lambda s: 2 * s.pairs,
        _zero,
        lambda s: [
            (1, 2 * s.pairs + 2 + (s.pairs > 1), 2, 0, 0),
            (1, 2 * s.pairs - 2, 2, 3, _square_tiles(s, 6) + 2 * FLOAT * s.modalities * s.width * s.items),
        ],
        weights=True,
    ),
    "gram": Objective(
        "GRAM",
        ("gram", {"anchor": "m0"}),
        lambda s: [tuples(s, s.modalities - 1), volumes(s)],
        _gram_rows,
        _gram_small,
        _gram_peak,
    ),
    "triangle": Objective(
        "Triangle (M = 3)",
        ("triangle", {"anchor": "m0"}),
        lambda s: [tuples(s, 2)],
        lambda s: 8,
        lambda s: 78,
        lambda s: [(0, 17, 2, 0, 0), (1, 11, 2, 0, _buffers(s, 8))],
    ),
    "symile": Objective(
        "Symile, sampled",
        ("symile", {}),
        lambda s: [tuples(s, s.modalities)],
        _symile_rows,
        lambda s: 16 * s.modalities**2 + 12,
        lambda s: [(1, _symile_rows(s) + max(5, 3 * s.modalities - 2), 2, 0, 0), (3, 2, 2, 0, _buffers(s, 2))],
    ),
    "pmrl": Objective(
        "PMRL",
        ("pmrl", {}),
        lambda s: [within(s), singular(s)],
        lambda s: 1,
        lambda s: 8 * s.modalities**2 + 24 * s.modalities,
        lambda s: [(8, 3, 2, 0, 0)],
    ),
    "cs_aligner": Objective(
        "CS-Aligner",
        ("cs_aligner", {"anchor": "all"}),
        lambda s: [contrast(s)] * s.pairs + [density(s), density(s), between(s)] * s.pairs + [median(s)],
        lambda s: s.modalities,
        lambda s: 20 * s.pairs,
        lambda s: [(1, 2 * s.modalities, 2, 2, _row_tiles(s))],
    ),
    "modgap": Objective(
        "ModGap, `all`",
        ("modgap", {"anchor": "all"}),
        lambda s: [total(s)] + [contrast(s)] * s.pairs,
        lambda s: _aligned(s) + 3,
        lambda s: 9,
        lambda s: [
            (1, _aligned(s) + 3 + _in_contrasts(s), 2, 3, _row_tiles(s)),
            (5, 0, 2, 0, 0),
        ],
    ),
    "cua": _cua(cross=False),
    "cuaxu": _cua(cross=True),
    "align_uniform": Objective(
        "Align+Uniform",
        ("align_uniform", {"anchor": "all"}),
        lambda s: [total(s)] * s.modalities,
        lambda s: s.modalities + _aligned(s),
        _alignment_small,
        lambda s: [
            (4 if s.modalities > 2 else 0, 0, 2, 0, 0),
            (1, s.modalities + _aligned(s), 2, 2, _symmetric_tiles(s)),
        ],
    ),
}
