"""flite and espeak-ng, through their commands: small, quick voices without a model to load."""

import io
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
_LONGEST = 120.0
"""Seconds that one chunk may take, which takes a tenth of one."""


class _Command:
    """An engine that is a program: text on its standard input, a WAV out of it."""

    name: str
    program: str
    rate: int
    languages: tuple[str, ...]
    voices: tuple[Voice, ...]
    clones = False

    def __init__(self, models: Path) -> None:
        self._version = ""

    @property
    def version(self) -> str:
        if not self._version and shutil.which(self.program):
            said = subprocess.run([self.program, "--version"], capture_output=True, text=True, check=False).stdout
            numbers = [word for word in said.replace("flite-", "").split() if word[:1].isdigit()]
            self._version = numbers[0] if numbers else "unknown"
        return self._version or "absent"

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
        """The command that writes the spoken standard input into `target`."""
        raise NotImplementedError

    def synthesize(self, request: Request, stopped: Callable[[], bool] = never) -> Iterator[Samples]:
        with tempfile.TemporaryDirectory(prefix="voice-") as folder:
            target = Path(folder, "spoken.wav")
            script = Path(folder, "text")
            script.write_text(request.text)
            with (
                script.open("rb") as text,
                subprocess.Popen(
                    self.arguments(request, str(target)), stdin=text, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                ) as process,
            ):
                until = time.monotonic() + _LONGEST
                while process.poll() is None:
                    if stopped() or time.monotonic() > until:
                        process.kill()
                        return
                    time.sleep(_LOOK)
                complaint = (process.stderr or io.BytesIO()).read().decode(errors="replace").strip()
            if process.returncode or not target.exists():
                raise Failed(f"{self.program} ended with status {process.returncode}: {complaint[:200]}")
            try:
                samples, rate = audio.decode(target)
            except audio.BadSound:
                # It found nothing to say, and wrote an empty WAV.
                return
        yield audio.resample(samples, rate, self.rate)


class Flite(_Command):
    """Carnegie Mellon's small synthesizer: English, men and a woman."""

    name = "flite"
    program = "flite"
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
    """espeak-ng: very many languages, clear rather than pleasant; what always works."""

    name = "espeak"
    program = "espeak-ng"
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
