"""Extracts frames, makes and joins films with ffmpeg; every file is complete or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman.errors import HearmemanError


class FilmError(HearmemanError):
    """ffmpeg is missing or failed."""


@dataclass(frozen=True)
class Frame:
    """One frame of a file."""

    path: Path
    """A film or a picture."""
    number: int
    """Counted from 0."""


def count(path: Path) -> int:
    """How many frames a film has.

    Raises:
        FilmError: it is not a film.
    """
    words = ["-select_streams", "v:0", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0"]
    said = _run(["ffprobe", "-v", "error", *words, str(path)], f"the frames of {path} cannot be counted")
    if not said.strip().rstrip(",").isdecimal():
        raise FilmError(f"{path} is not a film: it has no frames")
    return int(said.strip().rstrip(","))


def gather(frames: Sequence[Frame], width: int, height: int, folder: Path, still: bool = False) -> Path:
    """A lossless film of these frames, each cropped to `width` x `height`, or with `still` a picture of the only one.
    Its name says what it is made of, so that other frames are another file.

    Raises:
        FilmError: a frame is not there.
    """
    content = "".join(f"{_hash(frame.path)} {frame.number}\n" for frame in frames) + f"{width}x{height}"
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    target = folder / f"{name}{'.png' if still else '.mkv'}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    cut = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height}"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".frames-") as place:
        for path in dict.fromkeys(frame.path for frame in frames):
            _extract(path, frames, cut, Path(place))
        part = Path(place) / f"part{target.suffix}"
        if still:
            (Path(place) / "0001.png").rename(part)
        else:
            film = ["-framerate", "16", "-i", f"{place}/%04d.png", "-c:v", "ffv1", "-pix_fmt", "bgr0", "-bitexact"]
            _ffmpeg([*film, str(part)], "the remembered frames cannot be written")
        _put(part, target)
    return target


def _extract(path: Path, frames: Sequence[Frame], cut: str, place: Path) -> None:
    """Write the frames from `path` as pictures in one pass, each named by its place in `frames`."""
    wanted = sorted({frame.number for frame in frames if frame.path == path})
    chosen = "+".join(f"eq(n\\,{number})" for number in wanted)
    words = ["-vf", f"select={chosen},{cut}", "-fps_mode", "passthrough", f"{place}/one-%d.png"]
    _ffmpeg(["-i", str(path), *words], f"the frames of {path} cannot be read")
    for index, frame in enumerate(frames, start=1):
        if frame.path == path:
            picture = place / f"one-{wanted.index(frame.number) + 1}.png"
            if not picture.exists():
                raise FilmError(f"{path} has no frame {frame.number}: frames are counted from 0")
            shutil.copy(picture, place / f"{index:04}.png")
    for picture in place.glob("one-*.png"):
        picture.unlink()


def join(shots: Sequence[tuple[Path, int]], target: Path) -> None:
    """Join all shots into one film, leaving out the given number of frames at each shot's start.

    Raises:
        FilmError: it cannot be written.
    """
    inputs = [word for path, _ in shots for word in ("-i", str(path))]
    trims = [f"[{n}:v:0]trim=start_frame={left_out},setpts=PTS-STARTPTS[s{n}]" for n, (_, left_out) in enumerate(shots)]
    names = "".join(f"[s{number}]" for number in range(len(shots)))
    steps = ";".join([*trims, f"{names}concat=n={len(shots)}:v=1:a=0[film]"])
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".film-") as place:
        part = Path(place) / f"part{target.suffix}"
        words = ["-filter_complex", steps, "-map", "[film]", "-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p"]
        _ffmpeg([*inputs, *words, "-movflags", "+faststart", str(part)], "the shots cannot be joined")
        _put(part, target)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put(part: Path, target: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _ffmpeg(words: Sequence[str], what: str) -> None:
    _run(["ffmpeg", "-v", "error", "-nostdin", "-y", *words], what)


def _run(command: Sequence[str], what: str) -> str:
    if shutil.which(command[0]) is None:
        raise FilmError(
            f"{what}: {command[0]} is not on this machine; install ffmpeg, or work in the pod, which has it"
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FilmError(f"{what}: {(done.stderr.strip() or 'ffmpeg said nothing').splitlines()[-1]}")
    return done.stdout
