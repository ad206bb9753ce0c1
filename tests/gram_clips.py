"""Six clips in the layout of GRAM, with real media, whose ranks can be worked out by hand.

| clip | video | audio | captions |
|---|---|---|---|
| c1 | red | 500 Hz in audio/ | red |
| c2 | green | 1,000 Hz in the video | green |
| c3 | blue | none: the video has no audio stream | blue |
| c4 | none | 500 Hz in audio/ | red red green |
| c5 | damaged | none | green blue |
| c6 | red | 2,000 Hz in audio/ | red blue; blue |

`red`, `green` and `blue`, and 500, 1,000 and 2,000 Hz, are the three axes. A caption is the sum of its words.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign.encoders import Encoder, wrap

RATE = 16000
COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
TONES = (500, 1000, 2000)
WORDS = tuple(COLORS)
CAPTIONS: dict[str, Any] = {
    "c1": ["red"],
    "c2": ["green"],
    "c3": ["blue"],
    "c4": ["red red green"],
    "c5": ["green blue"],
    "c6": ["red blue", "blue"],
}


def tone(hertz: int) -> Any:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32)


def write_video(path: Path, color: str, hertz: int | None = None) -> None:
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        audio = container.add_stream("aac", rate=RATE) if hertz else None
        if audio is not None:
            audio.layout = "mono"
        pixels = np.broadcast_to(np.array(COLORS[color], np.uint8), (32, 32, 3))
        for _ in range(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(video.encode())
        if audio is not None and hertz:
            frame = av.AudioFrame.from_ndarray(tone(hertz)[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            container.mux(audio.encode(frame))
            container.mux(audio.encode())


def write_sound(path: Path, hertz: int) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(hertz), RATE)


def write_clips(folder: Path) -> Path:
    write_video(folder / "vision/c1.mp4", "red")
    write_video(folder / "vision/c2.mp4", "green", 1000)
    write_video(folder / "vision/c3.mp4", "blue")
    write_video(folder / "vision/c6.mkv", "red")
    (folder / "vision/c5.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(200))
    # The name only begins with that of a clip.
    write_video(folder / "vision/c44.mp4", "blue")
    write_sound(folder / "audio/c1.wav", 500)
    write_sound(folder / "audio/c4.flac", 500)
    write_sound(folder / "audio/c6.wav", 2000)
    entries = [
        {"video_id": name, "desc": texts if len(texts) > 1 else texts[0], "subtitle": ""}
        for name, texts in CAPTIONS.items()
    ]
    (folder / "descs_ret_test.json").write_text(json.dumps(entries))
    return folder


def axes_of_video(media: Any) -> dict[str, Any]:
    color = np.asarray(media.frames, np.float64).mean((0, 1, 2))
    return {"x": (color > 128).astype(np.float32)}


def axes_of_audio(media: Any) -> dict[str, Any]:
    samples = np.asarray(media.samples, np.float64).reshape(-1)
    peak = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * media.rate / len(samples)
    return {"x": (np.abs(np.array(TONES) - peak) < 50).astype(np.float32)}


def axes_of_text(media: Any) -> dict[str, Any]:
    return {"x": np.array([str(media).split().count(word) for word in WORDS], np.float32)}


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


def encoders() -> dict[str, Encoder]:
    prepare = {"video": axes_of_video, "audio": axes_of_audio, "text": axes_of_text}
    with torch.random.fork_rng():
        return {
            name: wrap(Same(), media=name, dim=3, prepare=function, name=f"axes-{name}")  # type: ignore[arg-type]
            for name, function in prepare.items()
        }
