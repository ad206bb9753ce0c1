"""Test the page of a diagnosis: formatting of code, alignment of numbers, and the number of pairs shown."""

import re

import numpy as np
import pytest

import unialign as ua
from unialign.diagnostics import make_results
from unialign.experiments import write_json
from unialign.report import write_diagnosis_report


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a function that writes the page of a diagnosis of 40 items and returns its HTML."""

    def write(modalities: int) -> str:
        rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("diagnosis")
        shared = rng.normal(size=(40, 6))
        names = [f"m{i}" for i in range(modalities)]
        rows = {m: (10.0**i) * (shared + rng.normal(size=(40, 6))) for i, m in enumerate(names)}
        rows["m1"][3] = rows["m1"][7]  # duplicate rows, for which the advice mentions `ids`
        write_json(folder / "results.json", make_results(ua.diagnose(rows, resamples=100), seconds=1.0))
        return write_diagnosis_report(folder).read_text("utf-8")

    return write


def test_as_many_pairs_are_shown_as_the_page_says(page):
    six, seven = page(6), page(7)
    assert len(re.findall(r"Cosines of m\d-m\d<", six)) == 15
    assert "of 15 pairs" not in six
    assert len(re.findall(r"Cosines of m\d-m\d<", seven)) == 15
    assert "the first 15 of 21 pairs are shown" in seven
    assert "the largest 15 of 21" in seven


def test_code_is_marked_and_columns_have_equally_many_decimals(page):
    text = page(3)
    body = text[text.index("<main>") :]
    assert "`" not in re.sub(r"<pre.*?</pre>", "", body, flags=re.S)
    assert "<code>ids</code>" in body
    table = re.search(r'aria-label="Modalities".*?</table>', body, re.S)[0]
    norms = [re.findall(r"<td>.*?</td>", row)[4] for row in re.findall(r"<tr><th.*?</tr>", table, re.S)[1:]]
    decimals = {len(number) for norm in norms for number in re.findall(r"\.(\d+)", norm)}
    assert len(norms) == 3
    assert len(decimals) == 1
