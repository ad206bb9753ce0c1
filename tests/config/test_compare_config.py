"""Test the configurations of comparisons, evaluations, diagnoses and image generation."""

import pytest

from unialign.config import CompareConfig, ComparisonEntry, DiagnoseConfig, EvaluateConfig, GenerateConfig, TrainConfig
from unialign.errors import ConfigError


def comparison(**changes):
    return CompareConfig(data="digits", entries={"a": ComparisonEntry(train=TrainConfig())}).override(changes)


def test_round_trip_of_a_comparison_through_yaml(tmp_path):
    config = comparison(seeds=[3, 4])
    assert config.entries["a"].label == "a"
    assert CompareConfig.from_dict(config.to_dict()) == config
    (tmp_path / "config.yaml").write_text("data: digits\nentries: {a: {train: {lr: fast}}}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: entries\.a: lr must be"):
        CompareConfig.read(tmp_path / "config.yaml")


def test_wrong_settings_raise():
    entry = ComparisonEntry(train=TrainConfig())
    other = ComparisonEntry(train=TrainConfig(modalities=("x", "y")))
    for make, message in (
        (lambda: comparison(seeds=[]), "distinct integers"),
        (lambda: comparison(seeds=[True]), "distinct integers"),
        (lambda: comparison(seeds=[1, 1]), "distinct integers"),
        (lambda: comparison(seeds=3), "seeds must be a list"),
        (lambda: comparison(split="tset"), "did you mean 'test'"),
        (lambda: comparison(resamples=99), "resamples"),
        (lambda: comparison(entries={}), "at least one objective"),
        (lambda: comparison(entries={"../a": entry}), "file name"),
        (lambda: comparison(entries={"a": entry, "b": other}), "the same modalities"),
        (lambda: comparison(entries=[entry]), "entries must be a mapping"),
        (lambda: comparison(schema=2), "schema 2"),
        (lambda: comparison(**{"seeds.x": 1}), "the form SETTING.KEY is supported only for entries"),
        (lambda: CompareConfig.from_dict({"data": "digits"}), "needs 'entries'"),
        (lambda: EvaluateConfig.from_dict({"space": "s", "date": "d"}), "did you mean 'data'"),
        (lambda: EvaluateConfig.from_dict({}), "needs 'space' and 'data'"),
        (lambda: DiagnoseConfig(files=()), "files must not be empty"),
        (lambda: DiagnoseConfig(files=("a",), sample=2), "sample must be"),
        (lambda: GenerateConfig(interpolate=3, combine=True), "only one"),
        (lambda: GenerateConfig(interpolate=3, mix="frechet_mean"), "omit mix"),
        (lambda: GenerateConfig(source=("text",)), "specify an item"),
        (lambda: GenerateConfig(items=("x",), samples=1001), "exceed the limit of 1000 images per page"),
        (lambda: GenerateConfig(combine="yes"), "combine must be"),
        (lambda: GenerateConfig(weights=("x",)), "list of numbers"),
        (lambda: GenerateConfig(samples=None), "samples must be"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()
