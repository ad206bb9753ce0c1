"""Decode frames of videos with PyAV (FFmpeg).

Shapes: `T` frames of `H` x `W` pixels.
"""

from array import array
from bisect import bisect_right
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unialign.errors import MediaError
from unialign.media._av_container import declared_size, is_seekable, open_container
from unialign.media._declared_size import check_declared_size
from unialign.media._decoding import Decoding
from unialign.media._frame_choice import chosen_frames
from unialign.media._image import check_pixels
from unialign.media._kinds import Video
from unialign.media._limits import MediaLimits
from unialign.media._span import Span

__all__ = ["check_clip_size", "decode_video"]

_ATTACHED_PICTURE = "attached_pic"


def decode_video(stream: BinaryIO, size: int, limits: MediaLimits, decoding: Decoding, span: Span = None) -> Video:
    check_declared_size(stream, size)
    with open_container(stream, limits) as container:
        track = _track(container)
        width, height = _frame_size(track, stream, limits)
        base, origin = float(track.time_base), int(track.start_time or 0)
        times, keys = _time_stamps(container, track)
    if span is not None:
        # Subtract half a unit of the time base to compensate for rounding.
        low, high = (origin + second / base - 0.5 for second in span)
        times = [time for time in times if low <= time < high]
    if not times:
        raise MediaError("empty", "the video has no frames" + (" in this span" if span else ""))
    wanted = [times[i] for i in chosen_frames(len(times), decoding.frames, decoding.seed)]
    check_clip_size((len(wanted), height, width, 3), limits)
    stream.seek(0)
    with open_container(stream, limits) as container:
        frames_THW3 = _decoded(container, _track(container), wanted, keys, limits)
    # Assume that the last frame lasts as long as the others on average.
    seconds = (times[-1] - times[0]) * base * len(times) / max(1, len(times) - 1)
    return Video(frames_THW3, (np.array(wanted, np.float64) - origin) * base, float(seconds))


def check_clip_size(shape: tuple[int, ...], limits: MediaLimits) -> None:
    if int(np.prod(shape, dtype=object)) > limits.bytes:
        raise MediaError(
            "too-many-pixels",
            f"{shape[0]} frames of {shape[2]} x {shape[1]} pixels need more than {limits.bytes:,} bytes; request fewer",
        )


def _track(container: Any) -> Any:
    for track in container.streams.video:
        # Audio files store cover art as a video stream.
        if _ATTACHED_PICTURE not in str(track.disposition).lower():
            return track
    raise MediaError("undecodable", "the file has no video, only audio" if container.streams.audio else "no video")


def _frame_size(track: Any, stream: BinaryIO, limits: MediaLimits) -> tuple[int, int]:
    width, height = track.codec_context.width, track.codec_context.height
    known = width * height > 0
    if not known:
        # FFmpeg also reports no size if it is above `max_pixels`.
        width, height = declared_size(stream)
    check_pixels(width, height, limits)
    if not known:
        raise MediaError("undecodable", "the video has no size in pixels")
    return width, height


def _time_stamps(container: Any, track: Any) -> tuple[list[int], list[int]]:
    times, keys = array("q"), array("q")
    for packet in container.demux(track):
        time = packet.dts if packet.pts is None else packet.pts
        if time is not None and packet.size and not packet.is_discard:
            times.append(time)
            if packet.is_keyframe:
                keys.append(time)
    return sorted(set(times)), sorted(set(keys))


def _decoded(container: Any, track: Any, wanted: list[int], keys: list[int], limits: MediaLimits) -> NDArray[np.uint8]:
    track.codec_context.thread_count = 1
    exact, done, now = is_seekable(container), 0, None
    frames, frames_THW3, sought = container.decode(track), None, keys[:1]
    while done < len(wanted):
        key = keys[max(0, bisect_right(keys, wanted[done]) - 1) :][:1]
        if exact and key > sought and (now is None or key > [now]):
            # Seek to the last key frame before the wanted frame, since nothing in between is needed.
            container.seek(key[0], stream=track)
            frames, sought = container.decode(track), key
        frame = next(frames, None)
        if frame is None:
            raise MediaError("truncated", f"only {done} of {len(wanted)} frames can be decoded")
        now = frame.pts
        while done < len(wanted) and now is not None and now >= wanted[done]:
            if frames_THW3 is None:
                # Frames may be larger than the header declares.
                check_pixels(frame.width, frame.height, limits)
                check_clip_size((len(wanted), frame.height, frame.width, 3), limits)
            pixels_HW3 = _pixels(frame)
            if frames_THW3 is None:
                frames_THW3 = np.empty((len(wanted), *pixels_HW3.shape), np.uint8)
            if pixels_HW3.shape != frames_THW3.shape[1:]:
                raise MediaError("undecodable", f"the shape of the frames changes to {pixels_HW3.shape}")
            frames_THW3[done] = pixels_HW3
            done += 1
    assert frames_THW3 is not None
    return frames_THW3


def _pixels(frame: Any) -> NDArray[np.uint8]:
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    pixels_HW3: NDArray[np.uint8] = np.rot90(frame.to_ndarray(format="rgb24"), turns)
    return pixels_HW3
