"""A job's inputs by address: nothing private is reached, whatever it is written as, and every limit holds."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hearmeman.worker import config, inputs
from hearmeman.worker.inputs import InputError


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        server.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = {"/small": b"picture", "/empty": b"", "/large": bytes(2000), "/folded": gzip.compress(bytes(100_000))}
        if self.path == "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"1")
            self.wfile.flush()
            server.over.wait(60)
            self.wfile.write(b"23456789.")
            return
        if self.path not in body:
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/folded":
            self.send_header("Content-Encoding", "gzip")
        if self.path != "/large":  # No length: only what arrives can be counted.
            self.send_header("Content-Length", str(len(body[self.path])))
        self.end_headers()
        self.wfile.write(body[self.path])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.over.set()
    made.shutdown()
    made.server_close()


def fetch(url: str, target: Path, most: int = 1000, seconds: float = 60, private: bool = True) -> bytes:
    asyncio.run(inputs.fetch(url, target, most, seconds, private))
    return target.read_bytes()


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_no_private_address_counts_as_public(address: str) -> None:
    assert not inputs.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "64:ff9b::101:101"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert inputs.is_public(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0"],
)
def test_this_machine_is_not_reached_however_it_is_written(server: _Server, host: str, tmp_path: Path) -> None:
    port = server.server_address[1]
    with pytest.raises(InputError):
        fetch(f"http://{host}:{port}/small", tmp_path / "f", private=False)
    assert server.asked == []


def test_the_address_that_was_checked_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch, server: _Server, tmp_path: Path
) -> None:
    # A name that is public when it is asked for first and this machine when it is asked for again.
    answers = ["93.184.215.14", "127.0.0.1"]
    looked = []

    async def resolve(self: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, object]]:
        looked.append(host)
        address = answers[min(len(looked), len(answers)) - 1]
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)

    async def both() -> list[str]:
        resolver = inputs.Resolver()
        first = await resolver.resolve("rebinding.example.com", 80)
        with pytest.raises(InputError, match="private network"):
            await resolver.resolve("rebinding.example.com", 80)
        return [one["host"] for one in first]

    assert asyncio.run(both()) == ["93.184.215.14"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://example.com/a", "only http and https"),
        ("file:///etc/passwd", "only http and https"),
        ("http://", "only http and https"),
        ("http://a:0/", "only http and https"),
        ("https://user:secret@example.com/a", "leave the name and the password out"),
    ],
)
def test_other_addresses_are_refused_in_a_sentence(url: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        fetch(url, tmp_path / "f")


def test_an_address_is_taken_without_the_name_and_the_password(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave the name and the password out of the address"):
        fetch(f"{server.url.replace('//', '//user:secret@')}/small", tmp_path / "f")
    assert fetch(f"{server.url}/small", tmp_path / "f")


def test_what_is_fetched_is_whole(server: _Server, tmp_path: Path) -> None:
    assert fetch(f"{server.url}/small", tmp_path / "f") == b"picture"
    assert fetch(f"{server.url}/to?/small", tmp_path / "g") == b"picture"


@pytest.mark.parametrize("path", ["/large", "/folded"])
def test_no_more_than_the_limit_is_written(server: _Server, path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="raise WORKER_INPUT_MB, or make it smaller"):
        fetch(f"{server.url}{path}", tmp_path / "f")
    assert (tmp_path / "f").stat().st_size <= 1000
    raised = config.read({"WORKER_INPUT_MB": "0.1"})
    assert len(fetch(f"{server.url}{path}", tmp_path / "f", raised.input_bytes)) >= 2000
    assert fetch(f"{server.url}/small", tmp_path / "f")


def test_an_input_that_does_not_end_is_given_up(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="raise WORKER_INPUT_SECONDS, or host it nearer"):
        fetch(f"{server.url}/slow", tmp_path / "f", seconds=1)
    assert fetch(f"{server.url}/small", tmp_path / "f", seconds=1)
    threading.Timer(1.1, server.over.set).start()
    raised = config.read({"WORKER_INPUT_SECONDS": "60"})
    assert len(fetch(f"{server.url}/slow", tmp_path / "f", seconds=raised.input_seconds)) == 10


@pytest.mark.parametrize(("path", "says"), [("/none", "answers 404"), ("/empty", "is empty")])
def test_an_answer_that_is_no_file_is_explained(server: _Server, path: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        fetch(f"{server.url}{path}", tmp_path / "f")


def test_a_redirect_is_checked_like_the_first_address(server: _Server, tmp_path: Path) -> None:
    for target in ("file:///etc/passwd", "ftp://example.com/"):
        with pytest.raises(InputError, match="only http and https"):
            fetch(f"{server.url}/to?{target}", tmp_path / "f")


def test_an_endless_redirect_ends(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="redirects more than"):
        fetch(f"{server.url}/to?/to?/to?/to?/to?/to?/to?/to?/small", tmp_path / "f")


def test_a_key_in_an_address_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        fetch("ftp://example.com/a?X-Amz-Signature=secret", tmp_path / "f")
    assert "secret" not in str(caught.value)
