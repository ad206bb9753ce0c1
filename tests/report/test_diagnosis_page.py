"""Test the page of a diagnosis: formatting of code, alignment of numbers, and the number of pairs shown."""

import re

import numpy as np
import pytest

import unialign as ua
from unialign.diagnostics import make_results
from unialign.experiments import write_json
from unialign.report import write_diagnosis_report
from unialign.report._index_tables import index_sections


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    def write(modalities: int) -> str:
        rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("diagnosis")
        shared = rng.normal(size=(40, 6))
        names = [f"m{i}" for i in range(modalities)]
        rows = {m: (10.0**i) * (shared + rng.normal(size=(40, 6))) for i, m in enumerate(names)}
        rows["m1"][3] = rows["m1"][7]
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


def test_index_tables_are_in_sections_that_open_on_a_click(page):
    text = page(3)
    sections = re.findall(r"<details id=\"(\w+)\">(.*?)</details>", text, re.S)
    assert [name for name, _ in sections] == ["mixed", "batch", "dims"]
    mixed, batch, dims = (section for _, section in sections)
    assert len(re.findall(r"<tr><th scope=.row.>", batch)) == 3
    assert "random batch of 40 items" in batch
    assert "Removed, 10" in batch
    assert len(re.findall(r"<tr><th scope=.row.>", mixed)) == 3
    assert "In a gallery of all modalities" in mixed
    assert re.search(r", p\s*[=&]", mixed)
    assert "first 3" in dims
    assert "principal 3" in dims


def test_each_rate_with_enough_random_pairs_has_two_columns():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 6))
    numbers = ua.diagnose({m: shared + 0.5 * rng.normal(size=(60, 6)) for m in "ab"}, resamples=100).numbers
    (section,) = (found for found in index_sections(numbers) if found["id"] == "cutoffs")
    assert section["heads"] == ["Pair", "Cosine for 1 %", "True pairs above, 1 %"]
    ((name, cells),) = section["rows"]
    found = numbers["pairs"]["a-b"]["cutoffs"][0]
    assert name == "a-b"
    assert cells[0][0] == f"{found['cosine']['mean']:.3f}"
    assert cells[1][0] == f"{100 * found['true_fraction']['mean']:.1f} %"
