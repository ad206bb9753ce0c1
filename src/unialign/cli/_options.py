"""Options of every command. Imports nothing heavy, so that `--help` answers at once."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from unialign.losses import initialization, names, needs_anchor

__all__ = ["EXAMPLES", "add_options", "results_folder"]

EXAMPLES = {
    "diagnose": """examples:
  unialign diagnose embeddings.npz
  unialign diagnose image.npy text.safetensors audio=run7/last_layer.npy
  unialign diagnose my-store/ --modalities image text --out runs/check

Files: .npz, .npy, .safetensors, .parquet (needs pyarrow: pip install 'unialign[parquet]') or the folder of an
EmbeddingStore. A matrix (items, width) is a modality, named by its key or by its file. The arrays `ids` and `labels`
(items,) and `present.NAME` (items,) bool are understood: items with equal ids answer each other, absent rows are left
out. In parquet a list column is a modality and a null row an absent one. Compressed .npz and .parquet are slower to
read. Nothing is unpickled. The exit status is 0 whatever is found (1 with --fail-on), and 2 if a file cannot be read.
Another diagnosis's results in --out are replaced.""",
    "demo": """example:
  unialign demo
  unialign demo --seeds 0 --out runs/quick""",
    "train": """example:
  unialign train emoji --objective unialign --anchor text --epochs 60
  unialign train my-store/ --objective infonce --set weight_decay=0.05 --set objective_options.temperature=0.1
  unialign train emoji --resume must          continue an interrupted run from its newest checkpoint
  torchrun --nproc-per-node 2 -m unialign train my-store/          two processes, one run (srun starts them as well)""",
    "evaluate": """example:
  unialign evaluate runs/train/space emoji
  unialign evaluate runs/train/space my-store/ --split val --out runs/validation""",
    "compare": """example:
  unialign compare digits --objectives unialign infonce gram --anchor pix --seeds 0 1 2
  unialign compare --config runs/demo/config.yaml --out runs/again""",
    "generate": """examples:
  unialign generate --item hedgehog --from drawing,speech --out runs/hedgehog
  unialign generate --item "hedgehog" --item "ship" --from text --together
  unialign generate --text "red apple" --text "blue car"                needs the text encoder: unialign[text]
  unialign generate --text "red apple" --text "blue car" --strip 7      a path from one to the other
  unialign generate --data my-store/ --space runs/train/space --decoder runs/decoder/decoder --item "item 7"

The space must have a frozen modality (`unialign train --set frozen.image=whiten`), whose embeddings the decoder reads.
A folder of diffusers' Stable unCLIP or Kandinsky 2.2 is a decoder too (unialign[generate]).""",
    "decoder": """examples:
  unialign decoder train emoji --out runs/decoder                 reads the pictures of the store: unialign[images]
  unialign decoder train emoji --out runs/decoder                 the same again: an interrupted run continues
  unialign decoder sample runs/decoder/decoder emoji              held-out pictures over what it makes of them""",
}


def add_options(command: str, parser: ArgumentParser) -> None:
    {
        "demo": _demo,
        "train": _train,
        "evaluate": _evaluate,
        "compare": _compare,
        "diagnose": _diagnose,
        "generate": _generate,
        "decoder": _decoder,
    }[command](parser)


def _demo(parser: ArgumentParser) -> None:
    _output(parser, "demo")
    _seeds(parser)
    _workers(parser)


def _train(parser: ArgumentParser) -> None:
    _data(parser)
    parser.add_argument("--config", type=Path, help="a config.yaml that an earlier run wrote; options given here win")
    parser.add_argument("--objective", help=f"{_listed(names(), 'or')} (default: unialign)")
    needing = [name for name in names() if needs_anchor(name) != "no"]
    _training(
        parser,
        anchor=f"all, every pair, as the objectives themselves have it; the data's first modality for "
        f"{_listed(needing, 'and')}, which must have one named",
    )
    parser.add_argument("--seed", type=int, help="seed of weights and batches (default: 0)")
    parser.add_argument(
        "--resume",
        choices=("never", "auto", "required"),
        default="auto",
        help="an unfinished run in --out: continue it if there is one (auto), insist on one (must), refuse it (never)",
    )
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="rows to evaluate at the end")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    _output(parser, "train")


def _evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("space", nargs="?", help="a folder written by `Space.save_pretrained`, or a hub id")
    _data(parser)
    parser.add_argument("--config", type=Path, help="a config.yaml that an earlier evaluation wrote; options here win")
    parser.add_argument("--split", choices=("train", "val", "test"), help="rows to evaluate (default: test)")
    parser.add_argument("--anchor", help="anchor of the conflict diagnostics (default: mean over all modalities)")
    _resamples(parser)
    _output(parser, "evaluate")


def _compare(parser: ArgumentParser) -> None:
    continuing = [name for name in names() if initialization(name) == "contrastive"]
    _data(parser)
    parser.add_argument("--config", type=Path, help="a config.yaml that an earlier comparison wrote; options here win")
    parser.add_argument(
        "--objectives",
        nargs="+",
        action="extend",
        metavar="NAME",
        help=f"of {_listed(names(), 'and')}, default: unialign infonce gram; {_listed(continuing, 'and')} begin with "
        f"InfoNCE, as their authors do",
    )
    _training(
        parser,
        anchor="the data's first modality, for every objective that has an anchor: some must have one named, and "
        "objectives are comparable with the same one only",
    )
    parser.add_argument("--split", choices=("train", "val", "test"), help="rows to evaluate (default: test)")
    _seeds(parser)
    _resamples(parser)
    _workers(parser)
    _output(parser, "compare")


def _diagnose(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="files of embeddings, all with the same items in the same order; NAME=FILE names a file's only matrix",
    )
    parser.add_argument("--config", type=Path, help="a config.yaml that an earlier diagnosis wrote; options here win")
    parser.add_argument(
        "--modalities", nargs="+", action="extend", metavar="NAME", help="matrices to look at (default: all)"
    )
    parser.add_argument(
        "--sample",
        type=int,
        help="items to look at closely (default: up to 2048, fewer for more than 6 modalities); all rows are read",
    )
    parser.add_argument("--resamples", type=int, help="bootstrap resamples (default: 1000)")
    parser.add_argument("--seed", type=int, help="seed of the sample and the bootstrap (default: 0)")
    parser.add_argument(
        "--fail-on",
        choices=("problem", "warning"),
        help="exit with 1 if something as bad as that is found, for CI (default: always 0)",
    )
    _output(parser, "diagnose")


def _generate(parser: ArgumentParser) -> None:
    parser.add_argument("--item", action="append", metavar="NAME", help="an item of the data, by name or as #row")
    parser.add_argument(
        "--from",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="modalities that items are shown through, mixed (default: all but the anchor)",
    )
    parser.add_argument("--text", action="append", metavar="WORDS", help="a new text")
    parser.add_argument(
        "--together", action="store_true", help="one picture of all items and texts mixed, not one each"
    )
    parser.add_argument("--strip", type=int, metavar="N", help="a path of N pictures through all that is given")
    parser.add_argument(
        "--mix",
        choices=("mean", "unnormalized_mean", "barycentre"),
        help="how modalities are mixed (default: mean, which has unit length; unnormalized_mean as in the paper)",
    )
    parser.add_argument(
        "--weights", nargs="+", action="extend", type=float, metavar="W", help="of the parts, in the order given"
    )
    parser.add_argument(
        "--samples", type=int, metavar="V", help="pictures of each, with noises of their own (default: 4)"
    )
    parser.add_argument("--seed", type=int, help="of the noise (default: 0)")
    parser.add_argument("--steps", type=int, help="of the sampler (default: the decoder's)")
    parser.add_argument("--guidance", type=float, help="1 is none (default: the decoder's)")
    parser.add_argument("--data", help="a shipped data set or the folder of an EmbeddingStore (default: emoji)")
    parser.add_argument(
        "--space", help="a saved space with a frozen anchor (default: the one that comes with the data)"
    )
    parser.add_argument("--decoder", help="folder or hub id of a decoder (default: the data's own)")
    parser.add_argument(
        "--prior", help="folder or hub id of the prior, whose image tower a Kandinsky 2.2 decoder needs"
    )
    parser.add_argument("--device", default="auto", help="of the decoder: auto, cpu, cuda or cuda:1 (default: auto)")
    parser.add_argument("--anchor", help="frozen modality in whose place is decoded, if there are several")
    parser.add_argument("--config", type=Path, help="a config.yaml that an earlier call wrote; options here win")
    _output(parser, "generate")


def _decoder(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    train = actions.add_parser("train", help="train a decoder on the pictures of a store", allow_abbrev=False)
    _data(train)
    train.add_argument("--config", type=Path, help="a config.yaml that an earlier run wrote; options given here win")
    train.add_argument("--image", help="the column of image embeddings that it will read (default: image)")
    train.add_argument("--network", choices=("mlp", "unet"), help="for a CPU, or a GPU (default: mlp)")
    train.add_argument("--size", type=int, help="pixels a side (default: 32)")
    train.add_argument("--steps", type=int, help="of training")
    train.add_argument("--seed", type=int, help="of weights, order and noise (default: 0)")
    train.add_argument(
        "--set", nargs="+", action="extend", metavar="KEY=VALUE", default=[], help="any other setting of a decoder"
    )
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    train.add_argument(
        "--resume",
        choices=("never", "auto", "required"),
        default="auto",
        help="an unfinished run in --out: continue it if there is one (auto), insist on one (must), refuse it (never)",
    )
    _output(train, "decoder")
    look = actions.add_parser("sample", help="what a decoder makes of the embeddings of a split", allow_abbrev=False)
    look.add_argument("decoder", help="folder or hub id of a decoder, or the name of a shipped one")
    _data(look)
    look.add_argument("--prior", help="folder or hub id of the prior, whose image tower a Kandinsky 2.2 decoder needs")
    look.add_argument("--image", help="the column of image embeddings (default: the one it was trained on)")
    look.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: test")
    look.add_argument("--count", type=int, default=64, help="items, evenly spread over the split (default: 64)")
    look.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    look.add_argument("--steps", type=int, help="of the sampler (default: the decoder's)")
    look.add_argument("--guidance", type=float, help="1 is none (default: the decoder's)")
    look.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")
    look.add_argument(
        "--out", type=results_folder, default=Path("runs") / "samples.png", help="default: runs/samples.png"
    )


def _data(parser: ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="?",
        help="a shipped data set (emoji, digits) or the folder of an EmbeddingStore",
    )


def _training(parser: ArgumentParser, *, anchor: str) -> None:
    parser.add_argument("--anchor", help=f"modality that the others align to, or `all` (default: {anchor})")
    parser.add_argument(
        "--modalities",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="columns to train on (default: the data's own choice)",
    )
    parser.add_argument("--epochs", type=int, help="passes over the training split")
    parser.add_argument("--batch-size", type=int, help="items per batch")
    parser.add_argument("--micro-batch-size", type=int, help="items that the heads see at once (default: the batch)")
    parser.add_argument("--lr", type=float, help="peak learning rate")
    parser.add_argument("--dim", type=int, help="width of the shared space")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        default=[],
        help="any other training setting, e.g. objective_options.temperature=0.1",
    )


def _seeds(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", nargs="+", action="extend", type=int, metavar="S", help="one run per seed (default: 0 1 2)"
    )


def _resamples(parser: ArgumentParser) -> None:
    parser.add_argument("--resamples", type=int, default=None, help="bootstrap resamples (default: 2000)")


def _workers(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=int, default=None, help="runs trained at the same time, one thread each (default: the cores)"
    )


def _output(parser: ArgumentParser, name: str) -> None:
    parser.add_argument(
        "--out", type=results_folder, default=Path("runs") / name, help=f"results folder (default: runs/{name})"
    )


def results_folder(text: str) -> Path:
    if not text.strip():
        raise ArgumentTypeError("expected a folder, got nothing")
    return Path(text)


def _listed(words: Sequence[str], last: str) -> str:
    """`a, b or c`."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
