"""Sound going out is encoded as it is made; sound coming in is decoded to check that it is sound."""

import io
import itertools
import struct
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from numpy.typing import NDArray

from hearmeman_voice.refusals import VoiceError

FORMATS = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg; codecs=opus",
    "aac": "audio/aac",
    "pcm": "audio/pcm",
}
"""Content-Type of each format."""

UNKNOWN = 0xFFFFFFFF - 36
"""The length in a WAV's header while the WAV is still being made."""

_CONTAINERS = {
    "mp3": ("mp3", "libmp3lame"),
    "flac": ("flac", "flac"),
    "opus": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
}
_OPTIONS = {
    # It would have to be corrected at the end, after it has been sent.
    "mp3": {"write_xing": "0", "id3v2_version": "0"},
    # Otherwise a page holds a second of sound before it is sent.
    "opus": {"page_duration": "100000"},
}
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


class BadSound(VoiceError):
    """The data is not usable sound."""


class Encoder:
    """Encodes blocks of shape (samples,) at `rate`; its output, joined together, is the file.

    Its decoded length is that of the blocks; mp3 and aac have no place for it in a stream and end in silence of at
    most two frames.
    """

    def __init__(self, format: str, rate: int) -> None:
        self.format, self.rate = format, rate
        self.content_type = FORMATS[format] + (f"; rate={rate}; channels=1" if format == "pcm" else "")
        self._head = wav_header(rate) if format == "wav" else b""
        self._samples = 0
        self._sink = _Sink()
        self._container: av.container.OutputContainer | None = None
        if format in _CONTAINERS:
            container, codec = _CONTAINERS[format]
            made = rate if format != "opus" or rate in _OPUS_RATES else 48000
            options = {**_OPTIONS.get(format, {}), "flush_packets": "1"}
            self._container = av.open(self._sink, "w", format=container, options=options)
            stream = self._container.add_stream(codec, rate=made)
            assert isinstance(stream, AudioStream)
            self._stream = stream
            self._stream.layout = "mono"
            self._stream.codec_context.open()
            size = self._stream.codec_context.frame_size or 0
            self._resampler = AudioResampler(format=self._stream.format, layout="mono", rate=made, frame_size=size)

    def write(self, block: NDArray[np.float32]) -> bytes:
        """Take a block and return what is ready."""
        if self._container is None:
            head, self._head = self._head, b""
            return head + pcm16(block)
        if len(block):
            self._encode(_frame(block, self.rate, self._samples))
            self._samples += len(block)
        return self._sink.take()

    def finish(self) -> bytes:
        """Return what is left."""
        if self._container is None:
            head, self._head = self._head, b""
            return head
        if self._samples:
            self._encode(None)
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()

    def _encode(self, frame: av.AudioFrame | None) -> None:
        assert self._container is not None
        for ready in self._resampler.resample(frame):
            self._container.mux(self._stream.encode(ready))


class _Sink:
    """A file without seeking, whose bytes are taken as they come."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._held)
        self._held.clear()
        return taken


class Edges:
    """Lets the sound of a chunk rise at its beginning and fall at its end within 4 ms, so that chunks join without
    clicks. It returns as many samples as it takes, and holds back only the last few until it knows that they are the
    last.
    """

    def __init__(self, rate: int) -> None:
        self._ramp = np.linspace(0, 1, rate // 250, dtype=np.float32)
        self._held = np.zeros(0, np.float32)
        self._is_first = True

    def write(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take a block of a chunk and return what is certainly not its end."""
        held = np.concatenate([self._held, block])
        size = len(self._ramp)
        if len(held) <= 2 * size:
            self._held = held
            return np.zeros(0, np.float32)
        if self._is_first:
            held[:size] *= self._ramp
            self._is_first = False
        self._held = held[-size:]
        return held[:-size]

    def finish(self) -> NDArray[np.float32]:
        """Return the end of the chunk; the next block begins another."""
        held, self._held = self._held, np.zeros(0, np.float32)
        ramp = self._ramp[-len(held) :] if len(held) < len(self._ramp) else self._ramp
        if self._is_first and len(held):
            held[: len(ramp)] *= ramp
        if len(held):
            held[-len(ramp) :] *= ramp[::-1]
        self._is_first = True
        return held


def pcm16(block: NDArray[np.float32]) -> bytes:
    """Samples as 16-bit little-endian numbers; values beyond 1, or NaN, are made to fit."""
    scaled = np.clip(block, -1, 1)
    scaled *= 32767
    # Many times faster than nan_to_num, which looks for infinities too.
    np.copyto(scaled, 0, where=np.isnan(scaled))
    return np.rint(scaled, out=scaled).astype("<i2").tobytes()


def wav_header(rate: int, length: int = UNKNOWN) -> bytes:
    """The header of a 16-bit mono WAV of `length` bytes; without one, of unknown length."""
    riff = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", length + 36, b"WAVE", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return riff + struct.pack("<4sI", b"data", length)


def wav(samples: NDArray[np.float32], rate: int) -> bytes:
    """A whole WAV."""
    data = pcm16(samples)
    return wav_header(rate, len(data)) + data


def stretch(samples: NDArray[np.float32], rate: int, speed: float) -> NDArray[np.float32]:
    """The same speech `speed` times as fast, its pitch unchanged (ffmpeg's atempo)."""
    if abs(speed - 1) < 1e-3 or not len(samples):
        return samples
    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono", time_base=None)
    last = source
    # One filter alone would skip samples beyond 2, rather than blend them.
    while not 0.5 <= speed <= 2:
        step = 2.0 if speed > 2 else 0.5
        last, speed = _linked(graph, last, "atempo", str(step)), speed / step
    last = _linked(graph, last, "atempo", f"{speed:.6f}")
    _linked(graph, last, "abuffersink", "")
    graph.configure()
    parts = []
    for frame in (_frame(samples, rate, 0), None):
        graph.push(frame)
        while True:
            try:
                parts.append(graph.pull().to_ndarray().reshape(-1))
            except (av.error.BlockingIOError, av.error.EOFError):
                break
    return np.concatenate(parts).astype(np.float32) if parts else samples[:0]


def _linked(
    graph: av.filter.Graph, before: av.filter.context.FilterContext, name: str, value: str
) -> av.filter.context.FilterContext:
    made = graph.add(name, value) if value else graph.add(name)
    before.link_to(made)
    return made


def resample(samples: NDArray[np.float32], rate: int, to: int) -> NDArray[np.float32]:
    """The same sound at another rate."""
    if rate == to or not len(samples):
        return samples
    resampler = AudioResampler(format="flt", layout="mono", rate=to)
    frames = [*resampler.resample(_frame(samples, rate, 0)), *resampler.resample(None)]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(np.float32)


def _frame(samples: NDArray[np.float32], rate: int, at: int) -> av.AudioFrame:
    fit = np.ascontiguousarray(np.clip(np.nan_to_num(samples), -1, 1).reshape(1, -1), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(fit, format="flt", layout="mono")
    frame.sample_rate = rate
    frame.pts = at
    return frame


def _kind(head: bytes) -> str | None:
    """The demuxer for a file with this beginning. Only these are used: playlists and the like would open other files."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head[4:8] == b"ftyp":
        return "mov"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    simple = {b"fLaC": "flac", b"OggS": "ogg", b"\x1aE\xdf\xa3": "matroska", b"caff": "caf"}
    if head[:4] in simple:
        return simple[head[:4]]
    if head[:3] == b"ID3":
        return "mp3"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    return None


def decode(source: bytes | Path, longest: float = 300.0) -> tuple[NDArray[np.float32], int]:
    """Decode a recording to mono: samples of shape (samples,), and their rate.

    Raises: BadSound if it is not a recording, or longer than `longest` seconds.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    kind = _kind(data[:16])
    if kind is None:
        raise BadSound(
            "the file is not a recording in a known format: WAV, FLAC, MP3, Ogg, M4A, AAC, AIFF, CAF or WebM"
        )
    parts: list[NDArray[np.float32]] = []
    length = 0
    try:
        with av.open(io.BytesIO(data), format=kind) as container:
            assert isinstance(container, InputContainer)
            stream = container.streams.audio[0]
            rate = int(stream.rate)
            resampler = AudioResampler(format="flt", layout="mono", rate=rate)
            for frame in itertools.chain(container.decode(stream), [None]):
                for ready in resampler.resample(frame):
                    parts.append(ready.to_ndarray().reshape(-1).astype(np.float32))
                    length += len(parts[-1])
                if length > longest * rate:
                    raise BadSound(
                        f"the recording is longer than {longest:.0f} s; cut it to a part with a single voice"
                    )
    except (av.FFmpegError, IndexError, ValueError, TypeError) as problem:
        raise BadSound(f"the file looks like {kind}, but no sound can be read from it") from problem
    if not length:
        raise BadSound("the file has no sound in it")
    return np.nan_to_num(np.concatenate(parts)), rate
