"""Test the registry of plug-ins that are built in, installed, or registered at run time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from unialign import registry
from unialign._checks import warn_skipped
from unialign.cli import main
from unialign.errors import ConfigError, DataError
from unialign.evaluation import METRICS, all_metrics
from unialign.readers import open_file


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    registry._entry_points.cache_clear()
    warn_skipped.cache_clear()
    yield
    registry._entry_points.cache_clear()
    warn_skipped.cache_clear()


def install(folder: Path, package: str, group: str, points: dict[str, str], monkeypatch) -> None:
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[unialign.{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    registry._entry_points.cache_clear()


def test_built_in_names_are_the_public_modules_of_a_package():
    assert registry.names("commands")[:6] == ("demo", "data", "inspect", "embed", "train", "evaluate")
    assert registry.names("decoders") == ()


def test_entry_points_add_names_and_are_imported_on_first_use(tmp_path, monkeypatch):
    (tmp_path / "plug_a.py").write_text("class Mine:\n    name = 'mine'\n")
    install(tmp_path, "plug-a", "encoders", {"mine": "plug_a:Mine"}, monkeypatch)
    assert registry.names("encoders")[-1] == "mine"
    registry.check("encoders", "mine")
    assert "plug_a" not in sys.modules
    assert registry.load("encoders", "mine").name == "mine"


def test_a_plug_in_that_cannot_be_imported_names_its_package(tmp_path, monkeypatch):
    install(tmp_path, "plug-broken", "encoders", {"broken": "no_such_module:Mine"}, monkeypatch)
    with pytest.raises(ConfigError, match="encoder 'broken' of the package 'plug-broken' cannot be imported"):
        registry.load("encoders", "broken")


def test_one_name_of_two_packages_raises(tmp_path, monkeypatch):
    install(tmp_path / "a", "plug-a", "encoders", {"mine": "json:loads"}, monkeypatch)
    install(tmp_path / "b", "plug-b", "encoders", {"mine": "json:dumps"}, monkeypatch)
    with pytest.raises(ConfigError, match="several packages \\(plug-a, plug-b\\)"):
        registry.load("encoders", "mine")


def test_register_adds_and_replaces_a_name_of_this_process():
    registry.register("readers", "mine", 1)
    registry.register("readers", "mine", 2)
    assert registry.load("readers", "mine") == 2
    assert "mine" in registry.names("readers")
    assert registry.registered() == {("readers", "mine"): 2}


def test_wrappers_are_built_in_but_not_listed():
    for name in ("matryoshka", "fused_target"):
        registry.check("objectives", name)
        assert registry.load("objectives", name).name == name
        assert registry.is_built_in("objectives", name)
        assert name not in registry.names("objectives")
        with pytest.raises(ConfigError, match=f"'{name}' is a built-in objective; choose another name"):
            registry.register("objectives", name, dict)


def test_wrong_names_and_groups_raise():
    registry.register("metrics", "margin", object())
    for call, message in (
        (lambda: registry.register("commands", "train", 1), "built-in command"),
        (lambda: registry.register("metrics", "a b", 1), "letters, digits"),
        (lambda: registry.register("metrics", 3, 1), "letters, digits"),
        (lambda: registry.load("metrics", "margim"), "did you mean 'margin'"),
        (lambda: registry.load("metrics", "other"), "install the package that adds it .*unialign.metrics"),
        (lambda: registry.check("metrics", None), "unknown metric None"),
        (lambda: registry.names("metric"), "registry group.*did you mean 'metrics'"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()


def test_names_and_checks_import_no_torch():
    code = (
        "import sys; from unialign import registry; [registry.names(g) for g in registry.get_args(registry.Group)];"
        "registry.check('commands', 'train'); assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_broken_plug_ins_are_skipped_with_one_warning(tmp_path, monkeypatch, capsys, recwarn):
    (tmp_path / "plug_exit.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "plug_raises.py").write_text("raise RuntimeError('two\\nlines')\n")
    (tmp_path / "plug_reads.py").write_text(
        "class Reader:\n    name, suffixes = 'reads', ()\n"
        "    def can_read(self, path, head): raise KeyError(1)\n    def open(self, path): pass\n"
    )
    points = {"exits": "plug_exit:x", "raises": "plug_raises:x"}
    for group in ("metrics", "commands", "readers"):
        own = (
            {"reads": "plug_reads:Reader"} if group == "readers" else {"recall@1": "json:loads", "wrong": "json:loads"}
        )
        install(tmp_path / group, f"plug-{group}", group, points | own, monkeypatch)
    monkeypatch.syspath_prepend(str(tmp_path))
    for _ in range(2):
        assert set(all_metrics()) == set(METRICS)
    skipped = [str(warning.message) for warning in recwarn]
    assert len(skipped) == 4
    assert skipped.count(
        "metric 'raises' of the package 'plug-metrics' cannot be imported: RuntimeError: two lines; "
        "skipping this plug-in"
    ) == 1  # fmt: skip
    assert "SystemExit: 0" in skipped[0]

    assert main([]) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"  exits +unavailable: command 'exits' of the package 'plug-commands' cannot be imported", printed
    )
    assert main(["exits"]) == 2

    (tmp_path / "notes.txt").write_text("these are not embeddings")
    with pytest.raises(DataError, match="unknown format"):
        open_file(tmp_path / "notes.txt")
    assert "reader 'reads' raises KeyError: 1; skipping this plug-in" in [str(warning.message) for warning in recwarn]


def test_an_entry_point_named_like_a_built_in_is_reported(tmp_path, monkeypatch):
    install(tmp_path, "plug-same", "objectives", {"infonce": "json:loads"}, monkeypatch)
    with pytest.warns(UserWarning, match="'infonce' of the package 'plug-same' has the name of a built-in objective"):
        registry.names("objectives")
