"""HTTP for large files: pooled connections, redirects that never carry a token along, errors sorted by what helps."""

from __future__ import annotations

import re
import ssl
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError as TransportError
from urllib3.response import BaseHTTPResponse

from hearmeman import __version__
from hearmeman.models.errors import ExpiredError, GatedError, MovedError, NotAFileError, NotFoundError, TransientError
from hearmeman.models.spans import ENDLESS

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 6
_LONGEST_WAIT = 120.0
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

    def open(self, url: str, headers: Mapping[str, str], span: tuple[int, int], name: str, etag: str = "") -> Answer:
        """GET a range [start, end) of the file `name`, following redirects; `headers` go to `url`'s own origin alone.

        Raises:
            TransientError: worth trying again.
            ExpiredError: 401, 403 or 410 where no token was sent, as links give that have expired.
            FetchError: one of its leaves; the message lacks the file's name.
        """
        ask = {"User-Agent": f"hearmeman/{__version__}", "Accept-Encoding": "identity"}
        ask["Range"] = f"bytes={span[0]}-{span[1] - 1}" if span[1] < ENDLESS else f"bytes={span[0]}-"
        if etag:
            ask["If-Range"] = etag
        first = url
        for _ in range(_MOST_REDIRECTS):
            secret = headers if origin(url) == origin(first) else {}
            response = self._send(url, {**ask, **secret})
            if response.status not in _REDIRECTS:
                return self._sorted(response, url, span, name, link=not secret)
            location = urljoin(url, response.headers.get("Location", ""))
            response.drain_conn()
            response.release_conn()
            if urlsplit(url).scheme == "https" and urlsplit(location).scheme != "https":
                raise NotFoundError(f"{host(url)} redirects to an address without encryption: report it to the source")
            if "/login" in urlsplit(location).path:
                raise GatedError(f"{host(url)} wants a login: set its token")
            url = location
        raise NotFoundError(f"{host(first)} redirects without end: check the address")

    def text(self, url: str, headers: Mapping[str, str], method: str = "GET", body: bytes | None = None) -> bytes:
        """Send a small request and read its whole answer; raises like `open`."""
        response = self._send(url, {"User-Agent": f"hearmeman/{__version__}", **headers}, method, body)
        try:
            if response.status >= 400:
                self._refuse(response, url, link=False)
            return response.read(16 << 20)
        except (TransportError, OSError) as error:
            raise TransientError(f"{host(url)}: {brief(error)}") from error
        finally:
            response.release_conn()

    def _send(
        self, url: str, headers: Mapping[str, str], method: str = "GET", body: bytes | None = None
    ) -> BaseHTTPResponse:
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

    def _sorted(self, response: BaseHTTPResponse, url: str, span: tuple[int, int], name: str, link: bool) -> Answer:
        if response.status not in (200, 206):
            try:
                self._refuse(response, url, link)
            finally:
                response.close()
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in _PAGES and not name.endswith((".json", ".html")):
            message = _message(response)
            response.close()
            what = "a web page" if "html" in kind else "a message"
            raise NotAFileError(f"{host(url)} sent {what} instead of the file{message}: the file may want a login")
        stated = response.headers.get("Content-Length", "")
        length = int(stated) if stated.isdigit() else None
        tag = response.headers.get("ETag", "")
        tag = "" if tag.startswith("W/") else tag
        # Some S3 servers give a range and say 200.
        if response.status == 200 and "Content-Range" not in response.headers:
            return Answer(response, url, 0, length, length, tag, ranges=False)
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != span[0]:
            response.close()
            raise TransientError(f"{host(url)} answered with a range that was not asked for")
        total = None if found[3] == "*" else int(found[3])
        return Answer(response, url, span[0], total, int(found[2]) + 1 - span[0], tag, ranges=True)

    def _refuse(self, response: BaseHTTPResponse, url: str, link: bool) -> None:
        status, where = response.status, host(url)
        kind = ExpiredError if link else GatedError
        if status == 401:
            raise kind(f"{where} wants a token (401){_message(response)}: set it, or check that it is still valid")
        if status in (403, 451) or (status == 410 and link):
            raise kind(
                f"{where} forbids it ({status}){_message(response)}: accept its licence on the site, or use another token"
            )
        if status in (404, 410):
            raise NotFoundError(f"{where} has no such file ({status}): check the catalogue, or lock it again")
        if status == 416:
            raise MovedError(f"{where} has a shorter file than the catalogue says: lock it again")
        if status in (408, 425, 429) or status >= 500:
            raise TransientError(f"{where} answered {status}", retry_after(response.headers.get("Retry-After", "")))
        raise NotFoundError(f"{where} answered {status}{_message(response)}")


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a token may be sent to."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def host(url: str) -> str:
    """Name a server without what may be secret in its address."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def retry_after(text: str) -> float:
    """Seconds that a Retry-After header asks for, within reason; 0 when it says nothing."""
    if text.isdigit():
        return min(float(text), _LONGEST_WAIT)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0
    return min(max(0.0, when.timestamp() - time.time()), _LONGEST_WAIT)


def brief(error: BaseException) -> str:
    """Say what happened to a connection, without addresses."""
    inner: object = error
    while isinstance(inner, BaseException):
        if isinstance(inner, TimeoutError) or "timed out" in str(inner).lower():
            return "nothing arrived in time"
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
    return f" ({text[:120].strip()})" if text else ""
