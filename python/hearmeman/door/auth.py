"""Who may pass the gate: a token in a header, or a cookie that a login with the token gave."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

COOKIE = "hearmeman"
SECURE_COOKIE = "__Host-hearmeman"
"""The cookie's name behind TLS: browsers let no other host of the same domain set it."""
SESSION_SECONDS = 30 * 24 * 3600
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Verdict:
    """What the gate is to do with one request."""

    passes: bool
    """Whether it goes through."""
    tried: bool
    """Whether it brought something that was wrong."""
    why: str = ""
    """For a person, without what was brought."""


class Lock:
    """Compares what requests bring with ACCESS_TOKEN, always in constant time."""

    def __init__(self, token: str, origins: tuple[str, ...] = ()) -> None:
        self._token = hashlib.sha256(token.encode()).digest()
        self._key = hmac.digest(token.encode(), b"hearmeman session", "sha256")
        self._origins = origins

    def fits(self, token: str) -> bool:
        """Tell whether this is the token."""
        # Both are digests, so not even the length can be measured.
        return hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "replace")).digest(), self._token)

    def session(self, now: float) -> str:
        """Make a cookie's value: its end, a nonce, and their signature."""
        content = f"{int(now) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{content}.{self._sign(content)}"

    def is_session(self, value: str, now: float) -> bool:
        """Tell whether a cookie's value is one that this token signed and that is not over."""
        content, _, signature = value.rpartition(".")
        end = content.partition(".")[0]
        signed = hmac.compare_digest(self._sign(content).encode(), signature.encode("utf-8", "replace"))
        return signed and end.isdigit() and now < int(end)

    def judge(self, headers: Mapping[str, str], cookies: Mapping[str, str], now: float) -> Verdict:
        """Judge a request; the gate adds X-Method and X-Upgrade to its headers."""
        scheme, _, bearer = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            fits = self.fits(bearer.strip())
            return Verdict(fits, not fits, "" if fits else "the token is wrong")
        if scheme.lower() == "basic":
            # For what takes an address and no header: https://any:TOKEN@host/. Browsers keep it and send it along.
            fits = self.fits(_password(bearer.strip()))
            if fits and is_foreign(headers, self._origins):
                return Verdict(False, False, "this came from another site's page; open the pod's own page")
            return Verdict(fits, not fits, "" if fits else "the token is wrong")
        values = [cookies[name] for name in (SECURE_COOKIE, COOKIE) if name in cookies]
        if not any(self.is_session(value, now) for value in values):
            # Nobody can guess a signature: an old cookie is no attempt, and answers to it need not wait.
            return Verdict(False, False, "the session has ended" if values else "a token is needed")
        if is_foreign(headers, self._origins):
            return Verdict(False, False, "this came from another site's page; open the pod's own page")
        return Verdict(True, False)

    def _sign(self, content: str) -> str:
        return hmac.digest(self._key, content.encode("utf-8", "replace"), "sha256").hex()


def is_foreign(headers: Mapping[str, str], origins: Sequence[str] = ()) -> bool:
    """Tell whether another site's page sent a request; `origins` are this pod's names behind RunPod's proxy."""
    # A cookie goes along with whatever page asks, and pods share a domain: other sites' pages are kept out here.
    # A link may lead to a page, and nothing else of another site may be asked for, GET or not.
    link = (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest")) == ("navigate", "document")
    acts = headers.get("X-Method", "GET") not in _SAFE_METHODS or bool(headers.get("X-Upgrade"))
    if headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and not link:
        return True
    origin = headers.get("Origin", "")
    if not acts or not origin:
        return False
    host = urlsplit(origin).netloc.lower()
    own = {headers.get("Host", "").lower(), headers.get("X-Forwarded-Host", "").lower(), *origins} - {""}
    return host not in own


def _password(basic: str) -> str:
    try:
        return base64.b64decode(basic, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


class SlowDown:
    """Answers to wrong tokens wait, longer the more there were lately; who brings the right one never waits."""

    FREE = 3
    LONGEST = 4.0
    HALF_LIFE = 60.0

    def __init__(self) -> None:
        self.level = 0.0
        self.at = 0.0

    def failed(self, now: float) -> float:
        """Note a failure; give the seconds that its answer waits. None of it is kept by address: those can be made up."""
        self.level = min(100.0, self.level * 0.5 ** ((now - self.at) / self.HALF_LIFE) + 1)
        self.at = now
        if self.level <= self.FREE:
            return 0.0
        return min(self.LONGEST, 0.25 * 2 ** (self.level - self.FREE))


def without_ours(cookie_header: str) -> str:
    """Take our cookies out of a Cookie header, so that what is behind the gate never sees them."""
    kept = [
        part.strip()
        for part in cookie_header.split(";")
        if part.partition("=")[0].strip() not in (COOKIE, SECURE_COOKIE) and part.strip()
    ]
    return "; ".join(kept)
