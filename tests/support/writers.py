"""Real encoders that write slowly, as ComfyUI's user in a pod: raw frames go in with pauses, a file comes out."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]

from hearmeman.users import COMFYUI, wrapped
from support.waiting import PATIENCE

_VIDEO = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "128x128", "-r", "8", "-i", "-"]
_AUDIO = ["-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "-"]
KINDS: dict[str, tuple[str, list[str]]] = {
    "mp4": ("mp4", [*_VIDEO, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]),
    "faststart": ("mp4", [*_VIDEO, "-c:v", "mpeg4", "-q:v", "2", "-movflags", "+faststart"]),
    "fragmented": ("mp4", [*_VIDEO, "-c:v", "mpeg4", "-g", "4", "-movflags", "frag_keyframe+empty_moov"]),
    "webm": ("webm", [*_VIDEO, "-c:v", "libvpx", "-deadline", "realtime", "-b:v", "2M"]),
    "gif": ("gif", [*_VIDEO]),
    "mp3": ("mp3", [*_AUDIO, "-c:a", "libmp3lame", "-b:a", "320k"]),
    "flac": ("flac", [*_AUDIO]),
    "wav": ("wav", [*_AUDIO]),
}
"""Kind -> (extension, ffmpeg's words for what goes in and what comes out)."""

_LATE = """
import sys, time
before, pause = float(sys.argv[2]), float(sys.argv[3])
with open(sys.argv[1], "wb", buffering=0) as file:
    time.sleep(before)
    content = sys.stdin.buffer.read()
    file.write(content[: len(content) // 2])
    time.sleep(pause)
    file.write(content[len(content) // 2 :])
"""


def as_comfyui(argv: Sequence[str]) -> tuple[str, ...]:
    """Let a command run as the pod's ComfyUI does; a plain user stays who it is."""
    if os.geteuid() == 0:
        return wrapped(argv, COMFYUI)
    return tuple(argv)


def encode(path: Path, kind: str, pauses: Sequence[float], seed: int = 0) -> float:
    """Let ffmpeg write `path`, with a pause of so many seconds after each half second of it; Unix seconds of its end."""
    chance = random.Random(seed)
    piece = 4 * 128 * 128 * 3 if KINDS[kind][1][1] == "rawvideo" else 16_000
    words = ["-hide_banner", "-loglevel", "error", "-y", *KINDS[kind][1], "-flush_packets", "1", str(path)]
    # What it reads comes in pieces, as from a node that hands frame after frame on.
    command = as_comfyui([imageio_ffmpeg.get_ffmpeg_exe(), *words])
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        for pause in (*pauses, 0.0):
            process.stdin.write(chance.randbytes(piece))
            time.sleep(pause)
        process.stdin.close()
        code = process.wait(PATIENCE)
    ended = time.time()
    assert code == 0, f"ffmpeg made no {path.name}"
    return ended


def write_late(path: Path, content: bytes, before: float, pause: float) -> float:
    """Open `path`, wait, write half of `content`, wait, write the rest; Unix seconds of the end."""
    command = as_comfyui([sys.executable, "-c", _LATE, str(path), str(before), str(pause)])
    subprocess.run(command, input=content, check=True)
    return time.time()


def plays(path: Path) -> bool:
    """Tell whether ffmpeg can decode all of a file."""
    words = ["-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *words], capture_output=True, check=False)
    return done.returncode == 0 and not done.stderr
