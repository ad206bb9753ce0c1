"""Test plots of results, which are self-contained SVG documents, and the conversion of results to data frames."""

import sys
from xml.etree import ElementTree

import pytest
import torch

import unialign as ua
from unialign.errors import DataError, MissingDependencyError


def test_plots_are_documents_that_a_notebook_shows(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(60, 6, generator=generator)
    z = {name: shared + torch.randn(60, 6, generator=generator) for name in ("image", "<text>", "audio")}
    report, found = ua.diagnose(z, resamples=100), ua.evaluate(z)
    plots = [report.plot_map(), report.plot_recall(), report.plot_cosines(), found.plot_recall(), found.plot_map()]
    for number, plot in enumerate(plots):
        path = plot.save(tmp_path / f"{number}.svg")
        root = ElementTree.fromstring(path.read_text("utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        words = "".join(root.itertext())
        assert "<text>" in words
        assert "prefers-color-scheme: dark" in words
        shown = plot._repr_html_()
        assert shown.startswith("<img ")
        assert "<text>" not in shown
        assert ".save(" in repr(plot)
        for name in {part for part in path.read_text("utf-8").split('"') if part.startswith("url(")}:
            assert f'id="{name[5:-1]}"' in path.read_text("utf-8"), "every reference is in the document"
    r_at_1 = f"{100 * found.directions['image->audio']['recall@1']:.1f}"
    assert r_at_1 in "".join(ElementTree.fromstring(plots[3].svg).itertext())
    assert plots[4].svg == report.plot_map().svg, "all items are shown in both"
    with pytest.raises(DataError, match="fewer than 3 items"):
        ua.evaluate({name: torch.eye(2) for name in "ab"}).plot_map()
    with pytest.raises(DataError, match="file name must end in"):
        plots[0].save(tmp_path / "plot.png")
    unequal = ua.diagnose({"a": torch.randn(20, 4), "b": torch.randn(20, 5)}, resamples=100)
    for draw in (unequal.plot_map, unequal.plot_recall, unequal.plot_cosines):
        with pytest.raises(DataError, match=r"dim|measured"):
            draw()


def test_to_frame_has_a_row_for_each_number(monkeypatch):
    found = ua.evaluate({name: torch.eye(6) for name in "ab"})

    class Frame:
        def __init__(self, rows, columns):
            self.rows, self.columns = rows, columns

    monkeypatch.setitem(sys.modules, "pandas", type("pandas", (), {"DataFrame": Frame}))
    frame = found.to_frame()
    assert frame.columns == ["direction", "metric", "value"]
    values = {(direction, metric): value for direction, metric, value in frame.rows}
    assert len(values) == len(frame.rows) == len(found.metrics) + sum(map(len, found.directions.values()))
    assert values["all", "recall@1"] == found.metrics["recall@1"]
    assert values["a->b", "chance_recall@1"] == pytest.approx(1 / 6)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"unialign\[pandas\]"):
        found.to_frame()
