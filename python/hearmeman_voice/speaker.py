"""One engine, one bounded queue, one or more workers: who waits, who speaks, who is refused, and when memory is freed."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hearmeman_voice import text
from hearmeman_voice.audio import Edges
from hearmeman_voice.engine import Request, Samples, Spec, check_values, language_of
from hearmeman_voice.log import log
from hearmeman_voice.process import Process
from hearmeman_voice.refusals import Broken, Failed, Full, NotReady, Refused, VoiceError

__all__ = ["Broken", "Failed", "Full", "NotReady", "Refused", "Speaker"]


HELPER_SECONDS = 60.0
"""How long an idle second process of an engine is kept."""

_LOOK_SECONDS = 0.5
"""How often it looks for missing weights."""

JOB_SECONDS = 900.0
"""How long speaking one request may take, once its turn comes."""


@dataclass
class _Job:
    """A request in the queue, and its results."""

    request: Request
    chunks: list[str]
    loop: asyncio.AbstractEventLoop
    left: threading.Event = field(default_factory=threading.Event)
    samples: int = 0
    """How much of it has been made."""
    _made: list[Samples | Exception | None] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_there: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, item: Samples | Exception | None) -> None:
        """Hand on a block, or what went wrong, or None at the end; from any thread."""
        with self._lock:
            is_first = not self._made
            self._made.append(item)
        # Waking the loop costs more than a block, and it takes everything that is there.
        if is_first:
            try:
                self.loop.call_soon_threadsafe(self._is_there.set)
            except RuntimeError:
                # The loop is closed: nobody is listening any more.
                self.left.set()

    async def take(self) -> tuple[list[Samples], bool, Exception | None]:
        """Wait for what `put` hands on, and take all of it: blocks, whether this is the end, and what went wrong."""
        await self._is_there.wait()
        self._is_there.clear()
        with self._lock:
            made, self._made = self._made, []
        blocks: list[Samples] = []
        for item in made:
            if item is None or isinstance(item, Exception):
                return blocks, True, item
            blocks.append(item)
        return blocks, False, None


@dataclass
class _Lane:
    """A worker with its own process. The first lives as long as the server; others come and go with the queue."""

    is_first: bool
    process: Process | None = None
    speaking: _Job | None = None
    is_loading: bool = False


class Speaker:
    """Speaks requests in the engine's own process: one after another, or several at once if the engine can."""

    def __init__(
        self,
        spec: Spec,
        queue_length: int = 16,
        idle_unload_seconds: float = 0.0,
        job_seconds: float = JOB_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = spec.make()
        """What it can do; it is never loaded in this process."""
        self._spec, self._length, self._idle, self._limit, self._clock = (
            spec,
            queue_length,
            idle_unload_seconds,
            job_seconds,
            clock,
        )
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        # On the GPU, one request at a time; a small engine says how many cores it can use.
        self._lanes = [_Lane(is_first=number == 0) for number in range(getattr(self.engine, "parallel", 1))]
        self._loading_since: float | None = None
        self._was_loaded = False
        self._is_closed = False
        self._broken: str | None = None
        self._last = 1.0
        self._weights: str | None = None
        self._threads = [
            threading.Thread(
                target=self._work if lane.is_first else self._help, args=(lane,), name="speaker", daemon=True
            )
            for lane in self._lanes
        ]
        self.measured: Callable[[float, float], None] = lambda work, sound: None
        """Called after each request with the seconds of work and the seconds of sound."""
        self.broken = threading.Event()
        """Set when the engine is broken: the server should end and be restarted."""

    def start(self) -> None:
        """Load the engine and start working in the background."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop what is being spoken, end the engine's process, and wait for both."""
        with self._change:
            self._is_closed = True
            for lane in self._lanes:
                if lane.speaking:
                    lane.speaking.left.set()
            self._change.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def state(self) -> dict[str, Any]:
        """Its state, for /health and metrics. Reading it does not count as using the engine."""
        processes = [lane.process for lane in self._lanes]
        process = processes[0]
        if process:
            self._weights = process.about.weights or self._weights
        loading = self._loading_since
        return {
            "name": self.engine.name,
            "version": self.engine.version,
            "weights": self._weights,
            "loaded": process is not None and loading is None,
            "loading": not self._was_loaded and self._broken is None,
            "progress": self._progress(),
            "broken": self._broken,
            "queue": self._length,
            "waiting": len(self._jobs),
            "in_flight": sum(lane.speaking is not None for lane in self._lanes),
            "vram": sum(one.about.vram for one in processes if one),
            "pid": process.pid if process and loading is None else None,
        }

    async def speak(self, request: Request) -> AsyncGenerator[Samples, None]:
        """Speak a text of any length: blocks of shape (samples,) at the engine's rate. Closing it stops the engine. The
        first sentence is given while the second is made. Raises: Full, NotReady, Broken, Failed, Refused.
        """
        job = self._enter(self.check(request))
        try:
            while True:
                blocks, is_over, problem = await job.take()
                if blocks:
                    yield blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
                if problem:
                    raise problem
                if is_over:
                    return
        finally:
            self._leave(job)

    def check(self, request: Request) -> Request:
        """The request as the engine takes it: clean text, its own language code. Raises: Refused."""
        check_values(request)
        cleaned = text.clean(request.text)
        if not text.speakable(cleaned):
            raise Refused("input", "there is nothing in this text that can be spoken", "nothing_to_speak")
        return replace(request, text=cleaned, language=language_of(self.engine, request.language))

    def _enter(self, request: Request) -> _Job:
        if self._broken:
            raise Broken(self._broken)
        if not self._was_loaded:
            missing = self.engine.missing()
            raise NotReady(f"{self.engine.name} cannot speak yet: {self._progress()}", self._progress(), bool(missing))
        chunks = text.split(request.text, self.engine.limit(request.language), request.language)
        job = _Job(request, chunks, asyncio.get_running_loop())
        with self._change:
            if self._broken:
                # It broke since the check above, and nobody takes from the queue any more.
                raise Broken(self._broken)
            # A request being spoken has left the queue; one that can start at once does not count as waiting.
            room = self._length + sum(lane.speaking is None for lane in self._lanes)
            if len(self._jobs) >= room:
                wait = min(max(self._last * len(self._jobs) / 2, 1.0), 20.0)
                raise Full(
                    f"{len(self._jobs)} requests are already waiting, the most allowed; try again in a moment",
                    round(wait),
                )
            self._jobs.append(job)
            self._change.notify_all()
        return job

    def _leave(self, job: _Job) -> None:
        job.left.set()
        with self._change:
            if job in self._jobs:
                self._jobs.remove(job)

    def _progress(self) -> str:
        if self._broken:
            return self._broken
        if not self._was_loaded and (missing := self.engine.missing()):
            return missing
        since = self._loading_since
        if since is not None:
            return f"the model has been loading for {self._clock() - since:.0f} s"
        return "ready" if self._was_loaded else "the model will be loaded next"

    def _work(self, lane: _Lane) -> None:
        """Load the engine as soon as its files are there, and speak."""
        with self._watched(lane):
            if self._await_files():
                self._load(lane)
                while job := self._next(lane):
                    self._do(lane, job)

    def _help(self, lane: _Lane) -> None:
        """Speak in parallel with the first while more requests wait."""
        with self._watched(lane):
            while job := self._next(lane):
                self._do(lane, job)

    @contextlib.contextmanager
    def _watched(self, lane: _Lane) -> Iterator[None]:
        try:
            yield
        except VoiceError as problem:
            self._break(problem)
        except Exception as problem:
            log("speaker.failed", error=problem)
            self._break(problem)
        finally:
            self._unload(lane)

    def _await_files(self) -> bool:
        """Wait for the weights, which another process fetches; False once closed."""
        while self.engine.missing():
            with self._change:
                if self._change.wait_for(lambda: self._is_closed, timeout=_LOOK_SECONDS):
                    return False
        return not self._is_closed

    def _load(self, lane: _Lane) -> None:
        if lane.is_first:
            self._loading_since = self._clock()
        process = Process(self._spec)
        process.start()
        # One that could not be started has nothing to end.
        lane.process = process
        process.load(lambda: self._is_closed)
        if lane.is_first:
            self._loading_since = None
            self._was_loaded = True
        about = process.about
        log("engine.loaded", name=self.engine.name, version=self.engine.version, seconds=about.load_seconds)

    def _unload(self, lane: _Lane) -> None:
        process, lane.process = lane.process, None
        if process:
            self._weights = process.about.weights or self._weights
            process.end()

    def _next(self, lane: _Lane) -> _Job | None:
        """Wait for a job; meanwhile read the process's messages, and end it after a long idle time. None: closed."""
        since = self._clock()
        idle = self._idle if lane.is_first else min(self._idle or HELPER_SECONDS, HELPER_SECONDS)
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_over() or self._is_turn(lane), timeout=0.5)
                if self._is_over():
                    return None
                is_turn = self._is_turn(lane)
                if is_turn and (lane.process or lane.is_first):
                    lane.speaking = self._jobs.popleft()
                    # Now it is the next one's turn, if any is waiting.
                    self._change.notify_all()
                    return lane.speaking
                lane.is_loading = is_turn
            if is_turn:
                # Without a job: by the time it is loaded, another may be free sooner.
                self._load(lane)
                lane.is_loading = False
            elif lane.process:
                lane.process.listen()
                if idle and self._clock() - since >= idle:
                    log("engine.unloaded", name=self.engine.name, idle=idle)
                    self._unload(lane)

    def _is_over(self) -> bool:
        return self._is_closed or self._broken is not None

    def _is_turn(self, lane: _Lane) -> bool:
        """Whether a lane should take the next job: the first at once, the others when all before them are speaking."""
        if lane.is_first:
            return bool(self._jobs)
        ready = [other for other in self._lanes if other is not lane and (other.process or other.is_first)]
        before = [other for other in ready if not lane.process or other.is_first]
        coming = sum(other.is_loading for other in self._lanes)
        return len(self._jobs) > (0 if lane.process else coming) and all(other.speaking for other in before)

    def _do(self, lane: _Lane, job: _Job) -> None:
        began = self._clock()
        until = began + self._limit

        def over() -> bool:
            return job.left.is_set() or self._is_closed or self._clock() > until

        try:
            if lane.process is None:
                self._load(lane)
                until += self._clock() - began
            self._speak(lane, job, over)
            if not job.left.is_set() and over():
                raise Failed(f"this took longer than {self._limit:.0f} s and was stopped; send the text in parts")
        except Broken:
            # Everyone who is waiting is informed at once, including this one.
            raise
        except VoiceError as problem:
            job.put(problem)
        else:
            job.put(None)
            self._last = self._clock() - began
            self.measured(self._last, job.samples / self.engine.rate)
        with self._change:
            lane.speaking = None

    def _speak(self, lane: _Lane, job: _Job, over: Callable[[], bool]) -> None:
        assert lane.process
        for chunk in job.chunks:
            edges = Edges(self.engine.rate)
            for block in lane.process.speak(replace(job.request, text=chunk), over):
                job.samples += len(block)
                if len(ready := edges.write(block)):
                    job.put(ready)
            if over():
                return
            if len(rest := edges.finish()):
                job.put(rest)
        if not job.samples:
            raise Refused("input", f"{self.engine.name} found nothing to speak in this text", "nothing_to_speak")

    def _break(self, problem: Exception) -> None:
        with self._change:
            self._broken = str(problem)
            jobs = [*self._jobs, *(lane.speaking for lane in self._lanes if lane.speaking)]
            self._jobs.clear()
            for lane in self._lanes:
                lane.speaking = None
            self._change.notify_all()
        self.broken.set()
        log("engine.broken", name=self.engine.name, why=self._broken)
        for job in jobs:
            job.put(Broken(self._broken))
