"""Test studies and their command line end to end on a few items."""

import dataclasses
import json
from importlib import import_module
from pathlib import Path

import pytest
from study_cases import write_store

from research import COSTS, STUDIES, load_study
from research.__main__ import main
from research._conflict_page import MOST
from research._plan import Options, Plan
from research._run import answer_lines, make_plan
from research.conflict import POOLS
from unialign.io import write_yaml


def columns(name: str) -> dict[str, tuple[str, ...]]:
    plan, _, _ = make_plan(load_study(name), Options(study=name))
    found: dict[str, dict[str, None]] = {}
    for arm in plan.arms:
        for settings in ({"modalities": arm.train.modalities}, *arm.per_seed.values()):
            found.setdefault(arm.data, {}).update(dict.fromkeys(settings.get("modalities") or ()))
    return {data: tuple(names) for data, names in found.items()}


def one_trial(plan: Plan) -> Plan:
    return dataclasses.replace(plan, arms=tuple(dataclasses.replace(arm, trials=arm.trials[:1]) for arm in plan.arms))


@pytest.mark.parametrize(("name", "seeds"), [("ablation", (0,)), ("conflict", (0, 1))])
def test_a_study_runs_to_its_page(
    name: str,
    seeds: tuple[int, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = ("unialign", "infonce", "gram", "triangle")
    module = import_module(f"research.{name}")
    monkeypatch.setattr(module, "registered", lambda: few)
    if name == "ablation":
        monkeypatch.setattr(module, "TERMS", {"U": "uniformity", "A": "alignment"})
    for data in MOST:
        monkeypatch.setitem(MOST, data, 3)
    study = load_study(name)
    shortened = dataclasses.replace(study, plan=lambda options: one_trial(study.plan(options)))
    monkeypatch.setattr(module, "STUDY", shortened)
    stores = {data: write_store(tmp_path / data, names, name=data, dim=40) for data, names in columns(name).items()}
    options = Options(study=name, epochs=1, seeds=seeds, resamples=1600 if name == "ablation" else 600, stores=stores)
    write_yaml(tmp_path / "config.yaml", options.to_dict())
    out = tmp_path / "run"
    command = ["--config", str(tmp_path / "config.yaml"), "--workers", "1", "--out", str(out)]
    assert main(command) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    total = results["study"]["trainings"]
    assert f"[{total}/{total}]" in said
    assert not results["study"]["failed"]
    quick = "moke run with 1 of 40 epochs; its numbers are not meaningful"
    answer = said[said.rindex(f"[{total}/{total}]") :].splitlines()[2:]
    assert answer[0] == f"S{quick}."
    assert answer[1:-2] == answer_lines(study, results)[1:]
    assert len(answer) > 4
    assert answer[-1].endswith("report.html")
    assert f"S{quick}." in (out / "page.md").read_text()
    assert (out / "report.html").read_text().count(quick) == 2, "in the head and in a section of its own"
    sections = load_study(name).page(results)
    text = (out / "page.md").read_text()
    for section in sections:
        assert f"<!-- generated: {section.key} -->" in text
    drawn = [figure.name for section in sections for figure in section.figures]
    assert sorted(f.stem for f in (out / "figures").iterdir()) == sorted(drawn)
    html = (out / "report.html").read_text()
    assert html.count("<svg") == len(drawn)
    assert "://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert all(label in text for label in ("UniAlign", "InfoNCE"))


def test_conflict_has_enough_modalities() -> None:
    assert set(POOLS) == set(MOST)
    assert len(POOLS["digits"]) == MOST["digits"] - 1
    assert len(POOLS["emoji"]) > MOST["emoji"] - 1


def test_help_lists_the_studies_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    lines = said.splitlines()
    for name, summary in STUDIES.items():
        (at,) = [i for i, line in enumerate(lines) if name in line and summary in line]
        count, minutes = COSTS[name]
        assert lines[at + 1].strip() == f"{count} trainings, about {minutes} min on 2 cores"


def test_mistakes_are_reported_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "config.yaml", Options(study="ablation").to_dict())
    for arguments, message in (
        ("", "a study, such as `ablation`, or --config is required"),
        ("abolition", "unknown study 'abolition'; expected one of 'ablation'"),
        ("ablation --seeds 1 1", "distinct integers"),
        ("ablation --epochs 0", "epochs must be an integer"),
        ("ablation --workers 0", "--workers must be at least 1"),
        ("conflict --config config.yaml", "the study 'ablation', not to 'conflict'"),
    ):
        assert main(arguments.split()) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()
