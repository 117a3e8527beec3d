"""What the R2 on loopback answers: its rules, request by request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import time
import uuid
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from fakes import sigv4

if TYPE_CHECKING:
    from fakes.r2 import R2, Fault

SMALLEST_PART = 5 * 1024**2
MOST_PARTS = 10_000
LONGEST_KEY = 1024
LARGEST_METADATA = 8192
LARGEST_PUT = 5 * 1024**3 - 5 * 1024**2


@dataclass
class Object:
    """A stored object."""

    size: int
    sha256: str
    etag: str
    content_type: str
    metadata: dict[str, str]
    content: bytes = b""
    """Empty where contents are discarded."""
    at: float = field(default_factory=time.time)
    """Unix seconds when it came to be."""


@dataclass
class Upload:
    """A multipart upload that is not complete."""

    key: str
    content_type: str
    metadata: dict[str, str]
    parts: dict[int, Object] = field(default_factory=dict)
    at: float = field(default_factory=time.time)
    """Unix seconds when it was begun."""


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    operation: str
    key: str
    headers: dict[str, str]
    at: float


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.open: set[object] = set()
        super().__init__(address, handler)

    def process_request(self, request, client_address):  # type: ignore[no-untyped-def]
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):  # type: ignore[no-untyped-def]
        self.open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(2)  # type: ignore[attr-defined]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _CutError(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    r2: R2
    protocol_version = "HTTP/1.1"
    # Without this each answer waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        """Do not answer 100, as R2 does not."""
        return True

    def do_PUT(self) -> None:
        self._answer()

    do_GET = do_HEAD = do_POST = do_DELETE = do_PUT  # noqa: N815

    def _answer(self) -> None:
        self.body_read = self.headers.get("Content-Length", "0") == "0"
        self.headers_by_name = {name.lower(): value for name, value in self.headers.items()}
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query, keep_blank_values=True)
        bucket, _, key = unquote(parts.path.lstrip("/")).partition("/")
        operation = self._operation(key)
        self.r2.before(operation, key)
        with self.r2.lock:
            self.r2.requests.append(Request(operation, key, self.headers_by_name, time.time()))
            fault = next((f for f in self.r2.faults if f.befalls(operation, key)), None)
            if fault is not None:
                fault.times -= 1
        try:
            if fault is not None:
                time.sleep(fault.seconds)
                if not fault.after:
                    if fault.status:  # An answer to half a request may be lost with the connection.
                        self._body()
                        self.body_read = True
                    self._fail(fault)
            body, sha256, md5, size = self._body()
            self.body_read = True
            if self.r2.latency:
                time.sleep(self.r2.latency)
            self._check(bucket, key, operation, sha256, md5)
            status, headers, content = getattr(self, f"_{operation}")(key, body, sha256, md5, size)
            if fault is not None and fault.after:
                self._fail(fault)
        except _RefusedError as refused:
            status, headers = refused.status, {"Content-Type": "application/xml"}
            content = (
                '<?xml version="1.0" encoding="UTF-8"?>'
                f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
            ).encode()
            # What was not read would be taken for the next request.
            self.close_connection |= not self.body_read
        except (_CutError, ConnectionError):
            self.close_connection = True
            return
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            self.wfile.flush()

    def _fail(self, fault: Fault) -> None:
        if fault.status:
            # As R2 says it of a key of another length.
            message = (
                "Credential access key has length 3, should be 32" if fault.code == "InvalidArgument" else "asked for"
            )
            raise _RefusedError(fault.status, fault.code, message)
        raise _CutError

    def _operation(self, key: str) -> str:
        if self.command == "PUT":
            return "upload_part" if "uploadId" in self.query else "put_object" if key else "create_bucket"
        if self.command == "POST":
            return "create_upload" if "uploads" in self.query else "complete_upload"
        if self.command == "DELETE":
            return "abort_upload" if "uploadId" in self.query else "delete_object"
        if self.command == "HEAD":
            return "head_object" if key else "head_bucket"
        if "uploadId" in self.query:
            return "list_parts"
        return "get_object" if key else "list_uploads" if "uploads" in self.query else "list_objects"

    def _body(self) -> tuple[bytes, str, str, int]:
        """Read the body: (content unless discarded, sha256, md5, size)."""
        left = size = int(self.headers_by_name.get("content-length", "0"))
        keep = self.r2.keep or self.command == "POST"
        if size <= 8 * 1024**2 or keep:
            content = self.rfile.read(left)
            if len(content) != size:
                raise _CutError
            return content if keep else b"", _sha256(content), hashlib.md5(content).hexdigest(), size
        sha256, md5, block = hashlib.sha256(), hashlib.md5(), memoryview(bytearray(1024**2))
        signed = self.headers_by_name.get("x-amz-content-sha256", "") != "UNSIGNED-PAYLOAD"
        while left:
            read = self.rfile.readinto(block[: min(left, len(block))])
            if not read:
                raise _CutError
            md5.update(block[:read])
            if signed:
                sha256.update(block[:read])
            left -= read
        return b"", sha256.hexdigest(), md5.hexdigest(), size

    def _check(self, bucket: str, key: str, operation: str, sha256: str, md5: str) -> None:
        headers, r2 = self.headers_by_name, self.r2
        code, message = sigv4.problem(self.command, self.path, headers, {r2.access_key: r2.secret_key}, r2.clock())
        if code:
            raise _RefusedError(401 if code == "Unauthorized" else 403, code, message)
        declared = headers.get("x-amz-content-sha256", "")
        if declared.startswith("STREAMING") or "aws-chunked" in headers.get("content-encoding", ""):
            raise _RefusedError(501, "NotImplemented", "STREAMING payloads with trailers are not implemented")
        for name in headers:
            if name.startswith("x-amz-checksum") or name in ("x-amz-sdk-checksum-algorithm", "x-amz-trailer"):
                raise _RefusedError(501, "NotImplemented", f"Header '{name}' is not implemented")
        if declared not in ("UNSIGNED-PAYLOAD", sha256):
            raise _RefusedError(400, "XAmzContentSHA256Mismatch", "the body has another sha256")
        if "content-md5" in headers and base64.b64decode(headers["content-md5"]).hex() != md5:
            raise _RefusedError(400, "BadDigest", "the body has another md5")
        if bucket != r2.bucket:
            raise _RefusedError(404, "NoSuchBucket", "The specified bucket does not exist.")
        if len(key.encode()) > LONGEST_KEY:
            raise _RefusedError(414, "KeyTooLongError", "the key is longer than 1024 bytes")
        reads = operation.startswith(("head", "get", "list"))
        if not (r2.may_read if reads else r2.may_delete if operation == "delete_object" else r2.may_write):
            raise _RefusedError(403, "AccessDenied", "Access Denied")
        if sum(len(n) + len(v) for n, v in self._metadata().items()) > LARGEST_METADATA:
            raise _RefusedError(400, "MetadataTooLarge", "more than 8192 bytes of metadata")

    def _metadata(self) -> dict[str, str]:
        start = "x-amz-meta-"
        return {n.removeprefix(start): v for n, v in self.headers_by_name.items() if n.startswith(start)}

    def _store(self, key: str, found: Object, conditional: bool) -> None:
        with self.r2.lock:
            if key in self.r2.objects:
                if conditional:
                    raise _RefusedError(412, "PreconditionFailed", "something lies there")
                self.r2.overwritten.append(key)
            self.r2.objects[key] = found

    def _put_object(self, key: str, body: bytes, sha256: str, md5: str, size: int) -> _Reply:
        if size > LARGEST_PUT:
            raise _RefusedError(400, "EntityTooLarge", "more than 5 GiB in one piece")
        kind = self.headers_by_name.get("content-type", "application/octet-stream")
        found = Object(size, sha256, md5, kind, self._metadata(), body)
        conditional = self.r2.conditional_put and self.headers_by_name.get("if-none-match") == "*"
        self._store(key, found, conditional)
        return 200, {"ETag": f'"{md5}"'}, b""

    def _head_object(self, key: str, *unused: object) -> _Reply:
        found = self.r2.objects.get(key)
        if found is None:
            raise _RefusedError(404, "NoSuchKey", "The specified key does not exist.")
        headers = {f"x-amz-meta-{name}": value for name, value in found.metadata.items()}
        headers |= {"ETag": f'"{found.etag}"', "Content-Type": found.content_type, "Content-Length": str(found.size)}
        return 200, {**headers, "Last-Modified": formatdate(found.at, usegmt=True)}, found.content

    def _get_object(self, key: str, *unused: object) -> _Reply:
        status, headers, content = self._head_object(key)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers_by_name.get("range", ""))
        if asked is None:
            return status, headers, content
        first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
        if first > last:
            raise _RefusedError(416, "InvalidRange", "the object is shorter")
        part = {"Content-Length": str(last - first + 1), "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        return 206, {**headers, **part}, content[first : last + 1]

    def _head_bucket(self, *unused: object) -> _Reply:
        # botocore asks so, of its own accord, after a HEAD that was refused.
        return 200, {}, b""

    def _list_objects(self, *unused: object) -> _Reply:
        prefix, delimiter = (self.query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        after = self.query.get("continuation-token", [""])[0]
        most = min(int(self.query.get("max-keys", ["1000"])[0]), 1000)
        with self.r2.lock:
            found = sorted((key, o) for key, o in self.r2.objects.items() if key.startswith(prefix) and key > after)
        rows: list[tuple[str, Object]] = []
        folders: set[str] = set()
        for key, stored in found:
            inner, cut, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
            if cut:
                folders.add(prefix + inner + cut)
            elif len(rows) < most:
                rows.append((key, stored))
        truncated = len(rows) == most and rows[-1][0] != found[-1][0]
        told = [
            f"<Contents><Key>{quote(key)}</Key><Size>{o.size}</Size><ETag>&quot;{o.etag}&quot;</ETag>"
            f"<LastModified>{_iso(o.at)}</LastModified></Contents>"
            for key, o in rows
        ]
        told += [f"<CommonPrefixes><Prefix>{quote(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)]
        told.append(f"<IsTruncated>{str(truncated).lower()}</IsTruncated><EncodingType>url</EncodingType>")
        if truncated:
            told.append(f"<NextContinuationToken>{escape(rows[-1][0])}</NextContinuationToken>")
        return 200, {"Content-Type": "application/xml"}, _document("ListBucketResult", "".join(told))

    def _create_upload(self, key: str, *unused: object) -> _Reply:
        # Looked at when the upload begins, and not again when it ends.
        with self.r2.lock:
            if key in self.r2.objects and self.headers_by_name.get("if-none-match") == "*":
                raise _RefusedError(412, "PreconditionFailed", "something lies there")
        upload_id, kind = uuid.uuid4().hex, self.headers_by_name.get("content-type", "")
        with self.r2.lock:
            self.r2.uploads[upload_id] = Upload(key, kind, self._metadata())
        return 200, {}, _xml("InitiateMultipartUploadResult", UploadId=upload_id, Key=key, Bucket=self.r2.bucket)

    def _upload(self, key: str) -> Upload:
        found = self.r2.uploads.get(self.query["uploadId"][0])
        if found is None or found.key != key:
            raise _RefusedError(404, "NoSuchUpload", "The specified multipart upload does not exist.")
        return found

    def _upload_part(self, key: str, body: bytes, sha256: str, md5: str, size: int) -> _Reply:
        number = int(self.query["partNumber"][0])
        if not 1 <= number <= MOST_PARTS:
            raise _RefusedError(400, "InvalidArgument", "part number must be from 1 to 10000")
        with self.r2.lock:
            self._upload(key).parts[number] = Object(size, sha256, md5, "", {}, body)
        return 200, {"ETag": f'"{md5}"'}, b""

    def _complete_upload(self, key: str, body: bytes, *unused: object) -> _Reply:
        named = [
            (int(p.findtext("{*}PartNumber", "0")), p.findtext("{*}ETag", "").strip('"'))
            for p in ElementTree.fromstring(body).iterfind("{*}Part")
        ]
        with self.r2.lock:
            upload = self._upload(key)
            if named != sorted(named) or not named:
                raise _RefusedError(400, "InvalidPartOrder", "the parts are not in order")
            parts = [upload.parts.get(number) for number, _ in named]
            if any(p is None or p.etag != etag for p, (_, etag) in zip(parts, named, strict=True)):
                raise _RefusedError(400, "InvalidPart", "a part was never sent, or its ETag is another")
            sent = [part for part in parts if part is not None]
            sizes = [part.size for part in sent]
            if len(set(sizes[:-1])) > 1 or (len(sizes) > 1 and sizes[-1] > sizes[0]):
                raise _RefusedError(400, "InvalidPart", "All non-trailing parts must have the same length.")
            if any(size < SMALLEST_PART for size in sizes[:-1]):
                raise _RefusedError(400, "EntityTooSmall", "a part is smaller than 5 MiB")
            content = b"".join(part.content for part in sent)
            etag = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in sent)).hexdigest() + f"-{len(sent)}"
            found = Object(sum(sizes), _sha256(content), etag, upload.content_type, upload.metadata, content)
            conditional = self.r2.conditional_complete and self.headers_by_name.get("if-none-match") == "*"
            self._store(key, found, conditional)
            del self.r2.uploads[self.query["uploadId"][0]]
        return 200, {}, _xml("CompleteMultipartUploadResult", Key=key, Bucket=self.r2.bucket, ETag=f'"{etag}"')

    def _list_uploads(self, *unused: object) -> _Reply:
        prefix, after, id_after = (self._given(n) for n in ("prefix", "key-marker", "upload-id-marker"))
        most = min(int(self._given("max-uploads", "1000")), 1000)
        with self.r2.lock:
            found = sorted((u.key, name, u.at) for name, u in self.r2.uploads.items() if u.key.startswith(prefix))
        found = [row for row in found if row[:2] > (after, id_after) or not after]
        rows = "".join(
            f"<Upload><Key>{quote(key)}</Key><UploadId>{name}</UploadId><Initiated>{_iso(at)}</Initiated></Upload>"
            for key, name, at in found[:most]
        )
        truncated = len(found) > most
        if truncated:
            key, name, _ = found[most - 1]
            rows += f"<NextKeyMarker>{quote(key)}</NextKeyMarker><NextUploadIdMarker>{name}</NextUploadIdMarker>"
        told = f"<IsTruncated>{str(truncated).lower()}</IsTruncated><EncodingType>url</EncodingType>"
        return 200, {"Content-Type": "application/xml"}, _document("ListMultipartUploadsResult", rows + told)

    def _list_parts(self, key: str, *unused: object) -> _Reply:
        after, most = int(self._given("part-number-marker", "0")), min(int(self._given("max-parts", "1000")), 1000)
        with self.r2.lock:
            found = sorted((number, part) for number, part in self._upload(key).parts.items() if number > after)
        rows = "".join(
            f"<Part><PartNumber>{number}</PartNumber><Size>{part.size}</Size><ETag>&quot;{part.etag}&quot;</ETag>"
            f"<LastModified>{_iso(part.at)}</LastModified></Part>"
            for number, part in found[:most]
        )
        truncated = len(found) > most
        rows += f"<NextPartNumberMarker>{found[most - 1][0]}</NextPartNumberMarker>" if truncated else ""
        told = f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"
        return 200, {"Content-Type": "application/xml"}, _document("ListPartsResult", rows + told)

    def _given(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def _delete_object(self, key: str, *unused: object) -> _Reply:
        with self.r2.lock:
            self.r2.objects.pop(key, None)
        return 204, {}, b""

    def _abort_upload(self, key: str, *unused: object) -> _Reply:
        with self.r2.lock:
            self._upload(key)
            del self.r2.uploads[self.query["uploadId"][0]]
        return 204, {}, b""


_Reply = tuple[int, dict[str, str], bytes]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))


def _xml(name: str, **fields: str) -> bytes:
    return _document(name, "".join(f"<{key}>{escape(value)}</{key}>" for key, value in fields.items()))


def _document(name: str, inner: str) -> bytes:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{space}">{inner}</{name}>'.encode()
