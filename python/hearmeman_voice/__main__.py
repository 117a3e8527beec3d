"""`python -m hearmeman_voice xtts|chatterbox`: serve one voice API."""

from __future__ import annotations

import argparse
import ctypes
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hearmeman_voice.engine import Spec
from hearmeman_voice.log import log, start_log

if TYPE_CHECKING:
    import uvicorn

    from hearmeman_voice.speaker import Speaker


CHATTERBOX_MODELS = ("multilingual", "english")
"""Values of CHATTERBOX_MODEL."""

PORTS = {"xtts": 8020, "chatterbox": 8000}
"""The port of each API, as the specification has it."""

# As malloc.h numbers them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 16 << 20
"""Bytes of freed memory that the server keeps, and the size of the largest piece."""


def _within(least: int, most: int) -> Callable[[str], int]:
    def whole(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text}: it is not a whole number from {least} to {most}")
        return int(text)

    return whole


def parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    made = argparse.ArgumentParser(
        prog="python -m hearmeman_voice",
        description="Serve a voice API. It does not check tokens: on a pod the gate does, elsewhere it listens on "
        "loopback only.",
    )
    made.add_argument("api", choices=sorted(PORTS), help="which API")
    made.add_argument("--engine", help="which engine speaks (default: the one the API is named after)")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    made.add_argument("--port", type=_within(1, 65535), help="port to listen on (xtts 8020, chatterbox 8000)")
    made.add_argument("--voices", type=Path, default=Path("voices"), help="folder for uploaded voices (./voices)")
    made.add_argument("--builtin-voices", type=Path, help="folder with the image's own voices, one WAV each")
    made.add_argument("--models", type=Path, default=Path("models"), help="folder with the models (./models)")
    made.add_argument(
        "--output", type=Path, default=Path("output"), help="folder that /tts_to_file saves to (./output)"
    )
    made.add_argument("--queue", type=_within(0, 1000), default=16, help="how many requests may wait (16)")
    return made


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until a signal; 1 if the engine cannot run, 2 for bad arguments."""
    arguments = parser()
    args = arguments.parse_args(argv)
    start_log()
    try:
        spec = spec_of(args, environ)
        idle = _seconds(environ, "VOICE_IDLE_UNLOAD_SECONDS")
    except ValueError as problem:
        arguments.error(str(problem))
    return _serve(args, spec, idle, _origins(environ.get("VOICE_ORIGINS", "")))


def _origins(text: str) -> tuple[str, ...]:
    """Web pages on other addresses that may use the API, separated by commas or spaces."""
    return tuple(word.rstrip("/").lower() for word in text.replace(",", " ").split())


def _seconds(environ: Mapping[str, str], name: str) -> float:
    text = environ.get(name) or "0"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name}={text}: it is not a number of seconds")
    return seconds


def spec_of(args: argparse.Namespace, environ: Mapping[str, str]) -> Spec:
    """Choose the engine, from the arguments and a few variables.

    Raises:
        ValueError: there is no such engine, or it has no such model.
    """
    name = args.engine or args.api
    options = {}
    if name == "chatterbox":
        options["model"] = environ.get("CHATTERBOX_MODEL") or "multilingual"
        if options["model"] not in CHATTERBOX_MODELS:
            raise ValueError(f"CHATTERBOX_MODEL={options['model']}: it is {' or '.join(CHATTERBOX_MODELS)}")
    spec = Spec(name, args.models, environ.get("VOICE_GPU", ""), options)
    spec.make()
    return spec


def _serve(args: argparse.Namespace, spec: Spec, idle: float, origins: Sequence[str]) -> int:
    import uvicorn

    from hearmeman_voice import chatterbox_api, xtts_api
    from hearmeman_voice.speaker import Speaker
    from hearmeman_voice.voices import VoiceStore

    port = PORTS[args.api] if args.port is None else args.port
    try:
        family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
        listener = socket.create_server((args.host, port), family=family, backlog=2048)
    except OSError as problem:
        # Python adds the address to the system's words; a resolver's errors have their own.
        why = problem.strerror if isinstance(problem, socket.gaierror) else os.strerror(problem.errno or 0)
        print(f"port {port} of {args.host}: {why}: set another --host or --port", file=sys.stderr)
        return 1
    speaker = Speaker(spec, queue_length=args.queue, idle_unload_seconds=idle)
    store = VoiceStore(args.voices, args.builtin_voices, lambda: speaker.engine.voices)
    if args.api == "xtts":
        app = xtts_api.app(speaker, store, args.output, args.models, origins)
    else:
        app = chatterbox_api.app(speaker, store, origins)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
    )
    _reuse_freed_memory()
    log("voice.listening", api=args.api, at=f"http://{args.host}:{port}", page="/docs")
    # It already listens while the model loads, so that it can report progress.
    speaker.start()
    threading.Thread(target=_end_when_broken, args=(speaker, server), daemon=True).start()
    # uvicorn raises the signal again when it ends, which would kill this process before the engine's has ended.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    try:
        server.run(sockets=[listener])
    finally:
        speaker.close()
    return 1 if speaker.broken.is_set() else 0


def _reuse_freed_memory() -> None:
    """Keep the memory of one request's sound for the next: returning it to the kernel takes glibc 1 ms per request."""
    libc = ctypes.CDLL(None)
    for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
        libc.mallopt(parameter, _KEPT)


def _end_when_broken(speaker: Speaker, server: uvicorn.Server) -> None:
    """End the server when the engine is broken: the supervisor starts it again."""
    speaker.broken.wait()
    # Long enough to answer everyone who is waiting.
    time.sleep(1)
    server.should_exit = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
