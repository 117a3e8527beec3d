"""`xtts-vo-gen`: lines of a script to WAV files, spoken by a pod's voice API."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hearmeman_voice import files
from hearmeman_voice.remote import Remote, RemoteError, UnreachableError

SOUND = {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".webm"}
"""Names with these endings are recordings, not speakers."""
_UNKNOWN = 0x7FFFFFF0
"""From this value on, a length in a WAV's header means "unknown"."""


@dataclass(frozen=True)
class Output:
    """One file in a batch."""

    file: str
    text: str
    status: str
    """made, kept (it already existed) or failed."""
    error: str = ""


def parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    made = argparse.ArgumentParser(
        prog="xtts-vo-gen",
        description="Speaks text or a script through a pod's XTTS or Chatterbox API and writes WAV files.",
        epilog="If the pod has a token, put it into the environment variable ACCESS_TOKEN. Exit codes: 0 all made, 1 "
        "nothing made, "
        "2 wrong usage, 3 some lines failed; run the same command again to continue.",
        allow_abbrev=False,
    )
    made.add_argument("text", metavar="TEXT", nargs="?", help="text to speak")
    made.add_argument("-f", "--file", type=Path, help="script: each non-empty line becomes a file; - is stdin")
    made.add_argument("-o", "--output", type=Path, help="WAV to write (output.wav)")
    made.add_argument("-d", "--output-dir", type=Path, help="folder for a script's files (vo-output)")
    made.add_argument("-s", "--speaker", default="female", help="a speaker's name, or a recording to upload (female)")
    made.add_argument("-l", "--language", default="en", help="language code (en)")
    made.add_argument("-p", "--prefix", default="line", help="start of a script's file names: PREFIX_001.wav (line)")
    made.add_argument("--stream", action="store_true", help="write the WAV to stdout as it is spoken")
    made.add_argument("--list-speakers", action="store_true", help="print the server's speakers")
    made.add_argument("--list-languages", action="store_true", help="print the server's languages")
    made.add_argument("--url", help="the API's address (VOICE_URL, or http://127.0.0.1:8020)")
    made.add_argument("--force", action="store_true", help="with --file: remake existing files")
    made.add_argument("--json", action="store_true", help="print JSON")
    return made


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; its exit code."""
    arguments = parser()
    args = arguments.parse_args(argv)
    _check(arguments, args)
    url = args.url or environ.get("VOICE_URL") or "http://127.0.0.1:8020"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        arguments.error(f"--url {url}: it must be an address such as http://127.0.0.1:8020")
    # As OpenAI's clients are given it.
    remote = Remote(url.rstrip("/").removesuffix("/v1"), environ.get("ACCESS_TOKEN", "").strip(), say=_note)
    try:
        return _run(args, remote)
    except RemoteError as error:
        print(f"xtts-vo-gen: {error}", file=sys.stderr)
    except BrokenPipeError:
        # The player was closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:
        print(f"xtts-vo-gen: {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
    except KeyboardInterrupt:
        # Any other command starts over.
        goes_on = args.file is not None and not args.force
        print(f"xtts-vo-gen: stopped{'; run the same command again to continue' if goes_on else ''}", file=sys.stderr)
        return 130
    return 1


def _check(arguments: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    chosen = [
        name
        for name, given in (
            ("TEXT", args.text is not None),
            ("--file", args.file is not None),
            ("--list-speakers", args.list_speakers),
            ("--list-languages", args.list_languages),
        )
        if given
    ]
    if len(chosen) != 1:
        arguments.error("give one of TEXT, --file, --list-speakers and --list-languages" + _found(chosen))
    if args.stream and (args.text is None or args.output or args.json):
        arguments.error(
            "--stream writes the sound of TEXT to stdout: it cannot be combined with --file, --output or --json"
        )
    if args.text is not None and args.output_dir:
        arguments.error("--output-dir is for --file: use --output for one text")
    if args.file is not None and args.output:
        arguments.error("--output is for one text: use --output-dir with --file")
    if args.output and not _is_file_to_be(args.output):
        arguments.error(
            f"--output {args.output}: it must be a file, not a link, in an existing folder; --stream writes to stdout"
        )
    if args.text is not None and not args.text.strip():
        arguments.error("TEXT is empty")
    if Path(args.prefix).name != args.prefix or args.prefix in ("", ".", ".."):
        arguments.error(f"--prefix {args.prefix}: it must be the start of a file name, not a path")
    if _is_recording(args.speaker) and not Path(args.speaker).is_file():
        arguments.error(f"--speaker {args.speaker}: there is no such recording")
    if args.file is not None and str(args.file) != "-" and not args.file.is_file():
        arguments.error(f"--file {args.file}: there is no such file")


def _is_file_to_be(path: Path) -> bool:
    """Whether a file can be renamed into place; that would replace a device such as /dev/null, or a link to one."""
    return not path.is_symlink() and (path.is_file() or (not path.exists() and path.parent.is_dir()))


def _found(chosen: Sequence[str]) -> str:
    return f", not {' and '.join(chosen)} at once" if chosen else ""


def _is_recording(speaker: str) -> bool:
    return "/" in speaker or Path(speaker).suffix.lower() in SOUND


def _run(args: argparse.Namespace, remote: Remote) -> int:
    if args.list_speakers:
        return _list(args.json, "speakers", {name: name for name in remote.speakers()})
    if args.list_languages:
        return _list(args.json, "languages", remote.languages())
    speaker = args.speaker
    if _is_recording(speaker):
        speaker = remote.upload(Path(speaker), args.language)
        _note(f"{args.speaker} is the speaker {speaker}")
    if args.file is not None:
        return _batch(args, remote, speaker)
    if args.stream:
        for piece in remote.speak(args.text, speaker, args.language, stream=True):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return 0
    output = args.output or Path("output.wav")
    seconds = _write(output, remote.speak(args.text, speaker, args.language))
    if args.json:
        print(json.dumps({"file": str(output), "seconds": seconds, "speaker": speaker}))
    else:
        print(f"{output}: {seconds:g} s")
    return 0


def _list(as_json: bool, name: str, found: Mapping[str, str]) -> int:
    if as_json:
        print(json.dumps({name: list(found) if name == "speakers" else dict(found)}, ensure_ascii=False))
    else:
        print("\n".join(key if key == code else f"{code:8} {key}" for key, code in found.items()))
    return 0


def _batch(args: argparse.Namespace, remote: Remote, speaker: str) -> int:
    """Make one file per line; existing files with the same text, speaker and language are kept."""
    lines = _script(args.file)
    folder = args.output_dir or Path("vo-output")
    folder.mkdir(parents=True, exist_ok=True)
    files.sweep(folder, time.time())
    notes = folder / f".{args.prefix}.json"
    known = _read(notes)
    width = max(3, len(str(len(lines))))
    outputs: list[Output] = []
    lost = ""
    for number, line in enumerate(lines, 1):
        file = folder / f"{args.prefix}_{number:0{width}}.wav"
        mark = hashlib.sha256("\0".join((line, speaker, args.language)).encode()).hexdigest()
        if not args.force and known.get(file.name) == mark and file.is_file():
            outputs.append(Output(str(file), line, "kept"))
            _note(f"[{number}/{len(lines)}] {file.name}: it exists already")
            continue
        if lost:
            outputs.append(Output(str(file), line, "failed", lost))
            continue
        try:
            seconds = _write(file, remote.speak(line, speaker, args.language))
            known[file.name] = mark
            _keep(notes, json.dumps(known, indent=1).encode())
        except (RemoteError, OSError) as error:
            problem = str(error) if isinstance(error, RemoteError) else f"{error.filename}: {error.strerror}"
            # With the server gone or the disk full, the next line would fail too.
            lost = "" if isinstance(error, RemoteError) and not isinstance(error, UnreachableError) else problem
            outputs.append(Output(str(file), line, "failed", problem))
            _note(f"[{number}/{len(lines)}] {file.name}: FAILED: {problem}")
            continue
        outputs.append(Output(str(file), line, "made"))
        _note(f"[{number}/{len(lines)}] {file.name}: {seconds:g} s")
    failed = [output for output in outputs if output.status == "failed"]
    if args.json:
        print(json.dumps({"speaker": speaker, "outputs": [asdict(output) for output in outputs]}, ensure_ascii=False))
    else:
        made, kept = (sum(output.status == status for output in outputs) for status in ("made", "kept"))
        print(f"{made} made, {kept} kept, {len(failed)} failed, in {folder}")
    if not failed:
        return 0
    return 1 if len(failed) == len(outputs) else 3


def _script(file: Path) -> list[str]:
    """The lines of a script that are not empty. Raises: RemoteError when there are none; OSError."""
    name, data = ("stdin", sys.stdin.buffer.read()) if str(file) == "-" else (file, file.read_bytes())
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as problem:
        raise RemoteError(f"{name} is not UTF-8 text (byte {problem.start}): nothing was made") from problem
    if not lines:
        raise RemoteError(f"{name} has only empty lines: nothing was made")
    return lines


def _write(path: Path, pieces: Iterable[bytes]) -> float:
    """Write a complete WAV with true lengths; its seconds.

    Raises:
        RemoteError: it is no WAV, or shorter than it says.
    """
    data = b"".join(pieces)
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE" or b"data" not in data[:4096]:
        raise RemoteError("the server sent no WAV: check --url")
    at = data.index(b"data") + 8
    stated, there = struct.unpack("<I", data[at - 4 : at])[0], len(data) - at
    if 0 < stated < _UNKNOWN and stated > there:
        raise RemoteError(f"the sound broke off after {there} of {stated} bytes")
    if not 0 < stated < _UNKNOWN:
        data = data[:4] + struct.pack("<I", len(data) - 8) + data[8 : at - 4] + struct.pack("<I", there) + data[at:]
    rate = int.from_bytes(data[28:32], "little")
    if not there or not rate:
        raise RemoteError("the server sent a WAV without sound")
    _keep(path, data)
    return round(there / rate, 2)


def _keep(path: Path, data: bytes) -> None:
    """Write a file so that a stopped run leaves no half file under its final name."""
    with files.change() as change:
        change.write(path, [data])


def _read(notes: Path) -> dict[str, str]:
    try:
        found = json.loads(notes.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
