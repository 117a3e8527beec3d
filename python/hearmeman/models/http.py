"""HTTP for large files: pooled connections, redirects that never carry a token along, errors sorted by what helps."""

from __future__ import annotations

import contextlib
import re
import ssl
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError as TransportError
from urllib3.exceptions import IncompleteRead
from urllib3.response import BaseHTTPResponse

from hearmeman import __version__
from hearmeman.log import log
from hearmeman.models.errors import (
    ContradictionError,
    FetchError,
    GatedError,
    MovedError,
    NotAFileError,
    NotFoundError,
    NotServedError,
    TransientError,
)
from hearmeman.models.remote import Remote
from hearmeman.models.spans import ENDLESS

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 6
_LONGEST_WAIT = 330.0
"""The Hub counts requests in windows of five minutes."""
_PAGES = ("text/html", "application/json", "application/xhtml+xml")


@dataclass(frozen=True)
class Answer:
    """An answer whose body is yet to be read."""

    response: BaseHTTPResponse
    """The body's stream."""
    url: str
    """Where it came from, after redirects."""
    start: int
    """Position in the file of the body's first byte."""
    total: int | None
    """Bytes of the whole file; None when not stated."""
    length: int | None
    """Bytes of the body; None when not stated."""
    etag: str
    """Strong validator; empty when there is none."""
    ranges: bool
    """Whether the server gave the range that was asked for, rather than the whole."""


class Http:
    """Connections to all hosts, shared by threads."""

    def __init__(self, connections: int, stall_seconds: float) -> None:
        timeout = urllib3.Timeout(connect=min(10.0, stall_seconds), read=stall_seconds)
        self._options = {"maxsize": connections, "timeout": timeout, "retries": False, "num_pools": 64}
        self._proxies = urllib.request.getproxies()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._tls = ssl.create_default_context()

    def open(self, remote: Remote, span: tuple[int, int], name: str, etag: str = "") -> Answer:
        """GET a range [start, end) of the file `name`, following redirects; headers go to the address's own origin alone.

        Raises:
            ContradictionError: what came is not the file that the source says is there.
            TransientError: worth trying again.
            FetchError: one of its leaves; the message lacks the file's name.
        """
        ask = {"Accept-Encoding": "identity"}
        ask["Range"] = f"bytes={span[0]}-{span[1] - 1}" if span[1] < ENDLESS else f"bytes={span[0]}-"
        if etag:
            ask["If-Range"] = etag
        response, url = self._follow(remote.url, remote.headers, {origin(remote.url)}, ask)
        if response.status == 401 and remote.headers and origin(url) == origin(remote.url):
            # A token that is not valid is refused even for what is public.
            log("token.refused", host=host(url), why="401", then="asking without it")
            response.close()
            response, url = self._follow(remote.url, {}, set(), ask)
        try:
            if response.status not in (200, 206):
                _refuse_file(response, url, remote.stated, own=origin(url) == origin(remote.url))
            return _file_answer(response, url, span, name, remote.stated)
        except BaseException:
            response.close()
            raise

    def text(
        self,
        url: str,
        headers: Mapping[str, str],
        own: Iterable[tuple[str, str, int]] = (),
        method: str = "GET",
        body: bytes | None = None,
    ) -> bytes:
        """Ask an API, and read its whole answer; `headers` go to `url`'s origin and to those that are its `own` too.

        Raises:
            ContradictionError: what answers does not speak as an API does.
            TransientError: worth trying again.
            FetchError: one of its leaves; the message lacks the file's name.
        """
        response, url = self._follow(url, headers, {origin(url), *own}, {}, method, body)
        try:
            if response.status >= 400:
                _refuse_api(response, url)
            return response.read(16 << 20, decode_content=True)
        except (TransportError, OSError) as error:
            raise TransientError(f"{host(url)}: {brief(error)}") from error
        finally:
            response.release_conn()

    def _follow(
        self,
        url: str,
        secret: Mapping[str, str],
        own: set[tuple[str, str, int]],
        plain: Mapping[str, str],
        method: str = "GET",
        body: bytes | None = None,
    ) -> tuple[BaseHTTPResponse, str]:
        """Give the first answer that is no redirect, and its address; `secret` headers go to `own` origins alone."""
        first = url
        for _ in range(_MOST_REDIRECTS):
            headers = {"User-Agent": f"hearmeman/{__version__}", **plain, **(secret if origin(url) in own else {})}
            response = self._send(url, headers, method, body)
            if response.status not in _REDIRECTS:
                return response, url
            location = urljoin(url, response.headers.get("Location", ""))
            response.drain_conn()
            response.release_conn()
            if urlsplit(url).scheme == "https" and urlsplit(location).scheme != "https":
                raise NotFoundError(f"{host(url)} redirects to an unencrypted address: report it to the source")
            if "/login" in urlsplit(location).path:
                raise GatedError(f"{host(url)} wants a login: {_WHICH_TOKEN}")
            if response.status == 303:
                method, body = "GET", None
            url = location
        raise NotFoundError(f"{host(first)} redirects endlessly: check the address")

    def _send(self, url: str, headers: Mapping[str, str], method: str, body: bytes | None) -> BaseHTTPResponse:
        try:
            return self._manager(url).request(
                method, url, headers=headers, body=body, redirect=False, preload_content=False, decode_content=False
            )
        except (TransportError, OSError) as error:
            raise TransientError(f"{host(url)}: {brief(error)}") from error

    def _manager(self, url: str) -> urllib3.PoolManager:
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme, "")
        if proxy and urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = ""
        if proxy not in self._managers:
            kind = urllib3.PoolManager if not proxy else lambda **options: urllib3.ProxyManager(proxy, **options)
            self._managers[proxy] = kind(**self._options, ssl_context=self._tls)  # type: ignore[arg-type]
        return self._managers[proxy]


def _file_answer(response: BaseHTTPResponse, url: str, span: tuple[int, int], name: str, stated: bool) -> Answer:
    kind, where = _kind(response), host(url)
    odd: type[FetchError] = NotServedError if stated else NotAFileError
    if kind in _PAGES and not name.endswith((".json", ".html")):
        what = "a web page" if "html" in kind else "a message"
        raise ContradictionError(
            odd(f"{where} sent {what} instead of the file{_message(response)}: the file may require a login")
        )
    if (encoding := response.headers.get("Content-Encoding", "identity").strip().lower()) not in ("", "identity"):
        raise ContradictionError(odd(f"{where} sent the file compressed ({encoding}), although it was asked not to"))
    length = _number(response.headers.get("Content-Length", ""))
    tag = response.headers.get("ETag", "")
    tag = "" if tag.startswith("W/") else tag
    # Some S3 servers give a range and say 200.
    if response.status == 200 and "Content-Range" not in response.headers:
        return Answer(response, url, 0, length, length, tag, ranges=False)
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != span[0]:
        raise ContradictionError(odd(f"{where} answered with a range that was not requested"))
    total = None if found[3] == "*" else int(found[3])
    return Answer(response, url, span[0], total, int(found[2]) + 1 - span[0], tag, ranges=True)


def _refuse_file(response: BaseHTTPResponse, url: str, stated: bool, own: bool) -> None:
    """Raise for a status that brings no bytes. Where the source has just stated the file, only its own words end it."""
    status, where, said = response.status, host(url), _message(response)
    if _is_passing(status):
        raise TransientError(f"{where} answered {status}", wait_asked(response.headers))
    if status in (401, 403, 451):
        gated = GatedError(_forbidden(status, where, said))
        if own and _is_spoken(response):
            raise gated
        raise ContradictionError(NotServedError(f"{where} rejects its own link ({status}){said}") if stated else gated)
    if stated:
        raise ContradictionError(NotServedError(f"{where} does not serve what its source reports ({status}){said}"))
    if status in (404, 410):
        raise ContradictionError(NotFoundError(_nothing_there(status, where)))
    if status == 416:
        raise ContradictionError(MovedError(f"{where} has a shorter file than the catalogue says: lock it again"))
    raise ContradictionError(NotFoundError(f"{where} answered {status}{said}"))


def _refuse_api(response: BaseHTTPResponse, url: str) -> None:
    """Raise for an error of an API; what is not said in JSON was not said by the API."""
    status, where, said = response.status, host(url), _message(response)
    if _is_passing(status):
        raise TransientError(f"{where} answered {status}", wait_asked(response.headers))
    if status in (401, 403, 451):
        verdict: FetchError = GatedError(_forbidden(status, where, said))
    elif status in (404, 410):
        verdict = NotFoundError(_nothing_there(status, where))
    else:
        verdict = NotFoundError(f"{where} answered {status}{said}")
    if _is_spoken(response):
        raise verdict
    raise ContradictionError(verdict)


_WHICH_TOKEN = "set CIVITAI_API_KEY for CivitAI or HF_TOKEN for the Hub (another site can be given none)"


def _forbidden(status: int, where: str, said: str) -> str:
    if status == 401:
        return f"{where} requires a token (401){said}: {_WHICH_TOKEN}, or check that it is still valid"
    return f"{where} denies access ({status}){said}: accept its licence on the site, or use another token"


def _nothing_there(status: int, where: str) -> str:
    return f"{where} has no such file ({status}): check its address, or lock it again"


def _is_passing(status: int) -> bool:
    return status in (408, 425, 429) or status >= 500


def _is_spoken(response: BaseHTTPResponse) -> bool:
    return _kind(response).endswith("json")


def _kind(response: BaseHTTPResponse) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a token may be sent to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def host(url: str) -> str:
    """Name a server without what may be secret in its address."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def wait_asked(headers: Mapping[str, str]) -> float:
    """Seconds that a refusal's Retry-After or RateLimit header asks to wait, within reason; 0 when neither does."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return min(float(text), _LONGEST_WAIT)
    with contextlib.suppress(ValueError):
        when = parsedate_to_datetime(text)
        return min(max(0.0, when.timestamp() - time.time()), _LONGEST_WAIT)
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(headers)
    if limit is None or limit.remaining:
        return 0
    # One more, since the seconds that are left were rounded.
    return min(limit.reset_in_seconds + 1.0, _LONGEST_WAIT)


def brief(error: BaseException) -> str:
    """Say what happened to a connection, without addresses."""
    inner: object = error
    while isinstance(inner, BaseException):
        if isinstance(inner, TimeoutError) or "timed out" in str(inner).lower():
            return "nothing arrived in time"
        if isinstance(inner, IncompleteRead):
            return "the connection ended early"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__cause__ or inner.__context__ or next((a for a in inner.args if isinstance(a, Exception)), None)
    return re.sub(r"https?://\S+", "...", str(error))[:200] or type(error).__name__


def _message(response: BaseHTTPResponse) -> str:
    """Give the first words of an error's body, for the person."""
    try:
        text = response.read(2000).decode("utf-8", "replace")
    except (TransportError, OSError):
        return ""
    text = re.sub(r"<[^>]*>|[{}\"\s]+", " ", text).strip()
    # What is not text is the beginning of a file.
    return f" ({text[:120].strip()})" if text and text.isprintable() else ""
