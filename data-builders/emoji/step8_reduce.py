"""Reduce columns by PCA (fitted on training rows, centered, not whitened), rotate to equal variances, store as float16.

Columns of one encoder share their axes but not their center, so that vectors of two languages, or of image and
drawing, stay comparable.

Principal components have very unequal variances, and standardizing each of them, as many users do, would amplify the
last components, which are noise (it halved the retrieval of `check_probe.py`). A Hadamard rotation gives all features
equal variance on the rows of the PCA and preserves distances."""

import json

import numpy as np
from common import LANGUAGES, WORK, read_json, write_json
from scipy.linalg import hadamard

# (columns of one encoder, width). The rotation requires powers of two.
ENCODERS = [
    (("image", "drawing"), 256),
    (("text", "keywords"), 256),
    (("speech",), 256),
    (tuple(f"name_{language}" for language in LANGUAGES), 128),
]


def axes_of(centered: np.ndarray, width: int) -> np.ndarray:
    """Compute the first principal axes (as columns), rotated."""
    _, axes = np.linalg.eigh(centered.T @ centered)
    axes = axes[:, ::-1][:, :width]
    # Make the largest entry of each axis positive, since signs are arbitrary and reruns must agree.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])
    return axes @ hadamard(width) / np.sqrt(width)


def share(centered: np.ndarray, axes: np.ndarray) -> float:
    return round(float(((centered @ axes) ** 2).sum() / (centered**2).sum()), 4)


def main() -> None:
    train = np.array(read_json("groups.json")["split"]) == "train"
    stored, facts = {}, {}
    for names, width in ENCODERS:
        raw = {name: np.load(WORK / f"raw_{name}.npy").astype(np.float64) for name in names}
        present = {name: np.any(raw[name] != 0, axis=1) for name in names}
        centered = {name: raw[name] - raw[name][train & present[name]].mean(axis=0) for name in names}
        axes = axes_of(np.concatenate([centered[name][train & present[name]] for name in names]), width)
        for name in names:
            there = present[name]
            reduced = centered[name] @ axes
            reduced[~there] = 0
            stored[name], stored[f"present_{name}"] = reduced.astype(np.float16), there
            facts[name] = {
                "method": "centered, PCA, not whitened, Hadamard rotation; fitted on present training rows",
                "axes_shared_by": list(names),
                "fitted_rows": int((train & there).sum()),
                "input_width": raw[name].shape[1],
                "width": width,
                "explained_variance_train": share(centered[name][train & there], axes),
                "explained_variance_held_out": share(centered[name][~train & there], axes),
            }
            deviation = reduced[train & there].std(axis=0)
            print(
                name,
                json.dumps(facts[name]),
                "absent",
                int((~there).sum()),
                f"deviations {deviation.min():.4f} to {deviation.max():.4f}",
            )
    np.savez(WORK / "features.npz", **stored)
    write_json("pca.json", facts)


if __name__ == "__main__":
    main()
