"""Test the times of sounds and videos: spans, rates, chosen frames and orientation."""

import io
import struct
from typing import Any

import av
import numpy as np
import pytest
import soxr

from media.media_files import RATE, TONE, sound_bytes, video_bytes
from unialign.errors import MediaError
from unialign.media import Audio, Cell, Decoding, MediaLimits, Video, as_media, decode, load_cell

LEVELS = list(range(0, 240, 8))


def loaded(data: bytes, kind: Any, folder: Any, *, span: Any = None, **options: Any) -> Any:
    (folder / "a").write_bytes(data)
    return load_cell(Cell(path="a", span=span), kind, roots=[folder], decoding=Decoding(**options))


def levels(video: Video) -> list[int]:
    """Return the index in `LEVELS` of the grey of each frame."""
    return [round(float(frame[..., 1].mean()) / 8) for frame in video.frames]


def gram_frames(count: int, wanted: int) -> list[int]:
    """Return the frames as the evaluation code of VAST and GRAM chooses them."""
    names = list(range(count))
    if count < wanted:
        names += [names[-1]] * (wanted - count)
    each, rest = divmod(len(names), wanted)
    runs = [names[i * each + min(i, rest) : (i + 1) * each + min(i + 1, rest)] for i in range(wanted)]
    return [run[(len(run) + 1) // 2 - 1] for run in runs]


def test_frames_are_those_of_the_published_evaluation() -> None:
    for count in (1, 2, 5, 8, 31, 60):
        frames = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
        for wanted in (1, 2, 3, 8):
            found = as_video(frames, Decoding(frames=wanted))
            assert found.frames[:, 0, 0, 0].tolist() == gram_frames(count, wanted)
        assert as_video(frames, Decoding()).frames.shape == frames.shape


def as_video(frames: Any, decoding: Decoding) -> Video:
    found = as_media(frames, "video", decoding=decoding)
    assert isinstance(found, Video)
    return found


def test_random_frames_are_in_their_runs_and_depend_on_the_seed() -> None:
    frames = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    chosen = [as_video(frames, Decoding(frames=6, seed=seed)).frames[:, 0, 0, 0] for seed in range(20)]
    np.testing.assert_array_equal(chosen[3], as_video(frames, Decoding(frames=6, seed=3)).frames[:, 0, 0, 0])
    assert len({tuple(row) for row in np.array(chosen).tolist()}) > 15
    assert (np.array(chosen) // 10 == np.arange(6)).all()


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("mp4", "mpeg4", {}),
        ("mp4", "libx264", {"bf": "2", "x264-params": "open-gop=0"}),
        ("avi", "mpeg4", {}),
        ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10"}),
        ("mpegts", "mpeg2video", {}),
    ],
)
def test_chosen_frames_of_files(tmp_path: Any, container: str, codec: str, options: dict[str, str]) -> None:
    data = video_bytes(LEVELS, container, codec, options=options)
    for wanted in (1, 3, 8, 30, 35):
        video = loaded(data, "video", tmp_path, frames=wanted)
        assert levels(video) == gram_frames(30, wanted)
        np.testing.assert_allclose(video.times, np.array(gram_frames(30, wanted)) / 10, atol=1e-3)
        assert video.seconds == pytest.approx(3.0, abs=1e-3)
    video = loaded(data, "video", tmp_path, span=(1.5, 2.5), frames=5)
    assert levels(video) == [15 + place for place in gram_frames(10, 5)]
    assert levels(loaded(data, "video", tmp_path, span=(2.5, 99.0))) == list(range(25, 30))


def test_videos_are_upright(tmp_path: Any) -> None:
    """A phone stores a landscape picture and a matrix that turns it clockwise by 90 degrees."""
    data = bytearray(video_bytes([100] * 3))
    place = data.index(b"tkhd") + 44
    data[place : place + 16] = struct.pack(">iiii", 0, 1 << 16, 0, -1 << 16)
    plain = loaded(video_bytes([100] * 3), "video", tmp_path)
    turned = loaded(bytes(data), "video", tmp_path)
    assert (plain.frames.shape, turned.frames.shape) == ((3, 48, 64, 3), (3, 64, 48, 3))


def test_resampling_equals_that_of_whole_sounds(tmp_path: Any) -> None:
    sound = np.random.default_rng(0).standard_normal((400_000, 2)).astype(np.float32) / 9
    data = sound_bytes(sound, rate=44_100, subtype="FLOAT")
    for rate in (8_000, 16_000, 48_000):
        found = loaded(data, "audio", tmp_path, rate=rate)
        expected = soxr.resample(sound.mean(axis=1), 44_100, rate)
        assert (found.rate, found.samples.dtype) == (rate, np.float32)
        np.testing.assert_allclose(found.samples, expected, atol=1e-6)
    assert len(loaded(data, "audio", tmp_path, rate=16_000, seconds=2.5).samples) == 40_000
    assert loaded(data, "audio", tmp_path, seconds=2.5).seconds == 2.5


def test_spans_of_sounds_in_videos_are_exact(tmp_path: Any) -> None:
    noise = np.random.default_rng(0).standard_normal(48_000 * 12)
    # A smooth sound that never repeats shows where a span starts.
    sound = np.convolve(noise, np.hanning(200) / 40, "same")
    data = video_bytes([0] * 120, tone=sound)
    whole = loaded(data, "audio", tmp_path).samples
    assert np.abs(whole[4_000:400_000] - sound[4_000:400_000]).mean() < 0.03
    for start, stop in ((0.5, 1.0), (3.0, 4.5), (10.25, 11.0)):
        found = loaded(data, "audio", tmp_path, span=(start, stop)).samples
        assert len(found) == round((stop - start) * 48_000)
        np.testing.assert_allclose(found, whole[round(start * 48_000) : round(stop * 48_000)], atol=2e-3)
    assert len(loaded(data, "audio", tmp_path, span=(3.0, 9.0), rate=16_000, seconds=0.5).samples) == 8_000


def test_sounds_that_libsndfile_does_not_open_are_read(tmp_path: Any) -> None:
    """The size of the tag of this MP3 file is wrong."""
    data = b"ID3\x04\0\0\0\0\x7f\x7f" + bytes(2000) + sound_bytes(TONE, "MP3", subtype=None)
    found = loaded(data, "audio", tmp_path)
    # Encoders of MP3 add a delay.
    assert RATE <= len(found.samples) < RATE * 1.2
    spectrum = np.abs(np.fft.rfft(found.samples[2_000:12_000]))
    assert np.argmax(spectrum) == pytest.approx(10_000 / 20 / (2 * np.pi), abs=1)


def test_long_sounds_need_a_duration(tmp_path: Any) -> None:
    data = sound_bytes(TONE)
    with pytest.raises(MediaError, match="more than 15,999 samples") as caught:
        decode(data, "audio", limits=MediaLimits(samples=RATE - 1))
    assert caught.value.code == "too-long"
    for decoding in (Decoding(seconds=0.9), Decoding(rate=8_000)):
        assert isinstance(decode(data, "audio", limits=MediaLimits(samples=RATE - 1), decoding=decoding), Audio)
    with pytest.raises(MediaError, match="more than 15,999 samples"):
        decode(data, "audio", limits=MediaLimits(samples=31_999), decoding=Decoding(rate=2 * RATE))


def test_other_formats_of_sound(tmp_path: Any) -> None:
    for suffix, subtype, tolerance in (
        ("FLAC", "PCM_16", 0), ("AIFF", "PCM_16", 0), ("AU", "PCM_16", 0), ("W64", "PCM_16", 0), ("RF64", "PCM_16", 0),
        ("CAF", "PCM_16", 0), ("OGG", "VORBIS", 0.05), ("WAV", "ULAW", 0.02), ("WAV", "PCM_U8", 0.01),
    ):  # fmt: skip
        found = decode(sound_bytes(TONE, suffix, subtype=subtype), "audio")
        assert isinstance(found, Audio)
        np.testing.assert_allclose(found.samples, TONE, atol=tolerance)


def test_the_size_of_frames_is_checked_when_they_are_decoded() -> None:
    """In a stream, later frames may be larger than the first."""
    data = io.BytesIO()
    for size, start, count in (((48, 64), 0, 30), ((480, 640), 30, 60)):
        with av.open(data, "w", format="mpegts") as file:
            track = file.add_stream("mpeg2video", rate=25)
            (track.height, track.width), track.pix_fmt = size, "yuv420p"
            for place in range(count):
                frame = av.VideoFrame.from_ndarray(np.zeros((*size, 3), np.uint8), format="rgb24")
                frame.pts = start + place
                file.mux(track.encode(frame))
            file.mux(track.encode(None))
    for limits in (MediaLimits(bytes=600_000), MediaLimits(pixels=640 * 480 - 1)):
        with pytest.raises(MediaError, match="640 x 480 pixels") as caught:
            decode(data.getvalue(), "video", limits=limits, decoding=Decoding(frames=1))
        assert caught.value.code == "too-many-pixels"
    assert decode(data.getvalue(), "video", decoding=Decoding(frames=1)).frames.shape == (1, 480, 640, 3)  # type: ignore[union-attr]
