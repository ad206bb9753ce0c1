"""Test the option `--quiet`, and that completion scripts offer every command, option and value."""

import shutil
import subprocess

import numpy as np
import pytest

from unialign import registry
from unialign.cli import main
from unialign.cli._main import parsers


def script(shell, capsys):
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_scripts_contain_every_command_and_option(capsys):
    for shell in ("bash", "zsh", "fish"):
        text = script(shell, capsys)
        for name in registry.names("commands"):
            assert name in text
        for parser in parsers().values():
            for action in parser._actions:
                for flag in action.option_strings:
                    shown = f"-l {flag[2:]}" if shell == "fish" else flag
                    assert not flag.startswith("--") or flag in ("--version",) or shown in text, (shell, flag)
    assert main(["completion", "tcsh"]) == 2
    assert "zsh" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(tmp_path, capsys):
    (tmp_path / "completion.bash").write_text(script("bash", capsys))
    for name in ("mine.npz", "two words.npz", "two more.npy"):
        (tmp_path / name).touch()
    cases = {
        "unialign comp": "compare|completion",
        "unialign train --object": "--objective",
        "unialign train --objective symi": "symile",
        "unialign train --precision ''": "auto|bf16|fp32",
        "unialign train em": "emoji",
        "unialign diagnose mi": "mine.npz",
        "unialign diagnose tw": "two more.npy|two words.npz",
        "unialign decoder sam": "sample",
        "unialign decoder train --guid": "--guidance",
        "unialign generate --mix f": "frechet_mean",
    }
    asked = "\n".join(
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _unialign; "
        'printf "%s|" "${COMPREPLY[@]}"; echo'
        for words in cases
    )
    done = subprocess.run(
        ["bash", "-c", f"source ./completion.bash\n{asked}"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = ["|".join(sorted(line.strip("|").split("|"))) for line in done.stdout.splitlines()]
    assert found == list(cases.values())


def test_quiet_prints_errors_only(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z = {name: rng.normal(size=(60, 8)).astype(np.float32) for name in ("a", "b")}
    np.savez("mine.npz", **z)
    assert main(["diagnose", "mine.npz", "--quiet", "--out", "d"]) == 0
    assert main(["diagnose", "mine.npz", "--quiet", "--out", "d", "--fail-on", "problem"]) == 1
    assert main(["train", "mine.npz", "--quiet", "--epochs", "1", "--out", "t"]) == 0
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "d" / "report.html").exists()
    assert main(["diagnose", "none.npz", "--quiet"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "none.npz" in err
    assert main(["diagnose", "mine.npz", "--out", "d"]) == 0
    assert "Report:" in capfd.readouterr().out, "not quiet any more"
