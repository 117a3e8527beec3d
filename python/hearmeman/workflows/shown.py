"""How a run is shown: a progress bar for people, log lines elsewhere, one JSON event per line with --json."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from hearmeman import redact, terminal
from hearmeman.errors import HearmemanError
from hearmeman.log import log
from hearmeman.terminal import Bar, bars
from hearmeman.workflows.answers import Output, Progress, Result


class Shown(Protocol):
    """Called during a run; every name is an event of --json."""

    def submitted(self, prompt_id: str) -> None:
        """ComfyUI has the prompt."""

    def progress(self, progress: Progress) -> None:
        """A node started, or finished a step."""

    def output(self, output: Output, saved: Path | None) -> None:
        """A file was made, and saved here if requested."""

    def done(self, result: Result, seconds: float) -> None:
        """Everything is done."""

    def failed(self, error: HearmemanError) -> None:
        """It ended with this error."""

    def stopped(self) -> None:
        """It was stopped by Ctrl-C, here and in ComfyUI."""


class Pace:
    """A node's speed, and so when it will be done."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._node, self._first, self._since = "", 0.0, 0.0

    def eta(self, progress: Progress) -> float | None:
        """Seconds until the node is done; None while unknown. The first step does not count, since it includes loading."""
        now = self._clock()
        value, most = progress.value, progress.max
        if value is None or most is None or progress.node != self._node or value < self._first:
            self._node, self._first, self._since = progress.node, value or 0.0, now
            if not value:
                self._first = float("inf")
            return None
        if self._first == float("inf"):
            self._first, self._since = value, now
            return None
        made = value - self._first
        return (most - value) * (now - self._since) / made if made > 0 else None


class Events:
    """One JSON object per line on standard output."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._pace = stream, Pace()

    def event(self, event: str, **fields: Any) -> None:
        """Write one and flush it, so that readers see it at once."""
        print(json.dumps(redact.redacted({"event": event, **fields})), file=self._stream, flush=True)

    def submitted(self, prompt_id: str) -> None:
        self.event("submitted", prompt_id=prompt_id)

    def progress(self, progress: Progress) -> None:
        eta = self._pace.eta(progress)
        steps = {"step": progress.value, "steps": progress.max, "eta_seconds": None if eta is None else round(eta, 1)}
        self.event("progress", node=progress.node, class_type=progress.class_type, **steps)

    def output(self, output: Output, saved: Path | None) -> None:
        self.event("output", **output_facts(output, saved))

    def done(self, result: Result, seconds: float) -> None:
        texts = [{"node": node, "text": text} for node, text in result.texts]
        about = {"prompt_id": result.prompt_id, "seconds": round(seconds, 3), "from_cache": result.from_cache}
        self.event("done", **about, texts=texts)

    def failed(self, error: HearmemanError) -> None:
        self.event("failed", **error.facts())

    def stopped(self) -> None:
        self.event("stopped")


def output_facts(output: Output, saved: Path | None) -> dict[str, Any]:
    """One output as JSON values."""
    place = {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
    return {"node": output.node, "kind": output.kind, **place, "saved": None if saved is None else str(saved)}


class Lines:
    """A log line per node, and at most one per second within a node; finished files on standard output."""

    def __init__(self) -> None:
        self._node, self._last, self._pace = "", 0.0, Pace()

    def submitted(self, prompt_id: str) -> None:
        log("workflow.queued", prompt_id=prompt_id)

    def progress(self, progress: Progress) -> None:
        eta, now = self._pace.eta(progress), time.monotonic()
        if progress.node == self._node and now - self._last < 1 and progress.value != progress.max:
            return
        self._node, self._last = progress.node, now
        step = None if progress.max is None else f"{progress.value:g}/{progress.max:g}"
        left = None if eta is None else terminal.duration(eta)
        log("workflow.progress", node=progress.node, class_type=progress.class_type, step=step, eta=left)

    def output(self, output: Output, saved: Path | None) -> None:
        print(saved or output.path)

    def done(self, result: Result, seconds: float) -> None:
        for _, text in result.texts:
            print(terminal.plain(text))
        log("workflow.finished", seconds=round(seconds, 3), files=len(result.outputs))
        if result.from_cache:
            means = "ComfyUI had run the same workflow before and wrote no new file; change an input for a new one"
            log("workflow.unchanged", means=means)

    def failed(self, error: HearmemanError) -> None:
        """The command reports it."""

    def stopped(self) -> None:
        """The client reports it."""


class Screen(Lines):
    """A bar with node, steps and time left, on a terminal."""

    def __init__(self, drawn: terminal.Bars) -> None:
        super().__init__()
        self._drawn = drawn
        drawn.draw({"": Bar("sending", 0)})

    def submitted(self, prompt_id: str) -> None:
        self._drawn.draw({"": Bar("queued", 0)})

    def progress(self, progress: Progress) -> None:
        name = f"{progress.class_type} (node {progress.node})"
        # A separate bar for each node: another's speed says nothing about it.
        self._drawn.draw({progress.node: Bar(name, progress.value or 0, progress.max)})

    def output(self, output: Output, saved: Path | None) -> None:
        self._drawn.stop()
        super().output(output, saved)


@contextlib.contextmanager
def shown(as_json: bool) -> Iterator[Shown]:
    """The right display for this terminal, pipe or file."""
    drawn = None if as_json else bars(sys.stderr, steps=True)
    if drawn is None:
        yield Events(sys.stdout) if as_json else Lines()
        return
    with drawn:
        yield Screen(drawn)
