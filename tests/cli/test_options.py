"""Test the precedence of command-line options, the examples, suggestions, and the deferred import of torch."""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping

import pytest
import yaml

from unialign import registry
from unialign.cli import Command, decoder, generate, main, train
from unialign.cli._command import command_parser
from unialign.cli._settings import given_settings
from unialign.config import Config, DecoderConfig, GenerateConfig, TrainConfig
from unialign.errors import ConfigError

# These are two valid values other than the default for each setting whose type does not determine valid values.
NAMED = {
    "objective": ("gram", "infonce"),
    "modalities": (["fou", "zer"], ["kar", "pix"]),
    "log_to": (["jsonl", "tensorboard"], ["tensorboard"]),
    "matryoshka_dims": ([16, 32], [64]),
    "dropout": (0.1, 0.2),
    "init_regularization": (0.1, "auto"),
    "init_spectrum_power": (0.5, "auto"),
    "landmarks": (300, "auto"),
    "warmup_ratio": (0.1, 0.2),
    "infonce_warmup_ratio": (0.1, 0.2),
    "min_lr": (1e-5, 1e-6),
    "condition_dropout": (0.2, 0.3),
    "average": (0.5, 0.6),
    "latents": (100, 200),
    "size": (40, 48),
    "source": (["text"], ["drawing"]),
    "weights": ([1.0, 2.0], [3.0, 1.0]),
    "data": ("digits", "emoji"),
    "fingerprint": ("a", "b"),
    "interpolate": (5, 6),
    "mix": ("unnormalized_mean", "frechet_mean"),
}


def two_values(entry):
    if entry.name in NAMED:
        return NAMED[entry.name]
    if entry.choices:
        return entry.choices[-1], entry.choices[0]
    if entry.kind in (int, float):
        return (entry.default or 0) + 2, (entry.default or 0) + 3
    return ("a/x", "b/y") if not entry.is_list else (["a"], ["b"])


def words(entry, value):
    return [f"--{entry.name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]


def parsed(command, *arguments):
    return command_parser(command).parse(list(arguments))


def test_training_settings_take_the_option_then_the_file_then_the_default(tmp_path):
    for entry in TrainConfig.settings():
        if entry.kind is Mapping:
            continue
        in_file, on_line = two_values(entry)
        file = tmp_path / f"{entry.name}.yaml"
        # Closed forms do not support the default head.
        needed = {"head": "linear"} if entry.name == "init" else {}
        written = {"data": {"name": "digits", "fingerprint": "0"}, "train": {entry.name: in_file, **needed}}
        file.write_text(yaml.safe_dump(written))
        for arguments, expected in (
            (["digits"], entry.default),
            (["--config", str(file)], in_file),
            (["--config", str(file), *words(entry, on_line)], on_line),
        ):
            found = getattr(train.resolve(parsed(train.COMMAND, *arguments))[-1], entry.name)
            assert (list(found) if isinstance(found, tuple) else found) == (
                list(expected) if isinstance(expected, tuple) else expected
            ), (entry.name, arguments)


def test_decoder_and_generation_settings_take_the_option_then_the_file_then_the_default(tmp_path):
    file = tmp_path / "config.yaml"
    for module, config, key, start in (
        (decoder, DecoderConfig, "decoder", ["train"]),
        (generate, GenerateConfig, "generation", ["--item", "x"]),
    ):
        for entry in config.settings():
            if entry.name in ("items", "texts", "combine", "fingerprint"):
                continue
            in_file, on_line = two_values(entry)
            items = {"items": ["x"]} if config is GenerateConfig else {}
            file.write_text(yaml.safe_dump({key: {**items, entry.name: in_file}, "data": {"name": "emoji"}}))
            for arguments, expected in (
                (["--config", str(file)], in_file),
                (["--config", str(file), *words(entry, on_line)], on_line),
            ):
                found = module.resolve(parsed(module.COMMAND, *start, *arguments))
                value = getattr(found[-1] if module is decoder else found, entry.name)
                assert (list(value) if isinstance(value, tuple) else value) == expected, (entry.name, arguments)


def test_entries_of_mappings_and_the_anchor(tmp_path):
    file = tmp_path / "config.yaml"
    options = {"temperature": 0.2, "anchor": "fou"}
    written = {"train": {"objective_options": options}, "data": {"name": "digits", "fingerprint": "0"}}
    file.write_text(yaml.safe_dump(written))

    def resolved(*arguments):
        return train.resolve(parsed(train.COMMAND, "--config", str(file), *arguments))[-1]

    assert resolved().objective_options == options
    assert resolved("--anchor", "kar").objective_options == {"temperature": 0.2, "anchor": "kar"}
    assert resolved("--set", "objective_options.temperature=1e-1").objective_options["temperature"] == 0.1
    assert resolved("--set", "frozen.fou=whiten").frozen == {"fou": "whiten"}
    # The options in the file belong to its objective; another objective does not inherit them.
    assert resolved("--objective", "infonce", "--anchor", "kar").objective_options == {"anchor": "kar"}
    for wrong, message in (
        ("head=linear", "head is not an entry of a mapping; use --head"),
        ("objective_options={}", "expected an entry of"),
        ("nothing.x=1", "expected an entry of"),
        ("lr", "KEY=VALUE"),
        ("frozen.fou=whitten", "did you mean 'whiten'"),
        ("objective_options.x=!!bool x", "'!!bool x' cannot be parsed as YAML: a value does not fit its tag"),
        ("objective_options.x=!!timestamp x", "a value does not fit its tag"),
        ("objective_options.x=[\n1", "^[^\n]*$"),
        ("objective_options.temperature=.nan", "objective_options.temperature must consist of finite numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolved("--set", wrong)
    with pytest.raises(ConfigError, match=r"--anchor and --set objective_options\.anchor are the same setting"):
        resolved("--set", "objective_options.anchor=fou", "--anchor", "kar")


def test_none_is_a_value_of_optional_settings_only():
    def given(*arguments):
        return given_settings(parsed(train.COMMAND, "digits", *arguments), TrainConfig)

    assert given("--max-grad-norm", "none", "--save-steps", "None") == {"max_grad_norm": None, "save_steps": None}
    with pytest.raises(ConfigError, match="invalid int value: 'none'"):
        given("--epochs", "none")


def test_help_lists_every_setting_with_its_default(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    text = command_parser(train.COMMAND).format_help()
    for entry in TrainConfig.settings():
        if entry.kind is Mapping:
            assert f"{entry.name}: " in text
            continue
        described = text.split(f"\n  --{entry.name.replace('_', '-')} ")[1].split("\n  --")[0]
        assert "(default: " in described, entry.name
        if isinstance(entry.default, int | float):
            assert f"(default: {entry.default})" in described


def test_examples_of_every_command_parse():
    for name in registry.names("commands"):
        command = registry.load("commands", name)
        assert isinstance(command, Command)
        assert command.summary
        assert not command.summary.endswith(".")
        lines = [line.strip() for line in command.examples.splitlines() if line.startswith("  unialign ")]
        assert lines, name
        for line in lines:
            program, first, *rest = shlex.split(line.split("    ")[0])
            assert (program, first) == ("unialign", name)
            command_parser(command).parse(rest)


def test_mistyped_names_get_a_suggestion_without_heavy_imports():
    cases = (
        ("trian emoji", "did you mean 'train'"),
        ("train emojy", "did you mean 'emoji'"),
        ("train emoji --objective infonc", "did you mean 'infonce'"),
        ("train emoji --head liner", "did you mean 'linear'"),
        ("train emoji --batchsize 3", "did you mean --batch-size"),
        ("train emoji --set frozen.image=whitten", "did you mean 'whiten'"),
        ("train emoji --resume requird", "did you mean 'required'"),
        ("compare digits --objectives gramm", "did you mean 'gram'"),
        ("compare digits --objectives infonce,gramm", "did you mean 'gram'"),
        ("compare digits --lr -1", "lr must be a positive"),
        ("evaluate space emojy", "did you mean 'emoji'"),
        ("generate --mix meen", "did you mean 'mean'"),
        ("decoder trian", "did you mean 'train'"),
        ("diagnose --fail-on warnin", "did you mean 'warning'"),
    )
    code = (
        "import sys, io, contextlib\nfrom unialign.cli import main\n"
        f"for words, message in {cases!r}:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        status = main(words.split())\n"
        "    assert status == 2 and message in said.getvalue(), (words, status, said.getvalue())\n"
        "heavy = {'torch', 'numpy', 'tqdm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr


def test_every_setting_has_a_help_text():
    def configs(parent):
        for child in parent.__subclasses__():
            yield child
            yield from configs(child)

    for config in configs(Config):
        if config.__module__.startswith("unialign."):
            for entry in config.settings():
                assert entry.help
                assert not entry.help.endswith(".")
                assert f"{entry.name}: {entry.help}." in config.__doc__


def test_messages_suggest_the_closest_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, words in {
        "train digits --freeze pix": "unknown option --freeze; did you mean --set frozen.KEY=VALUE?",
        "train digits --set frozn.pix=whiten": "did you mean 'frozen'?",
        "train digits --set frozen.pixx=whiten": "did you mean 'pix'?",
        "train digits --set frozen.pix=white": "unknown transform 'white' for the frozen modality 'pix'",
        "train digits --set objective_options.temprature=1": "did you mean 'temperature'?",
        "train digits --anchor pixx": "anchor 'pixx' is not a modality of this batch; expected one of",
        "compare digits --anchor pixx": "did you mean 'pix'?",
        "compare digits --objectives clip": "`compare` also accepts the closed forms gcca, kernel_gcca, ridge",
        "train digits --objective ridge": "set head='linear', init='ridge' and epochs=0",
        "train digits --modalities fou,pixx": "unknown column 'pixx'; the store has",
        "train digits --device gpu": "unknown device 'gpu'; expected auto, cpu, cuda or cuda:NUMBER",
        "train digits --device cuda:99": "device 'cuda:99' is not available; use --device cpu",
    }.items():
        assert main(arguments.split()) == 2
        printed = capsys.readouterr()
        assert words in printed.err, arguments
        assert "--device" not in arguments or printed.out == "", arguments
    assert not (tmp_path / "runs" / "train").exists()
    for option in ("fou,pix", "fou, pix"):
        options = parsed(train.COMMAND, "digits", "--modalities", *option.split())
        assert train.resolve(options)[-1].modalities == ("fou", "pix")
