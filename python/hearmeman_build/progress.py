"""Runs `nix build` and says what is being built, how long it takes and how much is left."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from hearmeman_build import host

_BUILD, _BUILDS, _LINE, _PROGRESS = 105, 104, 101, 105
"""Nix's numbers (src/libutil/logging.hh): the activity of one build, that of all of them, and the results "a line of a
builder's" and "progress"."""

_MARK = "@nix "

_LINES = 8
"""How many of a builder's last lines its failure is told with."""

JOB_BYTES = 1 << 30
"""Memory that one layer's builder and its compressor need at most; 600 MB were seen."""


def jobs(processors: int, available: int) -> int:
    """How many layers to build at once: one for each processor, as far as `available` bytes of memory reach."""
    return max(1, min(processors, available // JOB_BYTES))


class Reader:
    """Nix's internal-json log, line by line, as sentences."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.said: list[str] = []
        """Messages of Nix's own: warnings and errors."""
        self._say = say
        self._clock = clock
        self._running: dict[int, tuple[str, float]] = {}
        self._words: dict[str, deque[str]] = {}
        self._all: set[int] = set()
        self._done = 0
        self._expected = 0

    def feed(self, line: str) -> None:
        """Take one line."""
        if not line.startswith(_MARK):
            self.said.append(line)
            return
        event = json.loads(line.removeprefix(_MARK))
        match event["action"]:
            case "msg":
                self.said.append(host.ANSI.sub("", event["msg"]))
            case "start" if event["type"] == _BUILD:
                name = Path(event["fields"][0]).name.partition("-")[2].removesuffix(".drv")
                self._running[event["id"]] = (name, self._clock())
                self._words[name] = deque(maxlen=_LINES)
            case "result" if event["type"] == _LINE and event["id"] in self._running:
                self._words[self._running[event["id"]][0]].append(host.ANSI.sub("", event["fields"][0]))
            case "start" if event["type"] == _BUILDS:
                self._all.add(event["id"])
            case "result" if event["type"] == _PROGRESS and event["id"] in self._all:
                self._expected = max(self._done, event["fields"][1])
            case "stop" if event["id"] in self._running:
                name, begun = self._running.pop(event["id"])
                seconds = self._clock() - begun
                self._done += 1
                self._say(f"{self._done:3} of {max(self._expected, self._done)}  {name}: {seconds:.0f} s")

    def failure(self) -> str:
        """What Nix said, and last what the builders said that failed: with this kind of log, Nix leaves that out."""
        said = "\n".join(self.said)
        last = [f"{name}: {line}" for name, lines in self._words.items() if f"-{name}.drv'" in said for line in lines]
        return "\n".join([said, *last])

    def waiting(self) -> None:
        """Say what is being built, for when nothing ended for a while."""
        now = self._clock()
        running = [f"{name} ({now - begun:.0f} s)" for name, begun in list(self._running.values())]
        if running:
            self._say(f"{self._done:3} of {self._expected}  building {', '.join(running)}")


def build(words: list[str], say: Callable[[str], None] | None = None, every: float = 30) -> None:
    """Run `nix build WORDS`; `say` (default: a line on the error stream) hears of each part, and of what runs every while.

    Raises:
        BuildError: as `host.nix`.
    """
    reader = Reader(say or (lambda line: print(line, file=sys.stderr, flush=True)))
    limits = [] if host.in_nixpkgs_world() else ["--max-jobs", str(jobs(os.cpu_count() or 1, available_memory()))]
    command, environment = host.call("nix", "build", *words, *limits, "--log-format", "internal-json")
    ended = threading.Event()

    def remind() -> None:
        while not ended.wait(every):
            reader.waiting()

    with host.installed("nix"):
        process = subprocess.Popen(
            command, cwd="/", env=environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    threading.Thread(target=remind, daemon=True).start()
    try:
        for line in process.stderr or ():
            reader.feed(line.rstrip("\n"))
        code = process.wait()
    finally:
        ended.set()
        if process.poll() is None:
            process.terminate()
            process.wait()
    if code != 0:
        raise host.failed("nix build", reader.failure())


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Bytes that programs may take without swapping."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else JOB_BYTES
