"""Test that the snippet in the skill for agents runs, and that all commands, names and links exist."""

import re
import shlex
from pathlib import Path

import numpy as np
import yaml

import unialign as ua
from unialign import experiments
from unialign.cli import parsers

ROOT = Path(__file__).parent.parent
SKILL = ROOT / "skills" / "unialign" / "SKILL.md"
TEXT = SKILL.read_text("utf-8")


def test_the_header_has_the_name_of_the_folder_and_a_short_description():
    header = yaml.safe_load(TEXT.split("---")[1])
    assert header["name"] == SKILL.parent.name
    assert 100 < len(header["description"]) <= 1024


def test_the_snippet_runs_with_random_arrays_in_place_of_features(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(300, 8))
    dims = {"clip_image": 32, "clip_text": 32, "clap_sound": 24, "readings": 10}
    names = {name: shared @ rng.normal(size=(8, dim)) + 0.1 * rng.normal(size=(300, dim)) for name, dim in dims.items()}
    (snippet,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(snippet, "SKILL.md", "exec"), names | {"has_sound": rng.random(300) < 0.5})
    recall = float(capsys.readouterr().out.split()[0])
    assert recall > 0.5
    assert ua.Space.from_pretrained("my-space").modalities == ("image", "text", "sound", "sensor")


def test_the_commands_exist():
    known = parsers()
    commands = [shlex.split(line) for line in re.findall(r"`(unialign [^`]+)`", TEXT)]
    assert len(commands) > 5
    for words in commands:
        options, unknown = known[f"unialign {words[1]}"].parse_known_args(words[2:])
        assert not unknown, words
        assert vars(options)


def test_the_names_of_the_library_exist():
    found = re.findall(r"\b(ua|experiments)\.(\w+(?:\.\w+)*)", TEXT)
    assert len(found) > 8
    for package, path in found:
        value = {"ua": ua, "experiments": experiments}[package]
        for name in path.split("."):
            value = getattr(value, name)


def test_links_of_the_skill_and_of_the_overview_exist():
    for page in (SKILL, ROOT / "llms.txt"):
        links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
        assert len(links) > 3
        assert [link for link in links if not (page.parent / link).exists()] == []
