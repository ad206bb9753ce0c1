"""Diagnosis: planted faults are found, sound items are not, and findings lead to them."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from planted import COPIES, HUB, ITEMS, MODALITIES, OUTLIER, SWAPPED, planted_index, planted_rows

import unialign as ua
from serve_support import Client
from unialign.diagnostics import items_compared, suspicious_items
from unialign.diagnostics._suspicious_neighbors import compare_rows

ADDRESS = "/api/v1/diagnosis/index"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ua.Index]:
    with planted_index(tmp_path_factory.mktemp("diagnosis") / "index") as index:
        yield index


@pytest.fixture(scope="module")
def call(planted: ua.Index) -> Iterator[Client]:
    client = Client(ua.serve.app(planted, burst=0, connections=0))
    yield client
    client.close()


@pytest.fixture(scope="module")
def report(call: Client) -> Any:
    before = call("GET", f"{ADDRESS}?start=false").json
    assert (before["state"], before["items"], before["of"]) == ("not_run", ITEMS, ITEMS)
    assert before["seconds"] >= 1
    started = call("GET", ADDRESS)
    assert started.status == 202
    # A second request joins the same job.
    assert call("GET", ADDRESS).json["job"] == started.json["job"]
    while (job := call("GET", f"/api/v1/jobs/{started.json['job']}").json)["state"] in ("waiting", "running"):
        time.sleep(0.02)
    assert job["state"] == "done", job
    answer = call("GET", ADDRESS)
    assert (answer.status, answer.json) == (200, job["result"])
    return answer.json


def keys(report: Any, kind: str) -> list[str]:
    return [one["key"] for one in report["lists"][kind]["items"]]


def test_swapped_items_come_first_with_their_partner(report: Any) -> None:
    first = report["lists"]["mispaired"]["items"][:2]
    assert {one["key"] for one in first} == set(SWAPPED)
    for one in first:
        assert one["modalities"] == ["text"]
        assert one["partner"] in SWAPPED
        assert one["partner"] != one["key"]
        assert one["swap"]
        assert "swapped" in one["text"]
        assert one["other"]["key"] == one["partner"]
        assert one["item"]["media"]["text"].endswith(f"/{one['key']}/media/text")


def test_a_hub_an_outlier_and_copies_are_found_in_their_modality(report: Any) -> None:
    hub = report["lists"]["hub"]["items"][0]
    assert (hub["key"], hub["modalities"]) == (HUB, ["audio"])
    assert hub["value"] >= 5
    outlier = report["lists"]["outlier"]["items"][0]
    assert (outlier["key"], outlier["modalities"]) == (OUTLIER, ["image"])
    assert keys(report, "copy") == list(COPIES)
    assert all(one["modalities"] == ["image"] for one in report["lists"]["copy"]["items"])


def test_few_sound_items_are_suspected(report: Any) -> None:
    assert set(keys(report, "mispaired")) <= {*SWAPPED, HUB, OUTLIER, COPIES[1]}
    assert report["lists"]["hub"]["total"] <= 3
    assert report["lists"]["outlier"]["total"] <= 3
    assert report["untrusted"] == []


def test_findings_of_diagnose_lead_to_lists(report: Any, planted: ua.Index) -> None:
    drawn = planted.embeddings()
    expected = ua.diagnose(drawn.z, present=drawn.present, sample=ITEMS, resamples=200)
    assert [one["code"] for one in report["findings"]] == [one.code for one in expected.findings]
    duplicates = [one for one in report["findings"] if one["code"] == "duplicates"]
    assert [one["list"] for one in duplicates] == ["copy"]
    assert report["answer"] == expected.answer


def test_an_empty_index_cannot_be_diagnosed(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ua.Index.create(tmp_path_factory.mktemp("empty") / "index", dim=4, modalities=("a", "b")) as index:
        answer = Client(ua.serve.app(index, burst=0, connections=0))("GET", ADDRESS)
        assert (answer.status, answer.code) == (409, "no_items")


def test_percentiles_and_neighbors_equal_those_of_the_full_matrix() -> None:
    rng = np.random.default_rng(3)
    z = {name: rng.normal(size=(70, 6)) for name in ("a", "b")}
    z = {name: (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for name, rows in z.items()}
    has = {"a": rng.random(70) < 0.8, "b": rng.random(70) < 0.8}
    import torch

    found = compare_rows(
        torch.from_numpy(z["a"]), torch.from_numpy(has["a"]), torch.from_numpy(z["b"]), torch.from_numpy(has["b"]), 4,
        same=False,
    )  # fmt: skip
    gallery = np.flatnonzero(has["b"])
    for place, query in enumerate(found.query_n.tolist()):
        score = z["b"][gallery].astype(float) @ z["a"][query].astype(float)
        others = gallery[gallery != query]
        nearest = others[np.argsort(-score[gallery != query])[:4]]
        assert found.near_qk[place].tolist() == nearest.tolist()
        if has["b"][query]:
            above = (score > score[gallery == query]).sum()
            assert float(found.percentile_n[query]) == pytest.approx(above / (len(gallery) - 1))
        else:
            assert np.isnan(float(found.percentile_n[query]))


def test_unrelated_modalities_are_not_judged() -> None:
    rows = planted_rows()
    noise = np.random.default_rng(8).normal(size=rows["text"].shape).astype(np.float32)
    rows["text"] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    present = {name: np.ones(ITEMS, np.bool_) for name in MODALITIES}
    faults = suspicious_items(rows, keys=[f"item-{n}" for n in range(ITEMS)], present=present)
    assert set(faults.untrusted) == {("image", "text"), ("text", "audio")}
    assert len(faults.of("mispaired")) <= 3


def test_two_modalities_name_both_halves() -> None:
    rows = {name: z for name, z in planted_rows().items() if name != "audio"}
    present = {name: np.ones(ITEMS, np.bool_) for name in rows}
    faults = suspicious_items(rows, keys=[f"item-{n}" for n in range(ITEMS)], present=present)
    swapped = [fault for fault in faults.of("mispaired") if fault.is_swap]
    assert {fault.key for fault in swapped} == set(SWAPPED)
    assert all(fault.modalities == ("image", "text") for fault in swapped)


def test_the_budget_bounds_the_number_of_compared_items() -> None:
    assert items_compared(1000, 5, 128) == 1000
    many = items_compared(10**7, 5, 512)
    assert 2 * 25 * many**2 * 512 <= 4e11
    assert items_compared(10**7, 1, 1) == 20_000
