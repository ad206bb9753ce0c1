"""`unialign generate`: generate images with a decoder of image embeddings."""

import argparse
import os

from unialign.cli._command import Command, add_device, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import check_sources
from unialign.config import GenerateConfig
from unialign.data import list_datasets

_EXAMPLES = """\
  unialign generate --item tennis --source drawing,text --out runs/tennis
  unialign generate --item tennis --item ship --source text --combine
  unialign generate --text "red apple" --text "blue car"                needs the text encoder: unialign[text]
  unialign generate --text "red apple" --text "blue car" --interpolate 7
  unialign generate --data my-store/ --space runs/train/space --decoder runs/decoder/decoder --item "item 7"

The space must have a frozen modality (`unialign train --set frozen.image=whiten`) whose embeddings the decoder accepts.
A diffusers folder of Stable unCLIP or Kandinsky 2.2 also works as a decoder (unialign[generate])."""


def run(options: argparse.Namespace) -> int:
    config = resolve(options)

    from unialign.cli._generate import generate

    return generate(config, options.out, options.device)


def resolve(options: argparse.Namespace) -> GenerateConfig:
    config = GenerateConfig.read(options.config, "generation") if options.config else GenerateConfig()
    given = given_settings(options, GenerateConfig)
    if given.get("data", config.data) != config.data:
        # The fingerprint, space and decoder in the file belong to the data in the file.
        old = {key: None for key in ("space", "decoder") if getattr(config, key) == config.data}
        given = {"fingerprint": None, **old, **given}
    config = config.override(given)
    check_sources([config.data])
    # The report may be opened from another folder, so make paths absolute; built-in names and Hub ids are kept.
    paths = {key: getattr(config, key) for key in ("data", "space", "decoder", "prior")}
    return config.override(
        {
            key: os.path.abspath(path)
            for key, path in paths.items()
            if path is not None and path not in list_datasets() and os.path.exists(path)
        }
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_config_file(parser, "call")
    for flag, dest in (("--item", "items"), ("--text", "texts")):
        text = next(entry.help for entry in GenerateConfig.settings() if entry.name == dest)
        parser.add_argument(
            flag, dest=dest, action="append", default=argparse.SUPPRESS, metavar="TEXT", help=f"{text}; repeatable"
        )
    add_settings(parser, GenerateConfig, skip=("items", "texts", "fingerprint"))
    add_device(parser)
    add_out(parser, "generate")


COMMAND = Command(
    name="generate",
    summary="generate images from any modality, mixture or new text, with a decoder of image embeddings",
    usage="[options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
