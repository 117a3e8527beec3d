"""Makes results ahead of their turn in forked processes, so that bytecode is compiled while the compressor works."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from hearmeman_build.errors import BuildError

T = TypeVar("T")


def results(makers: Sequence[Callable[[], T]], workers: int) -> Iterator[T]:
    """The results of `makers`, in their order. The processes begin at once, and wait when they are far ahead.

    Call it before this process has threads, which a fork would not take along.

    Raises:
        BuildError: one was raised by a maker, or a process was killed.
    """
    # A Python that was started through ld.so cannot start another, but it can be forked.
    context = multiprocessing.get_context("fork")
    sources = []
    for number in range(min(workers, len(makers))):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_make, args=(makers[number::workers], writer), daemon=True)
        process.start()
        writer.close()
        sources.append((process, reader))
    return _received(sources, len(makers))


def _make(makers: Sequence[Callable[[], object]], writer: Connection) -> None:
    for maker in makers:
        try:
            result: object = maker()
        except BuildError as error:
            result = error
        writer.send(result)


def _received(sources: Sequence[tuple[multiprocessing.process.BaseProcess, Connection]], count: int) -> Iterator[T]:
    for number in range(count):
        process, reader = sources[number % len(sources)]
        try:
            result = reader.recv()
        except EOFError:
            process.join()
            raise BuildError(
                f"a process that compiles bytecode ended with {process.exitcode}: is the memory full?"
            ) from None
        if isinstance(result, BuildError):
            raise result
        yield result
    for process, _ in sources:
        process.join()
