"""Fetches a job's inputs by address: within limits, and never from inside the worker's own network."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from hearmeman.errors import HearmemanError

_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class InputError(HearmemanError):
    """A job's file cannot be fetched."""


def is_public(address: str) -> bool:
    """Tell whether an address is on the public internet, even if it hides an IPv4 address in an IPv6 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        hidden = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if hidden is None and ip in _NAT64:
            hidden = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if hidden is not None:
            return is_public(str(hidden))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class Resolver(AbstractResolver):
    """Provides the addresses to connect to: exactly those that were checked, so a second DNS answer changes nothing."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if not is_public(one["host"]):
                raise _private(host)
        return found

    async def close(self) -> None:
        await self._inner.close()


def check(url: str, allow_private: bool = False) -> None:
    """Refuse an address that cannot be fetched from.

    Raises:
        InputError: it is none, or names a private place.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        sound = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        sound, host = False, ""
    if not sound:
        raise InputError(f"{shown(url)}: only http and https addresses are fetched")
    if parts.username or parts.password:
        raise InputError(f"{shown(url)}: leave the name and the password out of the address")
    try:
        literal = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    if not allow_private and not is_public(str(literal)):
        raise _private(host)


def _private(host: str) -> InputError:
    return InputError(f"{host} is in a private network, which jobs may not reach")


def public_address(host: str, port: int) -> str:
    """Look a host up and give one of its addresses to connect to, each of which is of the open internet.

    Raises:
        InputError: one of them is not.
        OSError: it cannot be found.
    """
    found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not all(map(is_public, found)):
        raise _private(host)
    return found[0]


async def find_bucket(host: str, allow_private: bool = False) -> None:
    """Refuse a bucket's host that cannot be found, or that lies in a private network.

    Raises:
        InputError: says which.
    """
    resolver = ThreadedResolver() if allow_private else Resolver()
    try:
        await resolver.resolve(host, family=socket.AF_UNSPEC)
    except (OSError, UnicodeError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(f"the host {host} cannot be found ({why}): check endpointUrl in s3Config") from None


def shown(url: str) -> str:
    """An address without its query, which may contain a key."""
    parts = url.partition("?")
    return f"{parts[0][:200]}{'?…' if parts[1] else ''}"


async def fetch(url: str, target: Path, most_bytes: int, seconds: float, allow_private: bool = False) -> None:
    """Write what lies at `url` to `target`, at most `most_bytes`, within `seconds`; every redirect is checked as well.

    Raises:
        InputError: says why it cannot be had.
    """
    more: dict[str, Any] = {} if allow_private else {"resolver": Resolver()}
    # A new connection each time: none is kept while the worker waits for jobs.
    connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False, **more)
    try:
        async with asyncio.timeout(seconds), aiohttp.ClientSession(connector=connector, trust_env=False) as session:
            for _ in range(_REDIRECTS + 1):
                check(url, allow_private)
                async with session.get(url, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308) and response.headers.get("Location"):
                        url = urljoin(url, response.headers["Location"])
                        continue
                    await _save(url, response, target, most_bytes)
                    return
            raise InputError(f"{shown(url)}: it redirects more than {_REDIRECTS} times")
    except TimeoutError:
        raise InputError(
            f"{shown(url)} did not arrive within {seconds:g} s: raise WORKER_INPUT_SECONDS, or host it closer"
        ) from None
    except (aiohttp.ClientError, ValueError) as error:
        raise InputError(f"{shown(url)} cannot be fetched: {str(error) or type(error).__name__}") from None


async def _save(url: str, response: aiohttp.ClientResponse, target: Path, most_bytes: int) -> None:
    if response.status != 200:
        raise InputError(f"{shown(url)} answers {response.status}: the address has expired or requires a login")
    too_large = InputError(
        f"{shown(url)} has more than {most_bytes / 1e6:g} MB: raise WORKER_INPUT_MB, or make it smaller"
    )
    if (response.content_length or 0) > most_bytes:
        raise too_large
    size = 0
    with target.open("wb") as file:
        # Counted decompressed: a small answer may expand to a large one.
        async for piece in response.content.iter_chunked(1 << 16):
            size += len(piece)
            if size > most_bytes:
                raise too_large
            file.write(piece)
    if size == 0:
        raise InputError(f"{shown(url)} is empty")
