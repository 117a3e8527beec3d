"""A client for both voice APIs that needs only Python; xtts-vo-gen uses it."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BLOCK = 16384
_PATIENCE = 900.0
"""The most seconds between two pieces of an answer: a model may have to be loaded first."""
_LONGEST_PAUSE = 30.0


class RemoteError(Exception):
    """The server did not do what was asked; the sentence is for a person."""


class UnreachableError(RemoteError):
    """The server cannot be reached or refuses access, so further requests make no sense."""


class _RefusedError(RemoteError):
    """An answer with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is only for the server that was named."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Remote:
    """One voice server: XTTS's API, Chatterbox's, or another that has XTTS's addresses."""

    url: str
    """Its address, without a path: http://127.0.0.1:8020."""
    token: str = field(default="", repr=False)
    """The token for the gate in front of it; empty if there is none."""
    retry_seconds: float = 300.0
    """How long to keep asking a busy or loading server."""
    say: Callable[[str], None] = lambda line: None
    """Called with the reason for each wait."""
    sleep: Callable[[float], None] = time.sleep

    def speakers(self) -> list[str]:
        """Name the voices."""
        if self._speakers_list is not None:
            return [str(name) for name in self._speakers_list]
        return [str(voice["name"]) for voice in self._json("/v1/voices")["voices"]]

    def languages(self) -> dict[str, str]:
        """Give the languages: name -> code."""
        found = self._json("/languages")["languages"]
        if isinstance(found, Mapping):
            return {str(name): str(code) for name, code in found.items()}
        return {
            str(one.get("name", one["code"])) if isinstance(one, Mapping) else str(one): _code(one) for one in found
        }

    def speak(self, text: str, speaker: str, language: str, stream: bool = False) -> Iterator[bytes]:
        """Speak `text`: WAV in pieces as they arrive; with `stream`, the first sentence arrives before the last is
        made.

        Raises:
            RemoteError: the server refuses, cannot be reached, or its answer breaks off.
        """
        if self._is_xtts:
            path = "/tts_stream" if stream else "/tts_to_audio/"
            body = {"text": text, "speaker_wav": speaker, "language": language}
        else:
            path = "/v1/audio/speech/stream" if stream else "/v1/audio/speech"
            body = {"input": text, "voice": speaker, "language": language, "response_format": "wav"}
        data = json.dumps(body).encode()
        with self._ask(path, data, {"Content-Type": "application/json"}) as answer:
            try:
                while piece := answer.read1(_BLOCK):
                    yield piece
                # Unlike read1, a plain read notices if the last chunk is missing.
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise RemoteError(f"{self.url} broke off in the middle of the sound: {_reason(error)}") from error

    def upload(self, file: Path, language: str) -> str:
        """Add a recording to the server's voices, once per content; the voice's name.

        Raises:
            RemoteError: it is no recording, or this server takes none.
        """
        content = file.read_bytes()
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-")[:40] or "voice"
        name = f"{stem}-{hashlib.sha256(content).hexdigest()[:8]}"
        mark = uuid.uuid4().hex
        parts = [
            f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in (("voice_name", name), ("language", language))
        ]
        head = (
            f'--{mark}\r\nContent-Disposition: form-data; name="voice_file"; filename="{stem}{file.suffix[:8]}"\r\n\r\n'
        )
        data = b"".join([*parts, head.encode("ascii", "replace"), content, f"\r\n--{mark}--\r\n".encode()])
        try:
            with self._ask("/voices", data, {"Content-Type": f"multipart/form-data; boundary={mark}"}) as answer:
                answer.read()
        except _RefusedError as refused:
            if refused.status in (404, 405):
                raise RemoteError(f"{self.url} does not accept recordings: name one of its own speakers") from refused
            if refused.status != 409:
                raise
        return name

    @cached_property
    def _speakers_list(self) -> list[Any] | None:
        try:
            found = self._json("/speakers_list")
        except _RefusedError as refused:
            if refused.status != 404:
                raise
            return None
        return found if isinstance(found, list) else list(found.get("speakers", []))

    @property
    def _is_xtts(self) -> bool:
        return self._speakers_list is not None

    def _json(self, path: str) -> Any:
        with self._ask(path) as answer:
            try:
                return json.loads(answer.read())
            except (ValueError, OSError, http.client.HTTPException) as error:
                raise RemoteError(f"{self.url}{path} does not answer as a voice API does: check --url") from error

    def _ask(self, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> Any:
        end = time.monotonic() + self.retry_seconds
        pause = 1.0
        while True:
            try:
                return self._once(path, data, headers or {})
            except urllib.error.HTTPError as error:
                with error:
                    message = _message(error.read(65536)) or error.reason
                again = error.code in (429, 502, 503, 504) and error.headers.get("x-should-retry") != "false"
                wait = min(_seconds(error.headers.get("Retry-After")) or pause, _LONGEST_PAUSE)
                if not again or time.monotonic() + wait > end:
                    words = self._words(error.code, str(message), path, error.headers.get("Location", ""))
                    if error.code in (401, 403) or 300 <= error.code < 400:
                        raise UnreachableError(words) from error
                    raise _RefusedError(error.code, words) from error
                self.say(f"the server is not free yet ({message}): trying again in {wait:g} s")
                self.sleep(wait)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except (OSError, http.client.HTTPException) as error:
                raise UnreachableError(
                    f"{self.url} cannot be reached: {_reason(error)}: is ENABLE_XTTS or ENABLE_CHATTERBOX set "
                    "on the pod, "
                    "and is --url right?"
                ) from error

    def _once(self, path: str, data: bytes | None, headers: Mapping[str, str]) -> Any:
        own = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(self.url.rstrip("/") + path, data, {"Accept": "*/*", **headers, **own})
        return self._opener.open(request, timeout=_PATIENCE)

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        inside = urllib.parse.urlsplit(self.url).hostname in _LOOPBACK
        return urllib.request.build_opener(_NoRedirect, *([urllib.request.ProxyHandler({})] if inside else []))

    def _words(self, status: int, message: str, path: str, location: str) -> str:
        if status in (401, 403) and not self.token:
            return f"{self.url} needs a token: put the pod's ACCESS_TOKEN into the environment"
        if status in (401, 403):
            return f"{self.url} refuses this token ({status}): ACCESS_TOKEN must be the pod's own"
        if 300 <= status < 400:
            base = urllib.parse.urljoin(self.url + path, location).removesuffix(path)
            return f"{self.url} redirects to {base} ({status}): give that address with --url"
        return f"{self.url} answered {status}: {message}"


def _code(language: Any) -> str:
    return str(language["code"] if isinstance(language, Mapping) else language)


def _message(body: bytes) -> str:
    """Find the message in an error's body, in OpenAI's format, FastAPI's or none."""
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    if not isinstance(found, Mapping):
        return ""
    inner = found.get("error", found.get("detail", ""))
    return str(inner.get("message", inner)) if isinstance(inner, Mapping) else str(inner)


def _seconds(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", None) or error
    return str(getattr(inner, "strerror", None) or inner) or type(inner).__name__
