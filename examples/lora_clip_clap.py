"""Train LoRA adapters on the image encoder of CLIP and the sound encoder of CLAP in one space with captions.

    pip install ".[media,transformers,lora]"
    python examples/lora_clip_clap.py clips/ --rule image=.jpg --rule audio=.wav --rule text=.txt
    python examples/lora_clip_clap.py --tiny --batch-size 64

The first command needs about 1.5 GB of weights from the Hugging Face Hub, and should run on a GPU. `--tiny` generates
pictures, sounds and captions, and models of the same architectures with a few thousand random weights, which takes
seconds on a CPU. Results of `--tiny` say nothing about CLIP or CLAP.
"""

import argparse
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np

import unialign as ua

CLIP, CLAP = "openai/clip-vit-base-patch32", "laion/clap-htsat-unfused"


def config(options: argparse.Namespace) -> ua.TrainConfig:
    """Return the settings: adapters on two encoders, and the captions with the frozen text encoder of CLIP."""
    lora: dict[str, Any] = {"mode": "lora", "r": options.rank, "alpha": 2.0 * options.rank, "lr": options.lora_lr}
    return ua.TrainConfig(
        objective_options={"anchor": "all"},
        encoders={"image": options.image, "audio": options.audio, "text": options.text},
        tune={"image": lora, "audio": lora},
        augment="basic",
        dim=options.dim,
        epochs=options.epochs,
        # All items of a batch are negatives of each other; only a micro-batch of activations is in memory at a time.
        batch_size=options.batch_size,
        micro_batch_size=options.micro_batch_size,
        early_stopping_patience=3,
    )


def main(arguments: list[str] | None = None) -> ua.evaluation.Evaluation:
    """Train, save and load a space, and return its scores on test items."""
    options = parsed(arguments)
    out = options.out
    if options.tiny:
        items = tiny_items(out / "tiny-media")
        options.image, options.audio, options.text = tiny_models(out / "tiny-models")
    else:
        items = ua.data.Items.open(options.data, rules=dict(rule.split("=", 1) for rule in options.rule) or None)
    items = items.select(["image", "audio", "text"])
    if not items.has_split:
        items = items.with_split(ua.data.random_split(len(items), groups=items.groups))

    embedding = ua.config.EmbedConfig(workers=0) if options.tiny else None
    ua.fit(items, config(options), embedding=embedding, out=out / "run", resume="auto")

    space = ua.Space.from_pretrained(out / "run" / "space")
    for name, reference in space.encoders.items():
        print(f"{name}: {reference['kind']}:{Path(reference['name']).name}, stored as {reference['stored']}")
    size = sum(path.stat().st_size for path in (out / "run" / "space").rglob("*") if path.is_file())
    print(f"the folder of the space has {size / 2**20:.2f} MiB")

    found = ua.evaluate(items, space, embedding=embedding)
    for direction, metrics in found.directions.items():
        if "+" not in direction:
            print(f"{direction}: R@1 {100 * metrics['recall@1']:.1f} %, R@10 {100 * metrics['recall@10']:.1f} %")
    print(f"mean R@1 {100 * found.metrics['recall@1']:.1f} %, chance {100 * found.chance['recall@1']:.1f} %")
    return found


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder, manifest or item table with images, sounds and texts")
    parser.add_argument("--rule", action="append", default=[], metavar="MODALITY=SUFFIX")
    parser.add_argument("--image", default=f"transformers:{CLIP}?tower=vision")
    parser.add_argument("--audio", default=f"transformers:{CLAP}?tower=audio")
    parser.add_argument("--text", default=f"transformers:{CLIP}?tower=text")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--lora-lr", type=float, default=2e-4)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--micro-batch-size", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/lora"))
    parser.add_argument("--tiny", action="store_true", help="generated data and models with random weights")
    options = parser.parse_args(arguments)
    if (options.data is None) != options.tiny:
        parser.error("give either DATA or --tiny")
    return options


def tiny_items(folder: Path, count: int = 200) -> ua.data.Items:
    """Write pictures, tones and captions of the same colors. A fifth of the sounds are missing."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    colors = {"red": (1, 0, 0), "yellow": (1, 1, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "violet": (1, 0, 1)}
    sizes = ("tiny", "small", "large", "huge")
    records = []
    for i in range(count):
        color, size = list(colors)[i % 5], sizes[i // 5 % 4]
        pixels = rng.integers(0, 50, (40, 40, 3)).astype(np.uint8)
        side = 8 * (1 + sizes.index(size))
        pixels[:side, :side] = 200 * np.array(colors[color], np.uint8) + 20
        seconds = np.arange(16000) / 16000
        pitch = 200 * 2 ** (i % 5 + sizes.index(size) / 8)
        tone = np.sin(2 * np.pi * pitch * seconds) * np.exp(-3 * seconds) + 0.02 * rng.normal(size=16000)
        if not (folder / f"{i}.wav").exists():  # a repeated run continues, so its files must be the same
            Image.fromarray(pixels).save(folder / f"{i}.png")
            with wave.open(str(folder / f"{i}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes((12000 * tone).astype("<i2").tobytes())
        text = f"a {size} {color} square, number {i}"
        audio = None if i % 5 == i // 5 % 5 else f"{i}.wav"
        records.append({"id": f"item {i}", "image": f"{i}.png", "audio": audio, "text": text})
    return ua.data.Items.from_records(records, root=folder, name="squares (generated)")


def tiny_models(folder: Path) -> tuple[str, str, str]:
    """Save a CLIP and a CLAP with random weights, and return the names of their encoders."""
    import torch
    import transformers

    layers: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32}
    text = layers | {"vocab_size": 80, "intermediate_size": 64, "max_position_embeddings": 40}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=40)
    clip = transformers.CLIPConfig(
        text_config=text | {"eos_token_id": 3, "bos_token_id": 2},
        vision_config=layers | {"image_size": 32, "patch_size": 8, "intermediate_size": 64},
        projection_dim=24,
    )
    clap = transformers.ClapConfig(
        text_config=text | {"pad_token_id": 0},
        audio_config={
            "spec_size": 64, "num_mel_bins": 32, "patch_stride": [4, 4], "patch_embeds_hidden_size": 8,
            "depths": [1, 1], "num_attention_heads": [1, 2], "window_size": 4, "num_hidden_layers": 2,
            "hidden_size": 16,
        },
        projection_dim=24,
    )  # fmt: skip
    sound = transformers.ClapFeatureExtractor(
        feature_size=32, sampling_rate=16000, max_length_s=1, hop_length=160, fft_window_size=512, frequency_max=8000
    )
    pixels = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 32}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28],
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {"clip": transformers.CLIPModel(clip), "clap": transformers.ClapModel(clap)}
    for name, model in models.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    sound.save_pretrained(folder / "clap")
    (folder / "clip" / "preprocessor_config.json").write_text(json.dumps(pixels), "utf-8")
    names = {name: f"transformers:{(folder / name).resolve()}" for name in models}
    return f"{names['clip']}?tower=vision", f"{names['clap']}?tower=audio", f"{names['clip']}?tower=text"


if __name__ == "__main__":
    main()
