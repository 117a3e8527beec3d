"""Keeps secrets out of everything that a process writes: log lines, state files, errors, tracebacks, JSON."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO, cast
from urllib.parse import quote, quote_plus

REDACTED = "***"
SHORTEST = 6
"""Characters that a value needs to be looked for; shorter ones would blot out ordinary words."""
_SHORTEST_OF_STRANGERS = 8
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)S?(_|$)|API_?KEY|ACCESS_KEY|PRIVATE_KEY|^NOTIFY_URL$",
    re.IGNORECASE,
)
_SHAPES = (
    # Parts of requests that give access whoever's they are; they appear where a library quotes a request.
    re.compile(r"(authorization\b['\"]?\s*[:=,]\s*b?['\"]?(?:bearer|basic)\s+)(?!ACCESS_TOKEN\b)[^\s'\",]+", re.I),
    re.compile(r"(credential=)[^/%,;\s&'\"]+", re.I),
    re.compile(r"((?:x-amz-)?signature=)[^,;\s&'\"<]+", re.I),
    re.compile(r"([?&](?:token|access_token|api_?key|x-amz-security-token)=)[^\s&'\"<#]+", re.I),
    re.compile(r"(://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"),
)


def looks_secret(name: str) -> bool:
    """Tell whether a variable of this name holds a secret; those of all our secrets and their old spellings do."""
    return _SECRET_NAME.search(name) is not None


class Redactor:
    """Replaces secrets in text, in every spelling in which they are met."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(secrets)
        spellings = {spelling for secret in self.secrets for spelling in _spellings(secret)}
        ordered = sorted(spellings, key=len, reverse=True)  # The longest first: one may be part of another.
        # Percent signs are followed by small or capital digits, so case does not count.
        self._plain = re.compile("|".join(map(re.escape, ordered)), re.IGNORECASE) if ordered else None
        self._cores = tuple({core for secret in self.secrets for core in _base64_cores(secret)})
        runs = "|".join(map(re.escape, self._cores))
        self._encoded = re.compile(f"[A-Za-z0-9+/_-]*(?:{runs})[A-Za-z0-9+/_=-]*") if runs else None

    def __call__(self, text: str) -> str:
        """Give `text` without a secret."""
        if self._plain is not None:
            text = self._plain.sub(REDACTED, text)
        if self._encoded is not None and any(core in text for core in self._cores):
            text = self._encoded.sub(REDACTED, text)
        for shape in _SHAPES:
            text = shape.sub(rf"\g<1>{REDACTED}", text)
        return text


def _spellings(secret: str) -> Iterator[str]:
    yield from (secret, repr(secret)[1:-1], repr(secret.encode())[2:-1], html.escape(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    encoded = quote(secret, safe="")
    yield from (encoded, quote(secret), quote_plus(secret), quote(encoded, safe=""))
    yield secret.encode().hex()
    lines = [line.strip() for line in secret.splitlines()]
    yield from (line for line in lines if len(line) >= SHORTEST)


def _base64_cores(secret: str) -> Iterator[str]:
    """Give what base64 shows of a secret wherever it lies in what was encoded, as in `Basic base64(user:secret)`."""
    content = secret.encode()
    for before in range(3):
        # Characters at either end also hold bits of what stands beside it.
        first, last = -(-before * 8 // 6), (before + len(content)) * 8 // 6
        whole = base64.b64encode(bytes(before) + content).decode()
        core = whole[first:last]
        yield from (core, core.translate(str.maketrans("+/", "-_")))


_redact = Redactor()


def learn(environ: Mapping[str, str]) -> None:
    """Take note of the secrets in an environment: from now on this process does not write them."""
    global _redact
    found = set(_redact.secrets)
    for name, value in environ.items():
        if looks_secret(name):
            secret = value.strip(" \t\r\n\"'")
            if len(secret) >= (SHORTEST if _is_ours(name) else _SHORTEST_OF_STRANGERS):
                found.add(secret)
    if found != _redact.secrets:
        _redact = Redactor(found)


def _is_ours(name: str) -> bool:
    return name.startswith(
        ("HF_", "HUGGING", "CIVITAI_", "R2_", "ACCESS_", "COMFYUI_", "JUPYTER_", "RUNPOD_", "AWS_", "NOTIFY_")
    )


def redact(text: str) -> str:
    """Give `text` without the secrets that this process knows."""
    return _redact(text)


def redacted(value: Any, clean: Callable[[str], str] = redact) -> Any:
    """Give a JSON value, all texts in it without secrets; `clean` is for who has a quicker way for one text."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {redacted(key, clean): redacted(item, clean) for key, item in value.items()}
    return [redacted(item, clean) for item in value] if isinstance(value, list | tuple) else value


def redact_line(line: bytes) -> bytes:
    """Give a line of another program's output without the secrets that this process knows."""
    if not _redact.secrets:
        return line
    return _redact(line.decode(errors="surrogateescape")).encode(errors="surrogateescape")


class _Guarded:
    """A text stream whose every write goes through `redact`; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.written = False

    def write(self, text: str) -> int:
        self.written = self.written or bool(text)
        self._stream.write(_redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_untouched(stream: object) -> bool:
    """Tell whether nothing was written yet to a guarded stream."""
    return isinstance(stream, _Guarded) and not stream.written


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Let standard output and standard error write no secret: prints, warnings, tracebacks, others' log lines.

    Secrets that were learned meanwhile are forgotten at the end.
    """
    global _redact
    before, known = (sys.stdout, sys.stderr), _redact
    sys.stdout, sys.stderr = (cast("TextIO", _Guarded(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        _redact = known
