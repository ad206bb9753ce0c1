"""`unialign diagnose`: find problems in embeddings."""

import argparse
from pathlib import Path

from unialign.cli._command import Command, add_out
from unialign.cli._settings import add_config_file, add_settings, given_settings
from unialign.config import DiagnoseConfig
from unialign.errors import ConfigError

_EXAMPLES = """\
  unialign diagnose embeddings.npz
  unialign diagnose image.npy text.safetensors audio=run7/last_layer.npy
  unialign diagnose my-store/ --modalities image text --out runs/check
  unialign diagnose new.npy --against old.npy
  unialign diagnose my-store/ --fix-list fix.csv

Files: .npz, .npy, .safetensors, .csv, .tsv, .jsonl, word2vec text, flat faiss indexes, .parquet, .feather, .arrow
(need pyarrow: pip install 'unialign[parquet]'), HDF5, .h5ad, .h5mu (need h5py: 'unialign[hdf5]'), or the folder of an
EmbeddingStore. Each matrix (items, dim) is a modality, named by its key or its file. The arrays `ids` and `labels`
(items,) and `present.NAME` (items,) bool are recognized: items with the same id match each other, and absent rows are
left out. Files are joined by ids: `ids`, --id NAME, or a common name such as id, key or image_id. Part files such as
img_emb_0.npy, folders and 'patterns*' are one modality. Nothing is unpickled. With --against, two versions of the same
embeddings are compared row by row. The exit status is 0 even if problems are found (1 with --fail-on), and 2 if a file
cannot be read. An earlier diagnosis in --out is replaced."""


def run(options: argparse.Namespace) -> int:
    values = DiagnoseConfig.read(options.config).to_dict() if options.config else {}
    given = {key: value for key, value in given_settings(options, DiagnoseConfig).items() if key != "files" or value}
    if not options.files and not options.config:
        if getattr(options, "against", None):
            raise ConfigError("pass the new file first, as in `unialign diagnose new.npy --against old.npy`")
        raise ConfigError(
            "no file is given; pass the files of embeddings, as in `unialign diagnose embeddings.npz`, or give --config"
        )
    config = DiagnoseConfig.from_dict(values | given)

    from unialign.cli._diagnose import diagnose_files

    return diagnose_files(config, options.out, options.fail_on, options.fix_list)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="files of embeddings with the same items in the same order, or with ids; NAME=FILE sets the name of a "
        "file's only matrix",
    )
    add_config_file(parser, "diagnosis")
    add_settings(parser, DiagnoseConfig, skip=("files",))
    parser.add_argument(
        "--fail-on",
        choices=("problem", "warning"),
        help="exit with status 1 if a finding is at least this severe, for CI (default: always 0)",
    )
    parser.add_argument(
        "--fix-list",
        type=Path,
        metavar="FILE",
        help="write the items to check or remove to a .csv, .json or .jsonl file: "
        "row, key, modality, finding, value, action",
    )
    add_out(parser, "diagnose")


COMMAND = Command(
    name="diagnose",
    summary="find problems in files of embeddings, and report them with explanations, numbers and plots",
    usage="FILE ... [options]",
    examples=_EXAMPLES,
    add_options=_add_options,
    run=run,
)
