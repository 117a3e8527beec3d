"""Reads the S3 endpoint as people paste it: a bucket at its end is taken out, whatever else redirects data is refused."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_R2 = ".r2.cloudflarestorage.com"
_ACCOUNT = re.compile(r"[0-9a-f]{32}(\.[a-z]+)?")
_WANTED = "give the account's own address, such as https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"


def endpoint_of(given: str, bucket: str) -> str:
    """Give the endpoint alone: scheme, host and port.

    Cloudflare shows `https://ACCOUNT.r2.cloudflarestorage.com/BUCKET`. Sent there as it is, every object would get
    BUCKET as the first part of its key, and a test of the bucket would find it there and be content.

    Raises:
        ValueError: it has a path, a login or a placeholder in it, or names a bucket other than `bucket`.
    """
    if not re.match("https?://", given):
        raise ValueError(f"must begin with https:// (or http:// for a server in your own network): {_WANTED}")
    if any(sign in given for sign in "<>{}$"):
        raise ValueError(f"still holds a placeholder: {_WANTED}")
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not an address ({error}): {_WANTED}") from error
    if "@" in parts.netloc:
        # Without the value: a login is a secret.
        raise ValueError("contains a login: keys belong in R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY")
    host = parts.netloc.removesuffix(f":{port}").removesuffix(":")
    if not _HOST.fullmatch(host) or parts.query or parts.fragment:
        raise ValueError(f"is not the address of a server: {_WANTED}")
    if host.lower().endswith(_R2) and not _ACCOUNT.fullmatch(host.lower().removesuffix(_R2)):
        name = host.lower().removesuffix(_R2)
        inside, _, rest = name.partition(".")
        if _ACCOUNT.fullmatch(rest):
            raise ValueError(
                f"names the bucket {inside} in its host: set R2_BUCKET={inside} and "
                f"R2_ENDPOINT={parts.scheme}://{rest}{_R2}"
            )
        raise ValueError(f"names {name!r}, which is not an account id (32 digits and letters a to f): {_WANTED}")
    path = parts.path.strip("/")
    endpoint = f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "")
    if path not in ("", bucket):
        raise ValueError(
            f"has a path, {path!r}: if that is the bucket, set R2_BUCKET={path.partition('/')[0]} and "
            f"R2_ENDPOINT={endpoint}"
        )
    return endpoint
