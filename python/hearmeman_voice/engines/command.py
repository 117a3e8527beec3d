"""flite and espeak-ng, through their commands: small, quick voices without a model to load."""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hearmeman_voice import audio
from hearmeman_voice.engine import Request, Samples, Voice, never
from hearmeman_voice.refusals import Failed

_LOOK = 0.02
_VERSION_SECONDS = 10.0
_HEADER = 44
"""Bytes of a WAV without samples."""


class _Command:
    """An engine that is a program: it reads text on standard input and writes a WAV."""

    name: str
    program: str
    rate: int
    languages: tuple[str, ...]
    voices: tuple[Voice, ...]
    clones = False
    longest = 120.0
    """Seconds that one chunk may take; it usually takes a tenth of one."""
    names_itself: str
    """A pattern for what comes before the number in its --version output."""

    def __init__(self, models: Path) -> None:
        self._version = ""

    @property
    def version(self) -> str:
        if not self._version and shutil.which(self.program):
            self._version = self._asked()
        return self._version or "absent"

    def _asked(self) -> str:
        command = [self.program, "--version"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_VERSION_SECONDS).stdout
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        found = re.search(self.names_itself + r"(\d[\w.]*)", said)
        return found[1] if found else "unknown"

    def limit(self, language: str) -> int:
        return 300

    def missing(self) -> str | None:
        return None if shutil.which(self.program) else f"the program {self.program} is not installed"

    def weight_files(self) -> tuple[Path, ...]:
        return ()

    def load(self) -> None:
        if problem := self.missing():
            raise FileNotFoundError(problem)

    def unload(self) -> None:
        pass

    def arguments(self, request: Request, target: str) -> Sequence[str]:
        """The command that speaks standard input into `target`."""
        raise NotImplementedError

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[Samples]:
        with tempfile.TemporaryDirectory(prefix="voice-") as folder:
            target = Path(folder, "spoken.wav")
            script, complaints = Path(folder, "text"), Path(folder, "complaints")
            script.write_text(request.text, encoding="utf-8")
            with (
                script.open("rb") as text,
                complaints.open("wb") as stderr,
                subprocess.Popen(
                    self.arguments(request, str(target)), stdin=text, stdout=subprocess.DEVNULL, stderr=stderr
                ) as process,
            ):
                until = time.monotonic() + self.longest
                while process.poll() is None:
                    late = time.monotonic() > until
                    if stopped() or late:
                        process.kill()
                        if late:
                            raise Failed(f"{self.program} took more than {self.longest:g} s, and was stopped")
                        return
                    time.sleep(_LOOK)
            if process.returncode or not target.exists():
                complaint = complaints.read_bytes()[:200].decode(errors="replace").strip()
                raise Failed(f"{self.program} failed with status {process.returncode}: {complaint}")
            if target.stat().st_size == _HEADER:
                return  # It found nothing to say and wrote an empty WAV.
            try:
                samples, rate = audio.decode(target)
            except audio.BadSound as problem:
                raise Failed(f"{self.program}'s output cannot be read: {problem}") from problem
        yield audio.resample(samples, rate, self.rate)


class Flite(_Command):
    """Carnegie Mellon's small synthesizer: English, two men and a woman."""

    name = "flite"
    program = "flite"
    names_itself = r"flite-"
    rate = 16000
    languages = ("en",)
    voices = (
        Voice("rms", language="en", gender="male"),
        Voice("slt", language="en", gender="female"),
        Voice("awb", language="en", gender="male"),
    )

    def arguments(self, request: Request, target: str) -> Sequence[str]:
        names = {voice.id for voice in self.voices}
        by_gender = "slt" if request.voice.gender == "female" else "rms"
        voice = request.voice.id if request.voice.id in names else by_gender
        slow = f"duration_stretch={1 / request.speed:.4f}"
        return [self.program, "-voice", voice, "--setf", slow, "-f", "/dev/stdin", "-o", target]


class Espeak(_Command):
    """espeak-ng: very many languages, clear rather than pleasant; it always works."""

    name = "espeak"
    program = "espeak-ng"
    names_itself = r"text-to-speech: "
    rate = 22050
    languages = (
        "ar",
        "bg",
        "bn",
        "cs",
        "da",
        "de",
        "el",
        "en",
        "es",
        "et",
        "fa",
        "fi",
        "fr",
        "he",
        "hi",
        "hr",
        "hu",
        "id",
        "it",
        "ja",
        "ka",
        "ko",
        "lt",
        "lv",
        "ms",
        "nb",
        "nl",
        "no",
        "pl",
        "pt",
        "ro",
        "ru",
        "sk",
        "sl",
        "sr",
        "sv",
        "sw",
        "ta",
        "tr",
        "uk",
        "ur",
        "vi",
        "zh",
    )
    voices = (Voice("espeak", gender="male"), Voice("espeak-female", gender="female"))

    def arguments(self, request: Request, target: str) -> Sequence[str]:
        voice = {"zh": "cmn", "no": "nb"}.get(request.language, request.language)
        if request.voice.gender == "female" or request.voice.id == "espeak-female":
            voice += "+f3"
        return [self.program, "-v", voice, "-s", str(round(175 * request.speed)), "-b", "1", "--stdin", "-w", target]
