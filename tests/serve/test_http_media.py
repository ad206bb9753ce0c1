"""Test files of requests: their type, size and content, and malformed multipart bodies."""

import io
import struct
import wave
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve_support import Client, multipart, png

Make = Callable[..., Client]
PATH = "/api/v1/search/files"


def send(call: Client, content: bytes, **changes: Any) -> Any:
    body, headers = multipart({"parts": [{"file": "f0"}], "k": 3}, {"f0": content})
    return call("POST", PATH, body, headers=headers | changes)


def saved(image: Any, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def wav(samples: np.ndarray, *, rate: int = 16_000, width: int = 2, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        scaled = np.clip(samples * (2 ** (8 * width - 1) - 1), -(2 ** (8 * width - 1)), None).astype("<i4")
        file.writeframes(b"".join(int(one).to_bytes(width, "little", signed=True) for one in scaled))
    return out.getvalue()


def float_wav(samples: np.ndarray) -> bytes:
    data = samples.astype("<f4").tobytes()
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, 16_000, 64_000, 4, 32)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + head + b"data" + struct.pack("<I", len(data)) + data


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes and many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width // 8 + 1, 4000) * min(height, 1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


LONG_HEADER = b'--limit\r\nContent-Disposition: form-data; name="%s"\r\n\r\n\r\n--limit--\r\n' % (b"f" * 5000)
TONE = 0.5 * np.sin(np.arange(8_000) / 20)


def images() -> dict[str, bytes]:
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8))
    frames = [Image.new("P", (20, 20), shade) for shade in (0, 100, 200)]
    return {
        "png": png(),
        "jpeg": saved(noise, "JPEG"),
        "cmyk jpeg": saved(noise.convert("CMYK"), "JPEG"),
        "webp": saved(noise, "WEBP"),
        "animated gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "transparent": saved(Image.new("RGBA", (10, 10), (0, 0, 0, 0)), "PNG"),
        "grey": saved(noise.convert("L"), "PNG"),
        "one pixel": png(size=(1, 1)),
        # A picture followed by a web page is decoded as a picture, and never sent back.
        "polyglot": png() + b"<script>alert(1)</script>",
    }


@pytest.mark.parametrize("name", list(images()))
def test_pictures_are_read(client: Make, name: str) -> None:
    answer = send(client(), images()[name])
    assert answer.status == 200, answer.body
    assert len(answer.json["results"]) == 3


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "broken_media"),
        (b"hello", 415, "unknown_media"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unknown_media"),
        (b"%PDF-1.4", 415, "unknown_media"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", 415, "unknown_media"),
        (b"BM" + bytes(100), 415, "unknown_media"),
        (b"PK\x03\x04" + bytes(100), 415, "unknown_media"),
        (b"\x93NUMPY" + bytes(100), 415, "unknown_media"),
        (b"\x80\x04\x95" + bytes(100), 415, "unknown_media"),
        (b"GIF89a" + bytes(4), 415, "not_an_image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), 415, "not_an_image"),
        (b"\xff\xd8\xff" + bytes(50), 415, "not_an_image"),
        (b"RIFF\x10\0\0\0WAVE" + bytes(50), 415, "not_a_sound"),
        (b"fLaC" + bytes(50), 415, "not_a_sound"),
        (b"OggS" + bytes(50), 415, "not_a_sound"),
        (bomb(30_000, 30_000), 422, "too_many_pixels"),
        (bomb(2**31 - 1, 2**31 - 1), 422, "too_many_pixels"),
        (bomb(6400, 6251), 422, "too_many_pixels"),
        (png(size=(300, 300))[:300], 422, "broken_media"),
        (images()["jpeg"][:-100], 422, "broken_media"),
    ],
)
def test_broken_pictures_and_other_files(client: Make, content: bytes, status: int, code: str) -> None:
    answer = send(client(), content)
    assert (answer.status, answer.code) == (status, code)
    assert answer.json["error"]["field"] == "f0"


def test_the_limit_of_pixels_is_that_of_the_header(client: Make) -> None:
    call = client(pixels=1200)
    assert send(call, png(size=(40, 30))).status == 200
    answer = send(call, png(size=(40, 31)))
    assert (answer.code, answer.json["error"]["limit"]) == ("too_many_pixels", 1200)


def test_sounds_are_read(client: Make) -> None:
    import soundfile

    call = client()
    flac, ogg = io.BytesIO(), io.BytesIO()
    soundfile.write(flac, TONE, 16_000, format="FLAC")
    soundfile.write(ogg, TONE, 16_000, format="OGG")
    sounds = {
        "16 bit": wav(TONE),
        "24 bit": wav(TONE, width=3),
        "32 bit": wav(TONE, width=4),
        "float": float_wav(TONE),
        "stereo": wav(np.repeat(TONE, 2), channels=2),
        "44.1 kHz": wav(TONE, rate=44_100),
        "flac": flac.getvalue(),
        "ogg": ogg.getvalue(),
    }
    found = {}
    for name, content in sounds.items():
        answer = send(call, content)
        assert answer.status == 200, (name, answer.body)
        found[name] = [hit["key"] for hit in answer.json["results"]]
    assert found["24 bit"] == found["32 bit"] == found["float"] == found["stereo"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (wav(TONE[:0]), "broken_media"),
        (float_wav(np.array([0.0, np.nan, 0.1])), "broken_media"),
        (float_wav(np.array([0.0, np.inf])), "broken_media"),
        (wav(TONE, rate=100), "broken_media"),
        (wav(np.repeat(TONE[:100], 9), channels=9), "too_many_channels"),
        (wav(np.zeros(61 * 1000), rate=1000), "too_long"),
    ],
)
def test_broken_sounds(client: Make, content: bytes, code: str) -> None:
    answer = send(client(), content)
    assert (answer.status, answer.code) == (422, code)


def test_the_limit_of_the_duration(client: Make) -> None:
    call = client(sound_seconds=0.5)
    assert send(call, wav(TONE)).status == 200
    assert send(call, wav(np.append(TONE, 0.0))).code == "too_long"


def test_limits_of_files_and_bodies(client: Make) -> None:
    picture = png()
    call = client(file_bytes=len(picture), files=2)
    assert send(call, picture).status == 200
    assert send(call, picture + b" ").code == "file_too_large"
    request = {"parts": [{"file": f"f{i}"} for i in range(3)]}
    body, headers = multipart(request, {f"f{i}": picture for i in range(3)})
    answer = call("POST", PATH, body, headers=headers)
    assert (answer.status, answer.code) == (413, "too_many_files")
    assert client(files=3)("POST", PATH, body, headers=headers).status == 200
    assert client(upload_bytes=len(body))("POST", PATH, body, headers=headers).status == 200
    answer = client(upload_bytes=len(body) - 1)("POST", PATH, body, headers=headers)
    assert (answer.status, answer.code) == (413, "too_large")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed"),
        (b"no boundary at all", 400, "malformed"),
        (multipart({"parts": []}, {})[0][:-20], 400, "malformed"),
        (multipart(b"{x", {})[0], 400, "malformed"),
        (multipart(b"[" * 100_000, {})[0], 400, "malformed"),
        (multipart({"parts": [{"file": "f1"}]}, {"f0": png()})[0], 422, "unused_file"),
        (multipart({"parts": [{"file": "f0"}]}, {"../f0": png()})[0], 422, "unknown_part"),
        (multipart({"parts": [{"text": "a"}], "path": "/etc/passwd"}, {})[0], 422, "unknown_field"),
        (multipart({"parts": []}, {})[0].replace(b'name="request"', b'name="f3"'), 422, "no_request"),
        (LONG_HEADER, 400, "malformed"),
    ],
)
def test_malformed_multipart(client: Make, body: bytes, status: int, code: str) -> None:
    _, headers = multipart({}, {})
    answer = client()("POST", PATH, body, headers=headers)
    assert (answer.status, answer.code) == (status, code)


def test_a_repeated_part_is_an_error(client: Make) -> None:
    body, headers = multipart({"parts": [{"file": "f0"}]}, {"f0": png(), "f1": png()})
    answer = client()("POST", PATH, body.replace(b'name="f1"', b'name="f0"'), headers=headers)
    assert answer.code == "repeated_part"


def test_uploads_do_not_touch_the_disk(client: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("a temporary file was made")

    for name in ("SpooledTemporaryFile", "NamedTemporaryFile", "TemporaryFile", "mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, fail)
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    from PIL import Image

    large = saved(Image.fromarray(noise), "PNG")
    assert len(large) > 2_000_000
    assert send(client(), large).status == 200
