import math

import numpy as np
import pytest
import torch

from unialign.metrics import retrieval_from_scores
from unialign.report._curves import panels, switches
from unialign.report._folder import LogLine, TestRows as Rows
from unialign.report._gallery import best_rank, directions
from unialign.report._heatmap import JOINT, mean_directions
from unialign.report._model import Run
from unialign.report._projection import pca_map, spread
from unialign.report._svg import COLORS, SHAPES, num, polyline, shape, tag, ticks


def test_svg_escapes_and_rounds():
    assert tag("text", "<b>", class_="a", stroke_width=1.005) == '<text class="a" stroke-width="1">&lt;b&gt;</text>'
    assert tag("g", x=None) == "<g/>"
    assert tag("g", title='"><script>') == '<g title="&#34;&gt;&lt;script&gt;"/>'
    assert [num(v) for v in (-0.001, 2.0, 1.25)] == ["0", "2", "1.25"]


def test_a_line_is_interrupted_at_missing_points():
    assert polyline([(0, 0), (1, 1), (2, math.nan), (3, 3)]) == "M0 0L1 1M3 3"


def test_modalities_differ_in_shape_and_color_together():
    assert len({(shape(i, 0, 0, 5), i % COLORS) for i in range(24)}) == 24
    assert len({shape(i, 0, 0, 5) for i in range(SHAPES)}) == SHAPES


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-12.5, 3), (0.001, 0.0013), (0, 987_654)])
def test_ticks_are_few_and_inside(low, high):
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 6
    assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in marks)


def test_spread_takes_the_middle_of_equal_parts():
    assert spread(40, 8) == [2, 7, 12, 17, 22, 27, 32, 37]
    assert spread(3, 8) == [0, 1, 2]
    assert spread(0, 8) == []


def test_projection_is_the_pca_of_all_rows_together():
    rng = np.random.default_rng(0)
    space = Rows({name: rng.normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1] for name in "ab"})
    found = pca_map(space)
    rows = np.concatenate([space.z["a"], space.z["b"]])
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    assert found.explained == pytest.approx(values[:2] / values.sum())
    both = np.concatenate([found.points["a"], found.points["b"]])
    assert (both**2).sum(axis=0) == pytest.approx(values[:2])


def test_projections_have_the_orientation_of_the_first():
    rng = np.random.default_rng(0)
    space = Rows({name: rng.normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1] for name in "ab"})
    turned = Rows({name: -z for name, z in space.z.items()})
    first = pca_map(space)
    second = pca_map(turned, like=first)
    for name in "ab":
        assert second.points[name] == pytest.approx(first.points[name])


def test_projection_omits_absent_rows():
    z = np.eye(4)
    z[0] = 0
    found = pca_map(Rows({"a": z, "b": np.eye(4)}))
    assert np.isnan(found.points["a"][0]).all()
    assert np.isfinite(found.points["a"][1:]).all()


def test_projection_of_one_dimension_or_one_point():
    found = pca_map(Rows({"a": np.ones((3, 1)), "b": np.ones((3, 1))}))
    assert np.isfinite(found.points["a"]).all()


def test_rank_of_the_best_right_answer_averages_ties():
    ids = np.arange(5)
    assert best_rank(np.array([0.9, 0.5, 0.5, 0.5, 0.1]), ids, 2) == 3
    assert best_rank(np.array([0.1, 0.9]), ids[:2], 1) == 1
    # The best right answer is tied with two wrong answers behind a better one, so its rank is 1 + 1 + 2 / 2.
    assert best_rank(np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([0, 7, 2, 3, 7]), 7) == 3
    assert best_rank(np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([7, 7, 2, 3, 7]), 7) == 1


def test_directions_of_the_gallery():
    emoji = ["image", "drawing", "text", "keywords", "speech"]
    found = directions(emoji, {"image", "drawing"}, "text")
    assert [(d.queries, d.answer) for d in found] == [
        (("text",), "image"),
        (("drawing",), "text"),
        (("speech",), "image"),
        (("drawing", "text", "keywords", "speech"), "image"),
    ]
    assert [(d.queries, d.answer) for d in directions(["a", "b"], set(), "centroid")] == [(("a",), "b"), (("b",), "a")]


def test_directions_are_averaged_over_runs_and_joint_queries_found():
    def run(seed, value):
        cells = {"a->b": {"recall@1": value}, "c+a->b": {"recall@1": 1.0}, "x->y": {"recall@1": 0.0}}
        return Run("o", seed, {}, cells, None, (), "")

    found = mean_directions([run(0, 0.2), run(1, 0.4)], "recall@1", ["a", "b", "c"])
    assert found == {("a", "b"): pytest.approx(0.3), (JOINT, "b"): 1.0}


def test_curves_are_grouped_by_term_and_mark_the_end_of_the_warmup():
    warm = [LogLine(s, "infonce", 1.0, {"contrast/text-image": 1.0, "contrast/text-speech": 2.0}) for s in (0, 10)]
    cold = [LogLine(s, "gram", 2.0, {"volume_contrast": 3.0}) for s in (20, 30)]
    found = panels({0: warm + cold, 1: warm}, ["image", "text", "speech"])
    assert [panel.title for panel in found] == ["total loss", "contrast", "volume contrast"]
    assert [curve.mark for curve in found[1].curves] == [0, 2]
    assert switches(warm + cold) == [20]


def test_rank_of_an_example_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, ids = rng.integers(0, 4, 12) / 4, rng.integers(0, 5, 12)
        result = retrieval_from_scores(
            lambda rows, scores=scores: torch.from_numpy(scores)[None].expand(len(rows), -1),
            queries=1, gallery=12, query_ids=ids[:1], gallery_ids=ids,
        )  # fmt: skip
        assert best_rank(scores, ids, ids[0]) == pytest.approx(float(result.ranks[0]))
