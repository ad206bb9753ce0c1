import json
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_comparison import EMOJI, PIXEL, make_folder
from safetensors.numpy import load_file, save_file

from unialign.errors import DataError
from unialign.report import write_report

SECTIONS = ("verdict", "numbers", "maps", "directions", "gaps", "training", "examples", "methods")
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.attributes = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend((tag, key, value or "") for key, value in attrs)
        self.ids.extend(value for key, value in attrs if key == "id")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def written(folder):
    return write_report(folder).read_text(encoding="utf-8")


def charts(text):
    return [ElementTree.fromstring(chart) for chart in re.findall(r"<svg.*?</svg>", text, re.S)]


def test_a_comparison_gets_every_section(tmp_path):
    folder = make_folder(tmp_path / "c")
    path = write_report(folder)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == folder / "report.html"
    assert [section for section in SECTIONS if section in page.ids] == list(SECTIONS)
    assert len(page.ids) == len(set(page.ids))
    assert "speech (synthetic)" in text
    assert "InfoNCE warmup" in text
    assert "InfoNCE changes to GRAM" in text
    assert "unialign compare --config config.yaml" in text
    assert "uniformity outweighs alignment 14 times" in text


def test_the_page_loads_nothing_and_runs_no_script(tmp_path):
    text = written(make_folder(tmp_path / "c"))
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "image"} & set(page.tags)
    assert not re.search(r"https?:|@import|javascript:", text)
    for _, key, value in page.attributes:
        assert not key.startswith("on")
        if key in ("href", "src"):
            assert value.startswith("#")


def test_charts_are_well_formed_and_named(tmp_path):
    found = charts(written(make_folder(tmp_path / "c")))
    named = [c for c in found if c.get("role") == "img"]
    assert len(named) > 12
    for chart in named:
        assert chart.find("title").text
        assert chart.find("desc").text
        assert not re.search(r"nan|inf", ElementTree.tostring(chart, encoding="unicode"))
    assert all(c.get("aria-hidden") == "true" for c in found if c not in named)


def test_the_same_folder_gives_the_same_page(tmp_path):
    first = written(make_folder(tmp_path / "c"))
    assert written(make_folder(tmp_path / "again")) == first


def test_the_sentences_of_a_note_are_separated(tmp_path, edited):
    def repeat(results):
        results["metrics"] |= {key: {"label": key, "unit": "percent"} for key in ("mrr", "map")}
        for run in results["runs"]:
            run["metrics"] |= {"mrr": 0.5, "map": 0.5}
        for values in results["summary"].values():
            values |= {key: {"mean": 0.5, "low": 0.4, "high": 0.6} for key in ("mrr", "map")}

    folder = make_folder(tmp_path / "c")
    edited(folder, repeat)
    assert "every other objective. An equals sign" in written(folder)


def test_every_style_class_is_defined(tmp_path):
    """Regression test: a misspelled class left the centers of the map without color."""
    text = written(make_folder(tmp_path / "c"))
    defined = set(re.findall(r"\.([a-z][\w-]*)", text.split("</style>")[0]))
    used = {name for value in re.findall(r'class="([^"]*)"', text) for name in value.split()}
    assert used <= defined


def test_hostile_names_stay_text(tmp_path, edited):
    evil = "<script>alert('x')</script>"
    names = [evil, "</style><b>", "\ud800 half", "\x00\x07", "", "a" * 400, "{{ 7*7 }}", "\u202eevil", "日本"]
    folder = make_folder(tmp_path / "c", modalities=["a", evil], items=9, names=names, with_images=())

    def spoil(results):
        results["data"]["description"] = "<img src=x onerror=alert(1)>"
        results["data"]["name"] = evil
        results["objectives"]["unialign"] |= {"label": evil, "note": evil, "settings": {evil: evil}}
        results["metrics"]["recall@1"] |= {"label": evil, "description": f'" onmouseover="{evil}'}
        results["runs"][0]["warnings"] = [{"code": evil, "message": evil, "step": 1}]

    edited(folder, spoil)
    text = written(folder)
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert text.count("</style>") == 1
    assert "{{ 7*7 }}" in text
    assert not any(key.startswith("on") for _, key, _ in page.attributes)
    assert charts(text)


def test_two_modalities_one_objective_no_extras(tmp_path):
    folder = make_folder(
        tmp_path / "c", modalities=["rna", "protein"], objectives=["unialign"], seeds=1, items=7, with_images=()
    )
    (folder / "items.json").unlink()
    (folder / "runs" / "unialign-seed0" / "log.jsonl").unlink()
    text = written(folder)
    page = Page(text)
    assert "examples" not in page.ids
    assert "training" not in page.ids
    seen = re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.DOTALL)
    for word in ("Comparison", "against", "erdict", "objectives", "each objective"):
        assert word not in seen, "a single space has no comparison"
    assert "Evaluation of one space" in text
    assert "Map of the space" in text
    assert "unialign train --config config.yaml" in text


def test_many_modalities_stay_under_the_size(tmp_path):
    many = [f"channel {i}" for i in range(12)]
    objectives = ["unialign", "infonce", "gram", "triangle", "symile", "pmrl"]
    path = write_report(
        make_folder(tmp_path / "c", modalities=many, objectives=objectives, seeds=1, items=400, with_images=())
    )
    assert path.stat().st_size < 2_000_000


def test_only_used_images_are_embedded_each_once_and_within_the_budget(tmp_path):
    text = written(make_folder(tmp_path / "few", items=200))
    rules = re.findall(r"\.(p\d+)\{background-image", text)
    assert 0 < len(rules) <= 8 * (1 + 3 * 5)
    assert len(rules) == len(set(rules))
    large = PIXEL + b"\0" * 150_000
    heavy = make_folder(tmp_path / "heavy", items=200, image=lambda modality, position: large)
    assert write_report(heavy).stat().st_size < 5_000_000


def test_examples_follow_the_rule_and_mark_the_truth(tmp_path):
    folder = make_folder(tmp_path / "c", items=40, seeds=1)
    for path in folder.glob("runs/*/embeddings.safetensors"):
        same = load_file(path)["text"]
        save_file(dict.fromkeys(EMOJI, same), path)
    text = written(folder)
    for title in ("text", "drawing", "speech (synthetic)", "all others"):
        assert f"<bdi>{title}</bdi> <span" in text
    assert text.count("✓ correct answer at rank 1<") == 8 * 3
    assert text.count("(correct)") == 8 * 3
    assert all(f"“<bdi>item {n}</bdi>”" in text for n in (2, 7, 12, 17, 22, 27, 32, 37))


def test_absent_rows_are_left_out(tmp_path):
    folder = make_folder(tmp_path / "c", items=40)
    for path in folder.glob("runs/*/embeddings.safetensors"):
        z = {name: rows.copy() for name, rows in load_file(path).items()}
        z["speech"][::2] = 0
        save_file(z, path)
    text = written(folder)
    assert "20 candidates" not in text  # No query has speech as the correct result.
    assert "item 1</bdi>" in text
    assert "“<bdi>item 2</bdi>”" not in text
    Page(text)


def test_sections_without_data_are_left_out(tmp_path, edited):
    folder = make_folder(tmp_path / "c")

    def bare(results):
        for run in results["runs"]:
            del run["directions"]
        for key in ("environment", "protocol", "comparisons", "metrics", "summary"):
            del results[key]

    edited(folder, bare)
    (folder / "thumbnails.zip").unlink()
    page = Page(written(folder))
    assert "directions" not in page.ids
    assert "examples" in page.ids


def test_undefined_numbers_are_dashes(tmp_path, edited):
    folder = make_folder(tmp_path / "c")

    def lose(results):
        results["summary"]["gram"]["modality_gap"] = {"mean": None, "low": None, "high": None}
        results["runs"][0]["directions"]["text->image"]["recall@1"] = float("nan")

    edited(folder, lose)
    text = written(folder)
    assert "nan" not in re.sub(r"base64,[^)]*", "", text)
    assert "–" in text


def _corrupt(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "results.json").unlink(), "results.json is missing"),
        (lambda f: _corrupt(f, "results.json", b'{"schema": 1, "runs": ['), "not readable JSON"),
        (lambda f: _corrupt(f, "results.json", b"[" * 200_000), "not readable JSON"),
        (lambda f: _corrupt(f, "results.json", b"[]"), "schema"),
        (lambda f: (f / "runs/gram-seed0/embeddings.safetensors").unlink(), "gram seed 0"),
        (lambda f: _corrupt(f, "runs/gram-seed0/embeddings.safetensors", b"\x08\0\0"), "safetensors"),
        (lambda f: _corrupt(f, "items.json", b"{}"), "rows"),
        (lambda f: _corrupt(f, "items.json", b'{"rows": [1, 2], "names": ["a"]}'), "one name"),
        (lambda f: _corrupt(f, "items.json", b'{"rows": [1, 2]}'), "items.json has 2"),
        (lambda f: _corrupt(f, "thumbnails.zip", b"PK no"), "zip"),
    ],
)
def test_damaged_folders_raise_and_the_old_page_stays(tmp_path, spoil, message):
    folder = make_folder(tmp_path / "c", items=12)
    (folder / "report.html").write_text("old")
    spoil(folder)
    with pytest.raises(DataError, match=message):
        write_report(folder)
    assert (folder / "report.html").read_text() == "old"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: z.pop("speech"), "no 'speech'"),
        (lambda z: z.update(speech=z["speech"][:5]), "has 5 rows"),
        (lambda z: z.update(speech=np.full_like(z["speech"], np.nan)), "'speech' row 0 is not finite"),
        (lambda z: z.update(speech=z["speech"][:, :4].copy()), "shapes differ"),
        (lambda z: z.update(speech=np.ones(z["speech"].shape, np.int64)), "int64"),
    ],
)
def test_embeddings_that_do_not_fit_raise(tmp_path, change, message):
    folder = make_folder(tmp_path / "c", items=12)
    path = folder / "runs/unialign-seed0/embeddings.safetensors"
    z = load_file(path)
    change(z)
    save_file(z, path)
    with pytest.raises(DataError, match=message):
        write_report(folder)


def test_a_run_outside_the_folder_raises(tmp_path, edited):
    folder = make_folder(tmp_path / "c", items=12)
    edited(folder, lambda results: results["runs"][0].update(folder="../../elsewhere"))
    with pytest.raises(DataError, match="outside its folder"):
        write_report(folder)


def test_a_damaged_image_is_named(tmp_path):
    folder = make_folder(tmp_path / "c", items=12, with_images=())
    with zipfile.ZipFile(folder / "thumbnails.zip", "w") as archive:
        for i in range(12):
            archive.writestr(f"image/{i}.webp", b"pixels" * 9)
    content = (folder / "thumbnails.zip").read_bytes()
    (folder / "thumbnails.zip").write_bytes(content.replace(b"pixels", b"pixelS"))
    with pytest.raises(DataError, match=r"image/\d+.webp in .* cannot be read"):
        write_report(folder)


def test_a_half_written_log_line_is_skipped(tmp_path):
    folder = make_folder(tmp_path / "c", items=12)
    with open(folder / "runs/unialign-seed0/log.jsonl", "a") as log:
        log.write('{"step": 99, "lo\n[]\n{"step": null, "loss": 1}\n')
    Page(written(folder))


def test_torch_is_not_needed(tmp_path):
    folder = make_folder(tmp_path / "c", items=12)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from unialign.report import write_report\n"
        f"write_report({json.dumps(str(folder))})"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_examples_count_every_item_with_the_id_of_the_query(tmp_path):
    """All items with the id of the query are right answers, as in the metrics."""
    folder = make_folder(tmp_path / "c", objectives=("unialign",), seeds=1, items=24, modalities=("image", "text"))
    path = folder / "items.json"
    items = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(items | {"ids": [i // 4 for i in range(24)]}), encoding="utf-8")
    text = written(folder)
    z = load_file(folder / "runs" / "unialign-seed0" / "embeddings.safetensors")
    found = re.findall(r'article class="card example">\s*<h3>.*?<bdi>(\w+)</bdi>.*?“<bdi>item (\d+)</bdi>”', text, re.S)
    ranks = re.findall(r"first of 4 correct answers at rank ([\d.]+)", text)
    assert len(found) == len(ranks) == 8
    for (source, query), rank in zip(found, ranks, strict=True):
        queries, gallery = z[source].astype(float), z["text" if source == "image" else "image"].astype(float)
        order = np.argsort(-(gallery @ queries[int(query)]))
        assert float(rank) == 1 + np.flatnonzero(order // 4 == int(query) // 4)[0]
    assert text.count("tile correct") == sum(
        int(
            (
                np.argsort(-(z["text" if s == "image" else "image"].astype(float) @ z[s][int(q)].astype(float)))[:5]
                // 4
                == int(q) // 4
            ).sum()
        )
        for s, q in found
    )
    for bad in ([0], "no", [0.5] * 24):
        path.write_text(json.dumps(items | {"ids": bad}), encoding="utf-8")
        with pytest.raises(DataError, match="integer in 'ids'"):
            write_report(folder)
