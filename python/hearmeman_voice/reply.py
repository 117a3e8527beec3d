"""A spoken answer: its first piece is sent while the next is made, and a client that hangs up stops the engine. The
status is settled by the first piece of audio, so that what fails before it is an error with its own status.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hearmeman_voice import openai
from hearmeman_voice.errors import ApiError, disk_error
from hearmeman_voice.log import log
from hearmeman_voice.metrics import Metrics
from hearmeman_voice.refusals import Broken, Failed, Full, NotReady, Refused

Block = NDArray[np.float32]

PATIENCE = 60.0
"""Seconds without a byte after which something is sent: RunPod's proxy closes a connection after 100."""


class Out(Protocol):
    """What happens to the audio on its way out."""

    content_type: str
    is_quick: bool
    """Whether it handles a block fast enough to need no other thread."""
    whole: bool
    """Whether the answer waits for its end, to know its length, within limits."""

    def write(self, block: Block) -> bytes:
        """Take a block of shape (samples,) and return what can be sent."""

    def idle(self) -> bytes:
        """Return something that keeps the connection open and changes little."""

    def finish(self) -> bytes:
        """Give what is left."""

    def complete(self, body: bytes) -> bytes:
        """Correct a complete body, now that its length is known."""

    def failed(self, error: ApiError) -> bytes | None:
        """Return the last bytes after a failure in mid-stream; None cuts the connection, so that nobody takes it for
        complete.
        """

    def close(self) -> None:
        """Release everything; called once, whatever happened."""


class Spoken(Response):
    """Sends blocks of audio as they are made."""

    def __init__(
        self,
        blocks: AsyncGenerator[Block, None],
        out: Out,
        metrics: Metrics,
        characters: int,
        rate: int,
        param: str = "input",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Type": out.content_type})
        self._blocks, self._out, self._metrics = blocks, out, metrics
        self._characters, self._rate, self._clock = characters, rate, clock
        self._param = param
        """What the request calls its text."""
        self._is_at_its_end = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Speak until the end, or until the client is gone.

        Raises:
            ApiError: it failed before the first byte.
        """
        work = asyncio.create_task(self._answer(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_at_its_end:
                await asyncio.wait({work})
            elif not work.done():
                self._metrics.cancelled.inc()
        finally:
            gone.cancel()
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(gone, return_exceptions=True)
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()

    async def _answer(self, send: Send) -> None:
        sending = _Sending(send, self, self._out)
        began = self._clock()
        samples = 0
        first = 0.0
        try:
            async with contextlib.aclosing(self._blocks) as blocks:
                following = asyncio.ensure_future(anext(blocks))
                try:
                    while True:
                        ready, _ = await asyncio.wait({following}, timeout=PATIENCE)
                        if not ready:
                            await sending.piece(await asyncio.to_thread(self._out.idle), even_so=True)
                            continue
                        try:
                            block = following.result()
                        except StopAsyncIteration:
                            break
                        following = asyncio.ensure_future(anext(blocks))
                        samples += len(block)
                        data = (
                            self._out.write(block)
                            if self._out.is_quick
                            else await asyncio.to_thread(self._out.write, block)
                        )
                        await sending.piece(data, even_so=self._clock() - began > PATIENCE)
                        if not first and sending.started:
                            first = self._clock() - began
                            self._metrics.first_byte.observe(first)
                finally:
                    following.cancel()
                    await asyncio.wait({following})
            rest = self._out.finish() if self._out.is_quick else await asyncio.to_thread(self._out.finish)
            self._is_at_its_end = True
            await sending.end(rest)
            if not first:
                self._metrics.first_byte.observe(self._clock() - began)
            self._metrics.spoke(self._characters, samples / self._rate)
        except Exception as problem:
            error = as_api_error(problem, self._param)
            self._metrics.refused(error)
            if not sending.started:
                raise error from problem
            log("speech.broken_off", seconds=samples / self._rate, why=error.message)
            last = self._out.failed(error)
            if last is not None:
                self._is_at_its_end = True
                await sending.end(last)
        finally:
            self._out.close()


class _Sending:
    """How far the response has been sent: nothing, its start, then its pieces."""

    def __init__(self, send: Send, response: Response, out: Out) -> None:
        self._send, self._response, self._out = send, response, out
        self._held = bytearray()
        self.started = False

    async def piece(self, data: bytes, even_so: bool) -> None:
        """Send; if the answer should be complete, hold it back, unless the limit is reached (`even_so`)."""
        if self._out.whole and not even_so and not self.started:
            self._held += data
            return
        if data or self._held:
            await self._start(None)
            await self._body(bytes(self._held) + data, more=True)
            self._held.clear()

    async def end(self, data: bytes) -> None:
        """Send the rest."""
        if not self.started:
            whole = self._out.complete(b"".join((self._held, data)))
            await self._start(len(whole))
            await self._body(whole, more=False)
        else:
            await self._body(data, more=False)

    async def _start(self, length: int | None) -> None:
        if self.started:
            return
        headers = list(self._response.raw_headers)
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.started = True

    async def _body(self, data: bytes, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def as_api_error(problem: Exception, text_param: str = "input") -> ApiError:
    """Turn what stopped the speech into an answer; `text_param` is what the request calls its text."""
    match problem:
        case ApiError():
            return problem
        case Full():
            return ApiError(429, problem.message, code="queue_full", retry_after=problem.retry_after)
        case NotReady():
            wait = None if problem.lasting else 5.0
            return ApiError(503, problem.message, code="not_ready", retry_after=wait, useless=problem.lasting)
        case Broken():
            return ApiError(503, problem.message, code="engine_broken", retry_after=15.0)
        case Failed():
            return ApiError(500, problem.message, code="engine_failed")
        case Refused():
            param = text_param if problem.param == "input" else problem.param
            return ApiError(400, problem.message, param=param, code=problem.code)
        case OSError():
            return disk_error(problem)
        case _:
            log("engine.failed", error=problem)
            return ApiError(500, "the engine failed; the log says more", code="engine_failed")


class Audio:
    """The audio itself."""

    def __init__(self, format: str, rate: int, whole: bool) -> None:
        from hearmeman_voice.audio import Encoder

        self._encoder = Encoder(format, rate)
        self._rate = rate
        self._is_wav = format == "wav"
        self.is_quick = format in ("wav", "pcm")
        self.content_type: str = self._encoder.content_type
        self.whole = whole

    def write(self, block: Block) -> bytes:
        """Encode a block."""
        return self._encoder.write(block)

    def idle(self) -> bytes:
        """Encode the least silence that produces a byte."""
        silence = np.zeros(self._rate // 10, np.float32)
        for _ in range(30):
            if data := self._encoder.write(silence):
                return data
        return b""

    def finish(self) -> bytes:
        """Encode what is left."""
        return self._encoder.finish()

    def complete(self, body: bytes) -> bytes:
        """Write the true length into a WAV's header."""
        return with_lengths(body) if self._is_wav else body

    def failed(self, error: ApiError) -> None:
        """Cut it."""

    def close(self) -> None:
        """Nothing stays open."""


class Events:
    """Server-sent events that carry the audio."""

    content_type = "text/event-stream; charset=utf-8"
    is_quick = False
    whole = False

    def __init__(self, format: str, rate: int, characters: int) -> None:
        self._audio = Audio(format, rate, whole=False)
        self._rate, self._characters, self._samples = rate, characters, 0

    def write(self, block: Block) -> bytes:
        """Encode a block into an event."""
        self._samples += len(block)
        data = self._audio.write(block)
        return openai.delta(data) if data else b""

    def idle(self) -> bytes:
        """Return a comment, which clients ignore."""
        return b": still at work\n\n"

    def finish(self) -> bytes:
        """Encode what is left, and mark the end."""
        data = self._audio.finish()
        return (openai.delta(data) if data else b"") + openai.done(self._characters, self._samples / self._rate)

    def complete(self, body: bytes) -> bytes:
        """Leave it."""
        return body

    def failed(self, error: ApiError) -> bytes:
        """Say what went wrong."""
        return openai.broken_off(error.error())

    def close(self) -> None:
        """Nothing stays open."""


def with_lengths(wav: bytes, length: int | None = None) -> bytes:
    """Fill in the lengths in a WAV's header that was written before they were known; `length` is the file's, if `wav`
    is only its head.
    """
    length = len(wav) if length is None else length
    start = wav.index(b"data") + 8
    riff, sound = ((length - from_).to_bytes(4, "little") for from_ in (8, start))
    return b"".join((wav[:4], riff, wav[8 : start - 4], sound, memoryview(wav)[start:]))
