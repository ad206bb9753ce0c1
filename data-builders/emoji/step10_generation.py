"""Train the shipped space and decoder for images, and store the decoder in half precision.

Usage: step10_generation.py <folder for both> <folder of the decoder's run, which is resumed or reused if finished>"""

import sys
from pathlib import Path

import unialign as ua
from unialign.generation import DecoderConfig, train_decoder

# `python -m benchmarks.frozen_anchor` chose the weight, which is the default of the preset.
SPACE = ua.TrainConfig(
    objective="unialign",
    objective_options={"anchor": "image", "preset": "frozen_anchor", "alignment_weight": 2.0},
    modalities=("image", "drawing", "text", "keywords", "speech"),
    frozen={"image": "whiten"},
    dim=128,
    head="linear",
    dropout=0.5,
    lr=4e-3,
    weight_decay=0.05,
    epochs=60,
)


def main() -> None:
    target, run = Path(sys.argv[1]), Path(sys.argv[2])
    store = ua.data.load_dataset("emoji")
    ua.fit(store, SPACE).space.save_pretrained(target / "space")
    decoder = train_decoder(store, DecoderConfig(), out=run, resume="auto").decoder
    decoder.half().save_pretrained(target / "decoder")


if __name__ == "__main__":
    main()
