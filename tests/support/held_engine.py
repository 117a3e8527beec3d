"""An engine that makes a block only when a test lets it, wherever it runs: the two speak through files in its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hearmeman_voice.engine import Request, Voice
from support.voice import RATE
from support.waiting import PATIENCE, wait_for

ENGINE = "support.held_engine:HeldEngine"
"""What the engine is called where one is chosen by name."""


BLOCKS = 3


def _never() -> bool:
    return False


class HeldEngine:
    """Every chunk of text is `BLOCKS` blocks of a tenth of a second."""

    name = "held"
    rate = RATE
    languages = ("en",)
    voices = (Voice("nobody", None, "en"),)
    clones = False
    version = "1"
    weights: str | None = None

    def __init__(self, models: Path) -> None:
        self._hand = Hand(models)

    def limit(self, language: str) -> int:
        """Give the most characters of a chunk."""
        return 300

    def missing(self) -> str | None:
        """What the test says."""
        path = self._hand.missing
        return path.read_text() if path.exists() else None

    def weight_files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def load(self) -> None:
        """Wait for the test."""
        wait_for(self._hand.may_load.exists, "loading is allowed")

    def unload(self) -> None:
        """Do nothing."""

    def synthesize(self, request: Request, stopped: Callable[[], bool] = _never) -> Iterator[NDArray[np.float32]]:
        """Make a block for each that is allowed."""
        for _ in range(BLOCKS):
            number = len(self._hand.made())
            until = time.monotonic() + PATIENCE
            while self._hand.count() <= number:
                if stopped():
                    return
                assert time.monotonic() < until
                time.sleep(0.005)
            if number == self._hand.fails_at():
                raise RuntimeError("the sampler has no mind to go on")
            self._hand.note(request)
            yield np.full(self.rate // 10, 0.25, np.float32)


@dataclass(frozen=True)
class Hand:
    """The test's hand on the engine."""

    folder: Path

    @property
    def may_load(self) -> Path:
        """Exists when loading may end."""
        return self.folder / "may-load"

    @property
    def missing(self) -> Path:
        """Says, when it exists, what the engine lacks."""
        return self.folder / "missing"

    def let_load(self) -> None:
        """Let loading end."""
        self.may_load.touch()

    def allow(self, blocks: int) -> None:
        """Let it make so many more blocks."""
        with (self.folder / "allowed").open("ab") as file:
            file.write(b"." * blocks)

    def fail_at(self, block: int) -> None:
        """Let it fail at this block, counted from 0."""
        (self.folder / "fails-at").write_text(str(block))

    def fails_at(self) -> int | None:
        """At which block it fails."""
        path = self.folder / "fails-at"
        return int(path.read_text()) if path.exists() else None

    def begin_anew(self) -> None:
        """Forget all that was allowed and made; the engine is idle."""
        for name in ("allowed", "made", "fails-at"):
            (self.folder / name).unlink(missing_ok=True)

    def count(self) -> int:
        """How many blocks it may make in all."""
        path = self.folder / "allowed"
        return path.stat().st_size if path.exists() else 0

    def note(self, request: Request) -> None:
        """Note that a block is made."""
        with (self.folder / "made").open("a") as file:
            file.write(json.dumps({"text": request.text, "speed": request.speed, "seed": request.seed}) + "\n")

    def made(self) -> list[dict[str, Any]]:
        """The requests of all blocks made so far."""
        path = self.folder / "made"
        # Another process writes it: what comes after the last end of a line is half of one.
        text = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]
