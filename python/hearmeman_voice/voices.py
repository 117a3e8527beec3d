"""The voices that there are: those of the image, and what people upload, kept as WAV with a note of all beside."""

import contextlib
import fcntl
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hearmeman_voice import audio
from hearmeman_voice.audio import BadSound
from hearmeman_voice.engine import Voice
from hearmeman_voice.names import OPENAI, BadName, check_name, safe_child
from hearmeman_voice.refusals import VoiceError

__all__ = ["BadName", "BadSound", "NameTaken", "ReadOnlyVoice", "UnknownVoice", "VoiceStore", "safe_child"]

SHORTEST = 1.0
"""Seconds of a recording at least; engines do well from five on."""
MOST_BYTES = 50_000_000
"""Bytes of an upload at most: five minutes of stereo WAV."""

_NOTES = ".voices.json"
_LOCK = ".voices.lock"


class UnknownVoice(VoiceError):
    """There is no such voice."""


class NameTaken(VoiceError):
    """Another voice has this name."""


class ReadOnlyVoice(VoiceError):
    """It belongs to the image."""


class VoiceStore:
    """Voices by name; a change is whole or not there, and two changes wait for each other, also of two processes."""

    def __init__(
        self, folder: Path, builtin_folder: Path | None = None, own: Callable[[], Iterable[Voice]] = tuple
    ) -> None:
        self.folder = folder
        self._own = own
        """The engine's own voices at this moment: some come with its weights."""
        self._clips: dict[str, Voice] = {}
        if builtin_folder is not None:
            clips = sorted(builtin_folder.glob("*.wav"))
            self._clips = {clip.stem: Voice(clip.stem, clip, "en", _gender(clip.stem)) for clip in clips}
        self._lock = threading.RLock()

    def _builtin(self) -> dict[str, Voice]:
        return {voice.id: voice for voice in self._own()} | self._clips

    def list(self) -> Sequence[Voice]:
        """All of them, the image's own first."""
        return [*self._builtin().values(), *self.uploaded()]

    def builtin(self) -> Sequence[Voice]:
        """Those that are always there."""
        return [*self._builtin().values()]

    def uploaded(self) -> Sequence[Voice]:
        """Those that people added, by upload or by putting a WAV into the folder."""
        notes, builtin = self._notes()["voices"], self._builtin()
        clips = sorted(self.folder.glob("*.wav")) if self.folder.is_dir() else []
        return [
            Voice(clip.stem, clip, notes.get(clip.stem))
            for clip in clips
            if clip.stem not in builtin and not clip.name.startswith(".") and not clip.is_symlink() and clip.is_file()
        ]

    def get(self, name: str) -> Voice:
        """The voice of this name or alias. Raises: UnknownVoice."""
        found = {voice.id: voice for voice in self.list()}
        if name in found:
            return found[name]
        aliases = self.aliases()
        for spelling in (name, name.strip(), name.strip().lower(), name.strip().removesuffix(".wav")):
            if (voice := found.get(spelling) or found.get(aliases.get(spelling, ""))) is not None:
                return voice
        raise UnknownVoice(f"there is no voice {name[:60]!r}; there are {', '.join(found)}")

    @property
    def default(self) -> str:
        """The name of the voice that speaks when none is asked for."""
        return self.aliases()["default"]

    @default.setter
    def default(self, name: str | None) -> None:
        with self._changing() as notes:
            notes["default"] = None if name is None else self.get(name).id

    def aliases(self) -> dict[str, str]:
        """Every other name, and whose it is: those that people gave, `default`, and OpenAI's."""
        notes, names = self._notes(), [voice.id for voice in self.list()]
        chosen = [notes["default"], "female", *names]
        default = next((name for name in chosen if name in names), "")
        openai = {alias: name if name in names else default for alias, name in OPENAI.items() if alias not in names}
        given = {alias: name for alias, name in notes["aliases"].items() if name in names}
        return {"default": default, **openai, **given}

    def add_alias(self, name: str, alias: str) -> None:
        """Give a voice another name. Raises: UnknownVoice, BadName, NameTaken."""
        alias = check_name(alias)
        with self._changing() as notes:
            if alias in {voice.id for voice in self.list()}:
                raise NameTaken(f"there is a voice called {alias!r}")
            notes["aliases"][alias] = self.get(name).id

    def remove_alias(self, alias: str) -> None:
        """Take another name away. Raises: UnknownVoice."""
        with self._changing() as notes:
            if notes["aliases"].pop(alias, None) is None:
                raise UnknownVoice(f"no voice has the name {alias[:60]!r}")

    def add(self, name: str, data: bytes, language: str | None = None) -> Voice:
        """Keep a recording as a new voice. Raises: BadName, NameTaken, BadSound, OSError when the disk is full."""
        path = self._path(name)
        sound = _usable(data)
        with self._changing() as notes:
            if path.stem in {voice.id for voice in self.list()}:
                raise NameTaken(f"there is a voice called {path.stem!r}: choose another name, or replace that one")
            return _keep(path, sound, language, notes)

    def replace(self, name: str, data: bytes, language: str | None = None) -> Voice:
        """Give a voice another recording. Raises: UnknownVoice, ReadOnlyVoice, BadSound, OSError."""
        sound = _usable(data)
        with self._changing() as notes:
            voice = self._changeable(name)
            return _keep(self._path(voice.id), sound, language or voice.language, notes)

    def rename(self, name: str, new: str) -> Voice:
        """Call a voice something else; its aliases go with it. Raises: UnknownVoice, ReadOnlyVoice, BadName, NameTaken."""
        path = self._path(new)
        with self._changing() as notes:
            voice = self._changeable(name)
            if path.stem in {other.id for other in self.list()}:
                raise NameTaken(f"there is a voice called {path.stem!r}")
            assert voice.clip is not None
            voice.clip.rename(path)
            notes["voices"][path.stem] = notes["voices"].pop(voice.id, None)
            notes["aliases"] = {
                alias: path.stem if whose == voice.id else whose for alias, whose in notes["aliases"].items()
            }
            if notes["default"] == voice.id:
                notes["default"] = path.stem
            return Voice(path.stem, path, voice.language)

    def delete(self, name: str) -> None:
        """Remove a voice and its aliases. Raises: UnknownVoice, ReadOnlyVoice."""
        with self._changing() as notes:
            voice = self._changeable(name)
            assert voice.clip is not None
            voice.clip.unlink(missing_ok=True)
            notes["voices"].pop(voice.id, None)
            notes["aliases"] = {alias: whose for alias, whose in notes["aliases"].items() if whose != voice.id}

    def _changeable(self, name: str) -> Voice:
        voice = self.get(name)
        if voice.id in self._builtin():
            raise ReadOnlyVoice(
                f"{voice.id!r} belongs to the image and stays as it is; upload a voice under another name"
            )
        return voice

    def _path(self, name: str) -> Path:
        return safe_child(self.folder, f"{check_name(name)}.wav")

    def _notes(self) -> dict[str, Any]:
        try:
            found = json.loads((self.folder / _NOTES).read_text())
        except (OSError, ValueError):
            found = {}
        notes: dict[str, Any] = {"aliases": {}, "voices": {}, "default": None}
        return {**notes, **found} if isinstance(found, dict) else notes

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """The notes to change, written when nothing failed; nobody else changes a voice meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock, (self.folder / _LOCK).open("a") as lock:
            # Both APIs keep their voices here. A file system without locks leaves the lock of this process.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            notes = self._notes()
            yield notes
            _write_whole(self.folder / _NOTES, json.dumps(notes, indent=2).encode())


def _gender(name: str) -> str:
    return "female" if "female" in name else "male"


def _usable(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise BadSound(f"the file has {len(data) / 1e6:.0f} MB; {MOST_BYTES / 1e6:.0f} MB are the most")
    samples, rate = audio.decode(data)
    if len(samples) < SHORTEST * rate:
        raise BadSound(
            f"the recording has {len(samples) / rate:.1f} s; a voice needs {SHORTEST:.0f} s at least, better 6 to 20"
        )
    if float(np.abs(samples).max()) < 1e-3:
        raise BadSound("there is only silence in the recording")
    return audio.wav(samples, rate)


def _keep(path: Path, sound: bytes, language: str | None, notes: dict[str, Any]) -> Voice:
    _write_whole(path, sound)
    notes["voices"][path.stem] = language
    return Voice(path.stem, path, language)


def _write_whole(path: Path, data: bytes) -> None:
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".voice-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o644)
        Path(beside).rename(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
