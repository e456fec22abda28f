"""Videos: every frame is derained, everything else is kept.

As many frames as there were, with their timestamps; sound and subtitles byte by byte; the codec's
family (H.264, HEVC, VP8, VP9) where the installed FFmpeg can write it, H.264 otherwise. Frames are
derained as 8-bit RGB and turned upright.

AV1 becomes H.264: its encoder SVT-AV1 gives the process that calls it real-time priority, if that
is root's, and with it all that the process starts: everything else on the machine stands still.
"""

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from derain.errors import DataError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
    ".avi": "matroska",
}
"""The videos that are read, by ending, and FFmpeg's names of the containers that they become: AVI
has no timestamps."""
_ENCODERS = {
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "libvpx-vp9": "libvpx-vp9",
    "libvpx": "libvpx",
}
_DEFAULT_ENCODER = "libx264"
_QUALITY = {
    "libx264": {"crf": "17"},
    "libx265": {"crf": "19", "x265-params": "log-level=error"},
    "libvpx": {"crf": "6", "b:v": "20M"},
    "libvpx-vp9": {"crf": "18", "b:v": "0"},
}
"""Visually without losses."""
_AS_AVX2 = {"x264-params": "asm=mmx2,sse2,sse3,ssse3,sse4.1,sse4.2,avx,fma3,bmi1,bmi2,avx2"}
"""For processors with AVX-512: with that code libx264 writes other bytes in some runs (in up to
half of them at 322 x 242 px), with one thread too; without it, it is 6 % slower."""
_SAME_BYTES = {"fflags": "bitexact"}
"""Matroska and WebM would have a random number in each file."""
_KEPT_FORMATS = frozenset({"yuv420p", "yuv422p", "yuv444p"})
_EVEN = "yuv420p"
_ANY_SIZE = "yuv444p"

Derain = Callable[[np.ndarray], np.ndarray]


def is_video(path: PurePath) -> bool:
    """Whether a file is a video by its ending."""
    return path.suffix.lower() in CONTAINERS


def ending(name: PurePath) -> str:
    """The ending of the derained video."""
    return ".mkv" if name.suffix.lower() == ".avi" else name.suffix


def frames_of(path: PurePath) -> int:
    """About how many frames a video has; 0 if its container does not say."""
    import av

    try:
        with av.open(str(path)) as given:
            stream = given.streams.video[0]
            length, unit, rate = stream.duration, stream.time_base, stream.average_rate
            if stream.frames or length is None or unit is None or rate is None:
                return stream.frames
            return round(length * unit * rate)
    except (av.error.FFmpegError, IndexError):
        return 0


def derain_video(
    derain: Derain, source: PurePath, target: BinaryIO, advance: Callable[[], None]
) -> tuple[str, ...]:
    """Write the derained video to `target` in the container of `source`; returns what was
    converted. `advance` is called after each frame.

    Raises DataError for a file that is no video or is damaged.
    """
    import av

    container = CONTAINERS[source.suffix.lower()]
    try:
        first = _first_frame(source)
        with (
            av.open(str(source)) as given,
            av.open(target, "w", format=container, options=_SAME_BYTES) as made,
        ):
            copy = _Copy(given, made, first, derain, advance)
            copy.run()
            return copy.changes
    except av.error.FFmpegError as error:
        raise DataError(f"{source}: not a readable video ({error.strerror}).") from None


def _first_frame(source: PurePath) -> "VideoFrame":
    """The frame that tells the size and the rotation, before anything is written."""
    import av

    with av.open(str(source)) as given:
        for frame in given.decode(video=0) if given.streams.video else ():
            return frame
    raise DataError(f"{source}: has no frame of a video.")


class _Copy:
    """A video that is copied packet by packet, with its frames derained."""

    def __init__(
        self,
        given: Any,
        made: Any,
        first: "VideoFrame",
        derain: Derain,
        advance: Callable[[], None],
    ) -> None:
        self._given, self._made, self._first = given, made, first
        self._derain, self._advance = derain, advance
        self._video: VideoStream = given.streams.video[0]
        self._video.thread_type = "AUTO"
        self._encoder: Any = None
        self._kept: dict[int, Any] = {}
        self.changes: tuple[str, ...] = ()

    def run(self) -> None:
        """Copy all packets."""
        self._add_streams()
        for packet in self._given.demux():
            if packet.stream is self._video:
                for frame in packet.decode():
                    self._write(frame)
            elif packet.dts is not None and packet.stream.index in self._kept:
                packet.stream = self._kept[packet.stream.index]
                self._made.mux(packet)
        self._made.mux(self._encoder.encode(None))

    def _add_streams(self) -> None:
        """The streams of the new file in the order of the old one."""
        self._made.metadata.update(self._given.metadata)
        for stream in self._given.streams:
            if stream is self._video:
                self._encoder = self._add_video()
            elif stream.type in ("audio", "subtitle"):
                self._kept[stream.index] = self._made.add_stream_from_template(stream)
            else:
                self.changes += (f"a stream of the type {stream.type} left out",)

    def _add_video(self) -> Any:
        import av
        from av.codec.context import Flags

        name = self._video.codec_context.name
        encoder = _ENCODERS.get(name, _DEFAULT_ENCODER)
        if encoder not in av.codecs_available:
            encoder = _DEFAULT_ENCODER
        if encoder == _DEFAULT_ENCODER and name != "h264":
            self.changes += (f"{name} to H.264",)
        options = _QUALITY[encoder]
        if encoder == "libx264" and torch.backends.cpu.get_cpu_capability() == "AVX512":
            options = options | _AS_AVX2
        stream = self._made.add_stream(
            encoder, rate=self._video.average_rate or 25, options=options
        )
        stream.codec_context.time_base = stream.time_base = self._video.time_base
        stream.codec_context.flags |= Flags.frame_duration  # else the average, also of the last one
        stream.metadata.update(self._video.metadata)
        self._set_form(stream)
        return stream

    def _set_form(self, stream: Any) -> None:
        """Size, layout and colours of the encoder, by the first frame."""
        first = self._first
        sides = (first.width, first.height)
        stream.width, stream.height = sides[::-1] if _turns(first) % 2 else sides
        kept = first.format.name.replace("yuvj", "yuv")
        format = kept if kept in _KEPT_FORMATS else _EVEN
        odd = first.width % 2 or first.height % 2
        stream.pix_fmt = _ANY_SIZE if odd and format != _ANY_SIZE else format
        for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
            setattr(stream.codec_context, name, getattr(first, name))
        if stream.pix_fmt != kept:
            self.changes += (f"{first.format.name} to {stream.pix_fmt}",)
        if _turns(first):
            self.changes += ("turned upright",)

    def _write(self, frame: "VideoFrame") -> None:
        import av

        rgb = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), _turns(frame)))
        derained = av.VideoFrame.from_ndarray(self._derain(rgb), format="rgb24")
        made = derained.reformat(
            width=self._encoder.width,
            height=self._encoder.height,
            format=self._encoder.pix_fmt,
            dst_colorspace=frame.colorspace,
            dst_color_range=frame.color_range,
        )
        made.pts, made.time_base = frame.pts, frame.time_base
        made.duration = self._duration(frame)
        self._made.mux(self._encoder.encode(made))
        self._advance()

    def _duration(self, frame: "VideoFrame") -> int:
        """Not beyond the end of the video: where frames are stored in another order, a decoder may
        give the last one the duration of another."""
        start, length = self._video.start_time, self._video.duration
        if start is None or length is None or frame.pts is None:
            return frame.duration
        return min(frame.duration, max(0, start + length - frame.pts))


def _turns(frame: "VideoFrame") -> int:
    """Quarter turns, counterclockwise, that bring a frame upright."""
    return round(frame.rotation / 90) % 4
