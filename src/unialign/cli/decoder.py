"""`unialign decoder`: train a decoder of image embeddings, or generate images with a decoder."""

import argparse
from collections.abc import Mapping
from typing import Any, get_args

from unialign.cli._command import Command, add_device, add_out, add_resume
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.cli._sources import add_data, required_data
from unialign.config import DecoderConfig, Split, read_yaml
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign decoder train emoji --out runs/decoder             needs unialign[images] to read the images
  unialign decoder train emoji --out runs/decoder             run again to continue an interrupted run
  unialign decoder sample runs/decoder/decoder emoji          held-out images above the generated images"""


def run(options: argparse.Namespace) -> int:
    if options.action == "sample":
        sources = required_data(options.data, "decoder sample emoji emoji")

        from unialign.cli._decoder import sample

        return sample(sources, options)
    sources, fingerprint, image, config = resolve(options)

    from unialign.cli._decoder import train

    return train(sources, fingerprint, image, config, options)


def resolve(options: argparse.Namespace) -> tuple[tuple[str, ...], str | None, str, DecoderConfig]:
    """Return sources, their required fingerprint (None for any), the image modality and the settings."""
    config = DecoderConfig.read(options.config, "decoder") if options.config else DecoderConfig()
    source: Any = {}
    if options.config:
        source = read_yaml(options.config).get("data")
        if not isinstance(source, Mapping):
            raise ConfigError(f"{options.config} is not a decoder configuration: the mapping `data` is missing")
    sources, fingerprint = tuple(options.data), None
    if not sources and (written := source.get("path") or source.get("name")):
        sources, fingerprint = (str(written),), source.get("fingerprint")
    image = options.image or source.get("image") or "image"
    config = config.override(given_settings(options, DecoderConfig))
    return required_data(sources, "decoder train emoji"), fingerprint, image, config


def _add_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train = actions.add_parser(
        "train", usage="unialign decoder train [DATA ...] [options]", help="train a decoder on the images of a store"
    )
    add_data(train)
    add_config_file(train, "run")
    train.add_argument("--image", metavar="NAME", help="modality of the image embeddings (default: image)")
    add_settings(train, DecoderConfig)
    add_resume(train)
    add_out(train, "decoder")
    sample = actions.add_parser(
        "sample",
        usage="unialign decoder sample DECODER DATA [options]",
        help="generate images from the embeddings of a split",
    )
    sample.add_argument(
        "decoder", metavar="DECODER", help="folder or Hub id of a decoder, or name of a shipped decoder"
    )
    add_data(sample)
    sample.add_argument(
        "--prior",
        help="folder or Hub id of the prior with the image encoder of a Kandinsky 2.2 decoder (default: none)",
    )
    sample.add_argument(
        "--image", metavar="NAME", help="modality of the image embeddings (default: the decoder's training modality)"
    )
    sample.add_argument("--split", choices=get_args(Split), default="test", help="split of the items (default: test)")
    sample.add_argument(
        "--count", type=int, default=64, help="number of items, evenly spaced in the split (default: 64)"
    )
    sample.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    sample.add_argument("--steps", type=int, help="sampler steps (default: the decoder's)")
    sample.add_argument("--guidance", type=float, help="guidance scale; 1 disables guidance (default: the decoder's)")
    add_device(sample)
    add_out(sample, "samples.png", what="image file to write", metavar="FILE")


COMMAND = Command(
    name="decoder",
    summary="train a decoder of image embeddings, or generate images of held-out items with a decoder",
    usage="{train,sample} ...",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
