"""Xet's storage on loopback: tokens, reconstructions and xorbs, as the real hf_xet asks for them."""

from __future__ import annotations

import functools
import json
import re
import time

from fakes.serving import Handler, Host, Stored

CHUNK = 64 * 1024
TERM = 64
"""Chunks that are fetched by one request."""
TOKEN = "xet_read"


def xorb(data: bytes) -> bytes:
    """A file's chunks in the serialised form, none of them compressed."""
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    return b"".join(_header(len(chunk)) + chunk for chunk in chunks)


def _header(length: int) -> bytes:
    # Version, compressed length, scheme 0 (none), uncompressed length.
    return bytes([0]) + length.to_bytes(3, "little") + bytes([0]) + length.to_bytes(3, "little")


@functools.lru_cache(maxsize=4)
def _stored_xorb(stored: Stored) -> Stored:
    # Each request is for a part of it.
    return Stored(xorb(stored.data))


def read_token(url: str) -> tuple[dict[str, str], bytes]:
    """What the Hub answers to a request for a read token: the same in headers and in JSON."""
    expiry = int(time.time()) + 3600
    headers = {"X-Xet-Cas-Url": url, "X-Xet-Access-Token": TOKEN, "X-Xet-Token-Expiration": str(expiry)}
    body = json.dumps({"casUrl": url, "accessToken": TOKEN, "exp": expiry}).encode()
    return {**headers, "Content-Type": "application/json"}, body


class XetHandler(Handler):
    """A file's Xet hash is its sha256 here. A fault's key is `xet-` and that hash; it befalls the xorb."""

    host_name = "xet"

    def find(self, hash: str) -> Stored | None:
        """The file of that hash."""
        raise NotImplementedError

    def answer(self) -> None:
        """`/v1/reconstructions/{hash}` and `/xorbs/{hash}`; the second version of the first is not offered."""
        host: Host = self.server.host
        found = re.fullmatch(r"/(v1/reconstructions|xorbs)/([0-9a-f]{64})", self.path)
        stored = self.find(found[2]) if found else None
        if found is None or stored is None:
            self.send(404, {})
        elif found[1] == "xorbs":
            self.send_file(f"xet-{found[2]}", _stored_xorb(stored), {})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send(401, {})
        else:
            self.reconstruct(host, found[2], len(stored.data))

    def reconstruct(self, host: Host, hash: str, size: int) -> None:
        """Tell which chunks make up the range that is asked for, and where they lie."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", f"bytes=0-{size - 1}"))
        assert asked is not None
        start, end = int(asked[1]), min(int(asked[2]) + 1, size)
        if start >= size:
            self.send(416, {})
            return
        first, last = start // CHUNK, (end - 1) // CHUNK + 1
        terms, infos = [], []
        for begin in range(first, last, TERM):
            stop = min(begin + TERM, last)
            chunks = {"start": begin, "end": stop}
            unpacked = min(stop * CHUNK, size) - begin * CHUNK
            place = {"start": begin * (CHUNK + 8), "end": min(stop * (CHUNK + 8), size + 8 * -(-size // CHUNK)) - 1}
            terms.append({"hash": hash, "unpacked_length": unpacked, "range": chunks})
            infos.append({"range": chunks, "url": f"{host.address(2)}/xorbs/{hash}", "url_range": place})
        content = {
            "offset_into_first_range": start - first * CHUNK,
            "terms": terms,
            "fetch_info": {hash: infos},
        }
        self.send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())
