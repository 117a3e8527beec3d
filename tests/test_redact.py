"""Secrets that this process knows leave it nowhere: not in logs, state files, errors, tracebacks or other's output."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from hearmeman import redact
from hearmeman.redact import Redactor
from support.fetching import Case
from support.repository import ROOT
from support.sync_process import Sync
from support.waiting import PATIENCE

SECRET = "pl4nted/S3cret+with=odd&signs"
KEY_ID = "AKIAPLANTEDKEYID00"
PLANTED = {
    "R2_ACCESS_KEY_ID": KEY_ID,
    "R2_SECRET_ACCESS_KEY": SECRET,
    "HF_TOKEN": "hf_pl4ntedTokenOfHub",
    "CIVITAI_API_KEY": "c1v1tai-pl4nted-key",
    "ACCESS_TOKEN": "access-pl4nted-token",
}


def spellings(secret: str) -> dict[str, str]:
    """Everything that shows a secret, by how it is spelt."""
    return {
        "plain": secret,
        "url": quote(secret, safe=""),
        "url, small digits": quote(secret, safe="").lower() if "%" in quote(secret, safe="") else secret,
        "form": quote_plus(secret),
        "url twice": quote(quote(secret, safe=""), safe=""),
        "json": json.dumps(secret)[1:-1],
        "hex": secret.encode().hex(),
        "basic": base64.b64encode(f"user:{secret}".encode()).decode(),
        "basic, shifted": base64.b64encode(f"us:{secret}:x".encode()).decode(),
        "bearer in base64": base64.b64encode(f"Authorization: Bearer {secret}".encode()).decode(),
        "base64 for urls": base64.urlsafe_b64encode(b"\xff\xfe>" + secret.encode()).decode(),
    }


@pytest.mark.parametrize("how", spellings(SECRET))
def test_a_secret_is_found_in_every_spelling(how: str) -> None:
    spelt = spellings(SECRET)[how]
    assert Redactor([SECRET])(f"before {spelt} after") == "before *** after"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIA9/20251125/auto/s3/aws4_request, "
            "SignedHeaders=host;x-amz-date, Signature=0a1b2c",
            "Authorization: AWS4-HMAC-SHA256 Credential=***/20251125/auto/s3/aws4_request, "
            "SignedHeaders=host;x-amz-date, Signature=***",
        ),
        (
            "GET /b/k?X-Amz-Credential=AKIA9%2F20251125%2Fauto&X-Amz-Signature=00ff&X-Amz-Date=1",
            "GET /b/k?X-Amz-Credential=***%2F20251125%2Fauto&X-Amz-Signature=***&X-Amz-Date=1",
        ),
        ("{'Authorization': 'Bearer hf_x1'}", "{'Authorization': 'Bearer ***'}"),
        ("(b'authorization', b'Basic dXNlcjp4')", "(b'authorization', b'Basic ***')"),
        ("https://civitai.com/api/download/1?token=abc&x=1", "https://civitai.com/api/download/1?token=***&x=1"),
        ("proxy http://user:pass@proxy:3128/", "proxy http://***@proxy:3128/"),
    ],
)
def test_what_gives_access_is_hidden_even_if_it_is_not_known(text: str, left: str) -> None:
    assert Redactor()(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "send the header 'Authorization: Bearer ACCESS_TOKEN'",
        "s3://bucket/key at https://a.r2.example/b?x=1 in 3.2 s",
        "basic understanding of tokens; the signature differs",
        "ssh://host:22/path and user@host",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor([SECRET])(text) == text


def test_short_values_are_not_looked_for() -> None:
    with redact.guarded_streams():
        redact.learn({"HF_TOKEN": "hf", "USE_AUTH_TOKEN": "enabled", "R2_ACCESS_KEY_ID": " 'minimum' "})
        assert redact.redact("hf is enabled, minimum 1") == "hf is enabled, *** 1"
    assert redact.redact("minimum") == "minimum"


def test_json_values_keep_their_shape() -> None:
    with redact.guarded_streams():
        redact.learn(PLANTED)
        found = redact.redacted({"a": [f"x {SECRET}", 1, None, True], KEY_ID: {"b": (SECRET,)}})
    assert found == {"a": ["x ***", 1, None, True], "***": {"b": ["***"]}}


class _Echo(BaseHTTPRequestHandler):
    """Refuses everything and quotes the request in reason, headers and body, as some gateways do."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        quoted = "; ".join(f"{name}: {value}" for name, value in self.headers.items())
        given = self.headers.get("Authorization", "")
        encoded = base64.b64encode(given.encode()).decode()
        body = (
            f'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>{quoted} | {quote(given)} | {encoded} | '
            f"{quote(SECRET, safe='')} | {SECRET}</Message></Error>"
        ).encode()
        self.send_response(403, f"refused {given} {encoded}"[:900])
        for name, value in (
            ("Content-Length", str(len(body))),
            ("X-Error-Message", quoted),
            ("X-Error-Code", "GatedRepo"),
            ("Content-Type", "application/xml"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _refuse  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextmanager
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def assert_hidden(text: str, where: str) -> None:
    for name, secret in PLANTED.items():
        for how, spelt in spellings(secret).items():
            core = spelt.rstrip("=")[6:-4] if "base64" in how or "basic" in how else spelt
            assert core not in text, f"{name} ({how}) in {where}"


def assert_nothing_planted_in(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        assert_hidden(path.read_bytes().decode(errors="replace"), str(path))
    return len(files)


def test_upload_sync_and_their_state_hold_no_secret(tmp_path: Path) -> None:
    with echo() as url:
        daemon = Sync(tmp_path, {**PLANTED, "R2_ENDPOINT": url})
        daemon.start()
        try:
            # Written while it watches: it sees the file closed, and need not wait whether more comes.
            daemon.wait_said("sync.reconciled")
            (daemon.output / "a.png").write_bytes(bytes(100))
            daemon.wait_for(lambda: "last_error" in daemon.report(), "a report")
        finally:
            daemon.kill()
        said = daemon.log()
        for words in (["upload", "--test"], ["upload", str(daemon.output / "a.png")], ["sync", "status", "--json"]):
            command = [sys.executable, "-m", "hearmeman", *words]
            done = subprocess.run(command, env=daemon.environ, capture_output=True, text=True, timeout=120, check=False)
            said += done.stdout + done.stderr
    assert "403" in said or "AccessDenied" in said
    assert_hidden(said, "the sync's output")
    assert assert_nothing_planted_in(daemon.state) >= 2


def test_a_fetch_and_its_state_hold_no_secret(tmp_path: Path) -> None:
    with echo() as url:
        case = Case(tmp_path, {**PLANTED, "HF_ENDPOINT": url, "CIVITAI_ENDPOINT": url})
        case.add("hub", {"kind": "huggingface", "repo": "a/b", "path": "c.bin", "revision": "main"})
        case.add("civitai", {"kind": "civitai", "version": 12, "model": 3})
        child = case.start("fetch", DOWNLOAD_TIMEOUT="1")
        out, err = child.communicate(timeout=180)
    assert child.returncode in (1, 3)
    assert "403" in err
    assert_hidden(out + err, "the fetch's output")
    assert assert_nothing_planted_in(tmp_path) >= 2


def _python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), **environ}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


_BUG = """
import logging, sys, threading, types, warnings
from hearmeman import cli
bad = types.ModuleType("bad")
bad.add = lambda parser: None
def run(args, environ):
    secret = environ["HF_TOKEN"]
    logging.getLogger("other").warning("a library says %s", secret)
    warnings.warn(f"a warning about {secret}")
    thread = threading.Thread(target=lambda: 1 / int(secret))
    thread.start(); thread.join()
    print({"token": secret})
    raise KeyError(secret)
bad.run = run
sys.modules["bad"] = bad
cli.COMMANDS["env"] = ("bad", "fails")
sys.exit(cli.main(["env"]))
"""


def test_tracebacks_warnings_and_other_libraries_lines_hold_no_secret() -> None:
    done = _python(_BUG, **PLANTED)
    assert done.returncode == 1
    for part in ("a library says ***", "a warning about ***", "ValueError: invalid literal", "KeyError: '***'"):
        assert part in done.stderr
    assert "this is a bug in hearmeman (KeyError)" in done.stderr
    assert done.stdout == "{'token': '***'}\n"
    assert_hidden(done.stdout + done.stderr, "the output")


def test_a_kept_process_s_output_holds_none_of_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "env.json").write_text(json.dumps({"PATH": os.environ["PATH"], **PLANTED}))
    code = (
        "import base64, os, sys, urllib.parse as u; s = os.environ['R2_SECRET_ACCESS_KEY'];"
        "print('plain', s); print(u.quote(s, safe='')); print(base64.b64encode(('u:' + s).encode()).decode());"
        "sys.stdout.buffer.write(b'\\xff raw ' + s.encode() + b'\\n'); print('end')"
    )
    words = ["keep", "x", "--env-file", str(tmp_path / "env.json"), "--log", str(tmp_path / "x.log"), "--once"]
    command = [sys.executable, "-m", "hearmeman", *words, "--", sys.executable, "-c", code]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")}
    done = subprocess.run(command, env=env, capture_output=True, timeout=PATIENCE, check=False)
    written = (tmp_path / "x.log").read_bytes()
    for text in (done.stdout, written):
        assert b"plain ***" in text
        assert b"\xff raw ***" in text
        assert b"end" in text
        assert_hidden(text.decode(errors="replace"), "the output")


def test_a_log_line_and_a_state_file_hold_no_secret(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\n"
        "from hearmeman import redact, log, state_file\n"
        "redact.learn(os.environ)\n"
        "log.log('event', why=os.environ['R2_SECRET_ACCESS_KEY'], key=os.environ['R2_ACCESS_KEY_ID'])\n"
        "state_file.write_json(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else 'x'), dict(os.environ))\n"
    ).replace("sys.argv[1] if len(sys.argv) > 1 else 'x'", f"{str(tmp_path / 'state.json')!r}")
    done = _python(code, **PLANTED)
    assert 'why="***" key=***' in done.stderr
    assert_hidden(done.stderr, "the log")
    assert assert_nothing_planted_in(tmp_path) == 1
