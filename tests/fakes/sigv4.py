"""Checks AWS Signature Version 4 as a server does, without the client's library."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_HEADER = re.compile(r"AWS4-HMAC-SHA256 Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$")
REGIONS = ("auto", "us-east-1")
LONGEST_SKEW = 900


def problem(
    method: str, target: str, headers: Mapping[str, str], secrets: Mapping[str, str], now: float
) -> tuple[str, str]:
    """Give (code, message) of what is wrong with a request's signature at `now`; empty if nothing.

    `headers` has lower-case names; `secrets` maps access keys to secret keys.
    """
    found = _HEADER.match(headers.get("authorization", ""))
    if not found:
        return "Unauthorized", "no signature"
    scope, signed, signature = found[1].split("/"), found[2].split(";"), found[3]
    if len(scope) != 5 or scope[3:] != ["s3", "aws4_request"] or scope[2] not in REGIONS:
        return "InvalidRegionName", f"the region must be one of {REGIONS}"
    if scope[0] not in secrets:
        return "Unauthorized", "unknown access key"
    stamp = headers.get("x-amz-date", "")
    moment = datetime.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC).timestamp()
    if abs(moment - now) > LONGEST_SKEW:
        return "RequestTimeTooSkewed", "the request's time is too far from the server's"
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in signed]
    if unsigned or "host" not in signed:
        return "AccessDenied", f"headers are not signed: {unsigned or 'host'}"
    parts = urlsplit(target)
    query = sorted(
        (quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in parse_qsl(parts.query, keep_blank_values=True)
    )
    canonical = "\n".join(
        [
            method,
            quote(unquote(parts.path), safe="/-_.~"),
            "&".join(f"{k}={v}" for k, v in query),
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed),
            "",
            ";".join(signed),
            headers.get("x-amz-content-sha256", ""),
        ]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, "/".join(scope[1:]), hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secrets[scope[0]]}".encode()
    for word in scope[1:]:
        key = hmac.digest(key, word.encode(), "sha256")
    if not hmac.compare_digest(hmac.digest(key, text.encode(), "sha256").hex(), signature):
        return "SignatureDoesNotMatch", "the signature does not match"
    return "", ""
