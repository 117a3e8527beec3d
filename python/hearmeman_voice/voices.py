"""All voices: the image's own, and uploaded ones, kept as WAV next to a file of notes."""

import contextlib
import fcntl
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hearmeman_voice import audio, files
from hearmeman_voice.audio import BadSound
from hearmeman_voice.engine import Voice
from hearmeman_voice.names import OPENAI, BadName, check_name, safe_child
from hearmeman_voice.refusals import VoiceError

__all__ = ["BadName", "BadSound", "NameTaken", "ReadOnlyVoice", "UnknownVoice", "VoiceStore", "safe_child"]

SHORTEST = 1.0
"""The shortest recording in seconds; engines do well with five or more."""
MOST_BYTES = 50_000_000
"""The most bytes in an upload: five minutes of stereo WAV."""

_NOTES = ".voices.json"
_LOCK = ".voices.lock"


class UnknownVoice(VoiceError):
    """There is no such voice."""


class NameTaken(VoiceError):
    """Another voice has this name."""


class ReadOnlyVoice(VoiceError):
    """It belongs to the image."""


class VoiceStore:
    """Voices by name; changes are atomic, and wait for each other, even across processes."""

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
        files.sweep(folder, time.time())

    def _builtin(self) -> dict[str, Voice]:
        return {voice.id: voice for voice in self._own()} | self._clips

    def list(self) -> Sequence[Voice]:
        """All voices, the image's own first."""
        return [*self._builtin().values(), *self.uploaded()]

    def builtin(self) -> Sequence[Voice]:
        """The voices that are always there."""
        return [*self._builtin().values()]

    def uploaded(self) -> Sequence[Voice]:
        """The voices that people added, by upload or by putting a WAV into the folder."""
        notes, builtin = self._notes()["voices"], self._builtin()
        clips = sorted(self.folder.glob("*.wav")) if self.folder.is_dir() else []
        return [
            Voice(clip.stem, clip, notes.get(clip.stem))
            for clip in clips
            if clip.stem not in builtin and not clip.name.startswith(".") and not clip.is_symlink() and clip.is_file()
        ]

    def get(self, name: str) -> Voice:
        """The voice with this name or alias. Raises: UnknownVoice."""
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
        """The name of the voice that speaks by default."""
        return self.aliases()["default"]

    @default.setter
    def default(self, name: str | None) -> None:
        with self._changing() as (notes, _):
            notes["default"] = None if name is None else self.get(name).id

    def aliases(self) -> dict[str, str]:
        """Every alias and its voice: those that people gave, `default`, and OpenAI's."""
        notes, names = self._notes(), [voice.id for voice in self.list()]
        chosen = [notes["default"], "female", *names]
        default = next((name for name in chosen if name in names), "")
        openai = {alias: name if name in names else default for alias, name in OPENAI.items() if alias not in names}
        given = {alias: name for alias, name in notes["aliases"].items() if name in names}
        return {"default": default, **openai, **given}

    def add_alias(self, name: str, alias: str) -> None:
        """Give a voice another name. Raises: UnknownVoice, BadName, NameTaken."""
        alias = check_name(alias)
        with self._changing() as (notes, _):
            if alias in {voice.id for voice in self.list()}:
                raise self._taken(alias)
            notes["aliases"][alias] = self.get(name).id

    def remove_alias(self, alias: str) -> None:
        """Take another name away. Raises: UnknownVoice."""
        with self._changing() as (notes, _):
            if notes["aliases"].pop(alias, None) is None:
                raise UnknownVoice(f"there is no alias {alias[:60]!r}")

    def add(self, name: str, data: bytes, language: str | None = None) -> Voice:
        """Keep a recording as a new voice. Raises: BadName, NameTaken, BadSound, OSError when the disk is full."""
        path = self._path(name)
        sound = _usable(data)
        with self._changing() as (notes, change):
            if path.stem in {voice.id for voice in self.list()}:
                raise self._taken(path.stem, ", or replace that one")
            change.write(path, [sound])
            notes["voices"][path.stem] = language
            return Voice(path.stem, path, language)

    def change(
        self, name: str, data: bytes | None = None, new: str | None = None, language: str | None = None
    ) -> Voice:
        """Change a voice's recording, name or language, all or nothing; its aliases follow.

        Raises: UnknownVoice, ReadOnlyVoice, BadName, NameTaken, BadSound, OSError when the disk is full.
        """
        sound = None if data is None else _usable(data)
        wanted = None if new is None else self._path(new)
        with self._changing() as (notes, change):
            voice, old = self._changeable(name)
            path = wanted or old
            if path != old and path.stem in {other.id for other in self.list()}:
                raise self._taken(path.stem)
            if sound is not None:
                change.write(path, [sound])
            if path != old:
                change.then(old.unlink if sound is not None else lambda: old.rename(path))
            spoken = notes["voices"].pop(voice.id, None)
            notes["voices"][path.stem] = language or spoken
            notes["aliases"] = {
                alias: path.stem if whose == voice.id else whose
                for alias, whose in notes["aliases"].items()
                if alias != path.stem
            }
            if notes["default"] == voice.id:
                notes["default"] = path.stem
            return Voice(path.stem, path, language or spoken)

    def delete(self, name: str) -> None:
        """Remove a voice and its aliases. Raises: UnknownVoice, ReadOnlyVoice."""
        with self._changing() as (notes, _):
            voice, clip = self._changeable(name)
            # At once: on a full disk this makes room for the notes.
            clip.unlink(missing_ok=True)
            notes["voices"].pop(voice.id, None)
            notes["aliases"] = {alias: whose for alias, whose in notes["aliases"].items() if whose != voice.id}

    def _changeable(self, name: str) -> tuple[Voice, Path]:
        """An added voice, and the path of its recording. Raises: UnknownVoice, ReadOnlyVoice."""
        voice = self.get(name)
        if voice.clip is None or voice.id in self._builtin():
            raise ReadOnlyVoice(
                f"{voice.id!r} belongs to the image and cannot be changed or removed; upload your own under another "
                "name"
            )
        return voice, voice.clip

    def _taken(self, name: str, otherwise: str = "") -> NameTaken:
        """Say that a name is taken; `otherwise` is what else can be done if that voice was uploaded."""
        if name in self._builtin():
            return NameTaken(f"there is a voice called {name!r}, which belongs to the image: choose another name")
        return NameTaken(f"there is a voice called {name!r}: choose another name{otherwise}")

    def _path(self, name: str) -> Path:
        return safe_child(self.folder, f"{check_name(name)}.wav")

    def _notes(self) -> dict[str, Any]:
        """Languages and aliases, by the voice's or the alias's name, and the default voice; damaged entries are
        ignored.
        """
        try:
            found = json.loads((self.folder / _NOTES).read_text())
        except (OSError, ValueError):
            found = {}
        found = found if isinstance(found, dict) else {}
        default = found.get("default")
        return {
            "aliases": _texts(found.get("aliases")),
            "voices": _texts(found.get("voices")),
            "default": default if isinstance(default, str) else None,
        }

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[dict[str, Any], files.Change]]:
        """The notes and files to change; saved if nothing failed. Nobody else can change a voice meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock, (self.folder / _LOCK).open("a") as lock:
            # Both APIs keep their voices here. On a file system without locks, this process's own lock remains.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            notes = self._notes()
            with files.change() as change:
                yield notes, change
                change.write(self.folder / _NOTES, [json.dumps(notes, indent=2).encode()])


def _gender(name: str) -> str:
    return "female" if "female" in name else "male"


def _texts(found: object) -> dict[str, str]:
    return {name: text for name, text in found.items() if isinstance(text, str)} if isinstance(found, dict) else {}


def _usable(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise BadSound(f"the file has {len(data) / 1e6:.0f} MB; the limit is {MOST_BYTES / 1e6:.0f} MB")
    samples, rate = audio.decode(data)
    if len(samples) < SHORTEST * rate:
        raise BadSound(
            f"the recording has {len(samples) / rate:.1f} s; a voice needs {SHORTEST:.0f} s at least, better 6 to 20"
        )
    if float(np.abs(samples).max()) < 1e-3:
        raise BadSound("the recording is silent")
    return audio.wav(samples, rate)
