"""`python -m hearmeman_voice xtts|chatterbox`: serve one voice API."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PORTS = {"xtts": 8020, "chatterbox": 8000}
"""The port of each API, as the specification has it."""


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    made = argparse.ArgumentParser(
        prog="python -m hearmeman_voice",
        description="Serve a voice API. It asks for no token: on the pod a gate stands before it, elsewhere it stays on loopback.",
    )
    made.add_argument("api", choices=sorted(PORTS), help="which API")
    made.add_argument("--engine", help="what speaks; without it, the engine that the API is named after")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    made.add_argument("--port", type=int, help="port to listen on (xtts 8020, chatterbox 8000)")
    made.add_argument("--voices", type=Path, default=Path("voices"), help="folder that uploaded voices are kept in (./voices)")
    made.add_argument("--builtin-voices", type=Path, help="folder with the image's own voices, a WAV each")
    made.add_argument("--models", type=Path, default=Path("models"), help="folder with the models (./models)")
    made.add_argument("--output", type=Path, default=Path("output"), help="folder that /tts_to_file saves in (./output)")
    made.add_argument("--queue", type=int, default=16, help="requests that may wait (16)")
    made.add_argument(
        "--origin", action="append", default=[], help="a web page elsewhere that may use the API, such as https://chat.example.com"
    )
    return made


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve until a signal; 1 when the engine cannot be had, 2 for arguments that make no sense."""
    arguments = parser()
    args = arguments.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    from hearmeman_voice import engine

    name = args.engine or args.api
    if name not in engine.ENGINES:
        arguments.error(f"--engine {name}: there is {', '.join(sorted(engine.ENGINES))}")
    try:
        idle = float(environ.get("VOICE_IDLE_UNLOAD_SECONDS") or 0)
    except ValueError:
        arguments.error(f"VOICE_IDLE_UNLOAD_SECONDS={environ['VOICE_IDLE_UNLOAD_SECONDS']}: it is no number of seconds")
    try:
        made = engine.make(name, args.models)
    except ImportError as problem:
        print(f"the engine {name} is not in this environment: {problem}", file=sys.stderr)
        return 1
    return _serve(args, made, idle)


def _serve(args: argparse.Namespace, made: object, idle: float) -> int:
    import uvicorn

    from hearmeman_voice import chatterbox_api, xtts_api
    from hearmeman_voice.engine import Engine
    from hearmeman_voice.speaker import Speaker
    from hearmeman_voice.voices import VoiceStore

    engine: Engine = made  # type: ignore[assignment]
    speaker = Speaker(engine, queue_length=args.queue, idle_unload_seconds=idle)
    store = VoiceStore(args.voices, args.builtin_voices, engine.voices)
    if args.api == "xtts":
        app = xtts_api.app(speaker, store, args.output, args.models, args.origin)
    else:
        app = chatterbox_api.app(speaker, store, args.origin)
    # It listens while the model is loaded, so that who asks is answered how far it is.
    speaker.start()
    try:
        uvicorn.run(
            app,
            host=args.host,
            port=PORTS[args.api] if args.port is None else args.port,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
    finally:
        speaker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
