"""Runs `skopeo copy` and tells, layer by layer, what is sent and what the other side has already."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearmeman_build.errors import BuildError
from hearmeman_build.host import full_disk

_LINE = re.compile(r"Copying (?:blob|config) ([0-9a-f]{8,64}) +(done|skipped: already exists|\[.*?\] +(\S+) */ *(\S+))")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Copied:
    """What a copy did."""

    digest: str
    """The manifest's digest at the destination."""
    sent: frozenset[str]
    """Digests of the blobs that were sent."""
    skipped: frozenset[str]
    """Digests of the blobs that the destination had."""


def read_line(line: str, known: Sequence[str]) -> tuple[str, str] | None:
    """One line of skopeo's: a blob's full digest and "done", "skipped" or how far it is."""
    match = _LINE.search(_ANSI.sub("", line))
    if match is None:
        return None
    digest = next((d for d in known if d.removeprefix("sha256:").startswith(match[1])), "")
    if not digest:
        return None
    state = "skipped" if match[2].startswith("skipped") else "done" if match[2] == "done" else f"{match[3]}/{match[4]}"
    return digest, state


def copy(
    source: str,
    destination: str,
    blobs: Sequence[str],
    flags: Sequence[str] = (),
    say: Callable[[str, str], None] = lambda digest, state: None,
) -> Copied:
    """Copy an image; `say` hears of each of `blobs` (digests) when its state changes.

    Raises:
        BuildError: skopeo is missing or failed; its last words are in the message.
    """
    states: dict[str, str] = {}
    words = ""
    with tempfile.TemporaryDirectory() as folder:
        digest_file = Path(folder, "digest")
        command = ["skopeo", "--insecure-policy", "copy", "--digestfile", str(digest_file), *flags]
        # Only to a terminal skopeo says what it skips, and only as many layers as the terminal has rows.
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (200, 200))
        environment = {**os.environ, "TMPDIR": folder}
        try:
            child = subprocess.Popen([*command, source, destination], stdout=theirs, stderr=theirs, env=environment)
        except FileNotFoundError as error:
            os.close(ours)
            raise BuildError("skopeo is not installed: run `./setup.sh test`") from error
        finally:
            os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as output:
            for line in _lines(output.fileno()):
                words = f"{words}\n{_ANSI.sub('', line)}"[-4000:]
                seen = read_line(line, blobs)
                if seen is not None and states.get(seen[0]) not in (seen[1], "done", "skipped"):
                    states[seen[0]] = seen[1]
                    say(*seen)
        if child.wait() != 0:
            raise refused(destination, words, "--dest-tls-verify=false" in flags)
        digest = digest_file.read_text().strip()
    return Copied(digest, _with(states, "done"), _with(states, "skipped"))


_UNKNOWN = re.compile(r"manifest unknown|name unknown|repository name not known|not found", re.IGNORECASE)
_LOGIN = re.compile(
    r"unauthorized|authentication required|denied|invalid username/password|no basic auth", re.IGNORECASE
)

_UNREACHABLE = re.compile(r"connection refused|no such host|network is unreachable|i/o timeout|no route to host")


def refused(place: str, words: str, plain_http: bool = False) -> BuildError:
    """The error for a skopeo that failed at `place` and printed `words`."""
    # To a terminal it writes FATA[0001], elsewhere level=fatal.
    at = words.find("FATA[")
    fatal = [words[at:]] if at >= 0 else [line for line in words.splitlines() if "fatal" in line]
    said = " ".join(" ".join(fatal or words.splitlines()[-3:]).split())
    said = said if len(said) <= 800 else f"{said[:550]} … {said[-230:]}"
    cure = ""
    registry = place.removeprefix("docker://").partition("/")[0]
    if place.startswith("docker://") and _LOGIN.search(words):
        flag = "--tls-verify=false " if plain_http else ""
        cure = f"\n{registry} wants a login with the right to write: `skopeo login {flag}{registry}`, then the same command again"
    elif "http: server gave HTTP response to HTTPS client" in words:
        cure = f"\n{registry} speaks plain HTTP: give --plain-http, if it is on this machine"
    elif place.startswith("docker://") and _UNREACHABLE.search(words):
        cure = f"\n{registry} cannot be reached: check its name and the network, then run the same command again"
    elif "no space left on device" in words.lower():
        cure = f"\n{full_disk()}"
    return BuildError(f"skopeo could not copy to {place}: {said}{cure}", words)


def digest_at(reference: str, plain_http: bool = False) -> str:
    """The digest of what a tag of a registry names now; empty where there is no such tag.

    Raises:
        BuildError: skopeo is missing, or the registry does not answer or refuses.
    """
    flags = ["--tls-verify=false"] if plain_http else []
    command = ["skopeo", "inspect", *flags, "--raw", reference]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BuildError("skopeo is not installed: run `./setup.sh test`") from error
    if done.returncode == 0:
        return "sha256:" + hashlib.sha256(done.stdout).hexdigest()
    words = done.stderr.decode(errors="replace")
    if _UNKNOWN.search(words) and not _LOGIN.search(words):
        return ""
    raise refused(reference, words, plain_http)


def _with(states: Mapping[str, str], wanted: str) -> frozenset[str]:
    return frozenset(digest for digest, state in states.items() if state == wanted)


def _lines(descriptor: int) -> Iterator[str]:
    """A terminal's output as lines; its program's end is an error of reading."""
    rest = ""
    while True:
        try:
            data = os.read(descriptor, 65536)
        except OSError:
            data = b""
        *lines, rest = re.split(r"[\r\n]+", rest + data.decode(errors="replace"))
        yield from lines
        if not data:
            yield rest
            return
