"""Every format holds all of the sound and no more, however it is cut into blocks; what is no sound is refused."""

import io
import subprocess
import wave
from pathlib import Path

import av
import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np
import pytest
from numpy.typing import NDArray

from hearmeman_voice import audio, tail
from hearmeman_voice.audio import FORMATS, BadSound, Edges, Encoder

LENGTH = 70_001
MAGIC = {"wav": b"RIFF", "mp3": b"\xff", "flac": b"fLaC", "opus": b"OggS", "aac": b"\xff"}
# A stream of these cannot say where its sound ends: the last frames are filled with silence. Samples at the most.
FILLED = {"mp3": 2 * 1152, "aac": 2 * 1024}


def tone(length: int = LENGTH, rate: int = 24000) -> NDArray[np.float32]:
    return (0.5 * np.sin(np.arange(length) * 2 * np.pi * 440 / rate)).astype(np.float32)


def encoded(format: str, rate: int, blocks: list[NDArray[np.float32]]) -> bytes:
    encoder = Encoder(format, rate)
    return b"".join([encoder.write(block) for block in blocks]) + encoder.finish()


@pytest.mark.parametrize("rate", [24000, 22050, 16000])
@pytest.mark.parametrize("format", MAGIC)
def test_the_decoded_length_is_the_length_that_went_in(format: str, rate: int) -> None:
    data = encoded(format, rate, np.array_split(tone(rate=rate), [1, 7000, 7001, 30_000, LENGTH - 1]))
    assert data.startswith(MAGIC[format])
    samples, made = audio.decode(data)
    over = len(samples) * rate / made - LENGTH
    assert -1 < over <= FILLED.get(format, 1)


@pytest.mark.parametrize("format", FORMATS)
def test_the_end_is_as_loud_as_what_went_in(format: str) -> None:
    data = encoded(format, 24000, np.array_split(tone(), 9))
    if format == "pcm":
        samples, rate = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32767), 24000
    else:
        samples, rate = audio.decode(data)
    heard = np.flatnonzero(np.abs(samples) > 0.25)
    assert heard[-1] / rate > (LENGTH - 30) / 24000 - 0.002


@pytest.mark.parametrize("format", FORMATS)
def test_no_sound_at_all_is_still_a_file(format: str) -> None:
    assert isinstance(encoded(format, 24000, []), bytes)


def test_ffmpeg_itself_reads_what_is_streamed(tmp_path: Path) -> None:
    for format in MAGIC:
        path = tmp_path / f"sound.{format}"
        path.write_bytes(encoded(format, 24000, np.array_split(tone(), 20)))
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "s16le", "-ar", "24000", "-"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=120)
        assert not done.stderr, (format, done.stderr)
        assert abs(len(done.stdout) // 2 - LENGTH) <= FILLED.get(format, 1)


def test_a_streamed_mp3_has_no_header_that_says_it_is_empty() -> None:
    data = encoded("mp3", 24000, [tone()])
    assert b"Xing" not in data and b"Info" not in data[:400]


def test_sound_leaves_before_the_end() -> None:
    for format in FORMATS:
        encoder = Encoder(format, 24000)
        assert len(encoder.write(tone(48000))) > 100, format


def test_a_whole_wav_has_its_true_length() -> None:
    with wave.open(io.BytesIO(audio.wav(tone(), 24000))) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (LENGTH, 24000, 1)


def test_loud_sound_and_no_numbers_are_made_fit() -> None:
    assert audio.pcm16(np.array([2, -2, np.nan], np.float32)) == np.array([32767, -32767, 0], "<i2").tobytes()


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.5, 2, 3, 4])
def test_stretching_changes_the_length_and_not_the_pitch(speed: float) -> None:
    made = audio.stretch(tone(96_000), 24000, speed)
    assert len(made) == pytest.approx(96_000 / speed, rel=0.05)
    middle = made[len(made) // 4 : len(made) // 4 + 4800]
    loudest = np.argmax(np.abs(np.fft.rfft(middle))) * 24000 / len(middle)
    assert loudest == pytest.approx(440, abs=15)


def test_resampling_keeps_the_duration() -> None:
    assert len(audio.resample(tone(48000), 24000, 16000)) == pytest.approx(32000, abs=2)


def test_chunks_have_no_click_at_their_edges_and_lose_no_sample() -> None:
    edges, parts = Edges(24000), []
    for _ in range(3):
        parts += [edges.write(block.copy()) for block in np.array_split(np.ones(5000, np.float32), 7)]
        parts.append(edges.finish())
    sound = np.concatenate(parts)
    assert len(sound) == 15_000
    assert float(np.abs(np.diff(sound, prepend=0, append=0)).max()) < 0.02
    assert float(sound[2500]) == 1


@pytest.mark.parametrize("length", [0, 1, 50, 96, 150, 192, 193])
def test_a_chunk_as_short_as_its_edges_is_whole_too(length: int) -> None:
    edges = Edges(24000)
    made = np.concatenate([edges.write(np.ones(length, np.float32)), edges.finish()])
    assert len(made) == length


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a recording"),
        (b"MZ\x90\x00" + bytes(5000), "not a recording"),
        (b"RIFF\x00\x00\x00\x00WAVE" + b"garbage" * 100, "no sound"),
        (b"fLaC" + bytes(1000), "no sound"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "not a recording"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a recording"),
        (audio.wav(np.zeros(0, np.float32), 24000), "no sound"),
    ],
    ids=["empty", "exe", "wav", "flac", "playlist", "concat", "no-samples"],
)
def test_what_is_no_sound_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(BadSound, match=why):
        audio.decode(data)


def test_a_recording_without_end_is_not_decoded_to_its_end() -> None:
    long = encoded("flac", 8000, [np.zeros(8000 * 60, np.float32)])
    with pytest.raises(BadSound, match="longer than 10 s"):
        audio.decode(long, longest=10)


def test_an_upload_may_be_stereo_and_of_any_kind() -> None:
    sink = io.BytesIO()
    with av.open(sink, "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.tile(tone(44100), (2, 1)), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    samples, rate = audio.decode(sink.getvalue())
    assert rate == 44100 and len(samples) == pytest.approx(44100, abs=2048)


def test_what_follows_a_long_silence_is_no_speech() -> None:
    rate = 24000
    speech, silence, blip = tone(rate * 2), np.zeros(rate, np.float32), tone(rate // 5)
    kept = tail.trim(np.concatenate([speech, silence, blip, silence]), rate)
    assert len(kept) / rate == pytest.approx(2.2, abs=0.05)


def test_a_pause_within_speech_stays() -> None:
    rate = 24000
    sound = np.concatenate([tone(rate), np.zeros(rate, np.float32), tone(rate)])
    assert len(tail.trim(sound, rate)) == len(sound)
    assert len(tail.trim(np.zeros(rate, np.float32), rate)) == rate


def test_a_text_sounds_no_longer_than_it_can_be_spoken() -> None:
    assert tail.longest("Hi.") < 2.5
    assert 20 < tail.longest("x" * 280) < 60
    assert tail.longest("好" * 60) <= 40
