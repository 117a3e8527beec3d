"""The gate in the booted image: nothing without the token, everything with it, and the token goes no further."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from hearmeman.cli import main
from hearmeman_build.build import Image
from standin import server as standin
from support.gated import JUPYTER_TOKEN, TOKEN, GatedPod
from support.inside import members
from support.repository import ROOT
from support.waiting import PATIENCE

BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def pod(jupyter_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedPod]:
    made = GatedPod(jupyter_image, tmp_path_factory.mktemp("gate"))
    try:
        made.start(made.variables)
        made.wait_line("pod.ready")
        made.wait_line("Jupyter Server")
        made.wait_for(lambda: ask(made, "XTTS", "/", BEARER)[0] == 200, "the echo service")
        yield made
        assert made.stop() == 0
        for secret in (TOKEN, JUPYTER_TOKEN, "planted-secret"):
            assert secret not in made.log()
    finally:
        made.kill()


def ask(
    pod: GatedPod, name: str, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str = ""
) -> tuple[int, str, HTTPResponse]:
    """One request, its path sent as it is."""
    connection = HTTPConnection("127.0.0.1", pod.ports[name], timeout=PATIENCE)
    try:
        connection.request(method, path, body=body or None, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace"), answer
    finally:
        connection.close()


def routes() -> list[tuple[str, str]]:
    """Every route of the stand-in ComfyUI."""
    server = standin.Server.__new__(standin.Server)
    server.upload_mb = 1
    found = []
    for route in server.app().router.routes():
        assert route.resource is not None
        found.append((route.method, re.sub(r"\{\w+\}", "x", route.resource.canonical)))
    return found


ECHO = [("GET", "/"), ("POST", "/upload"), ("GET", "/download?size=10"), ("PUT", "/x"), ("DELETE", "/x")]
STATUS = [("GET", path) for path in ("/", "/status", "/readyz", "/healthz/")]


def test_a_browser_logs_in_once(pod: GatedPod) -> None:
    html = {"Accept": "text/html"}
    status, text, answer = ask(pod, "COMFYUI", "/view?a=1&b=2", html)
    assert status == 401
    assert 'action="/_door/login"' in text
    assert 'value="/view?a=1&amp;b=2"' in text
    assert "frame-ancestors 'none'" in (answer.getheader("Content-Security-Policy") or "")
    form = {"Content-Type": "application/x-www-form-urlencoded", **html}
    status, text, _ = ask(pod, "COMFYUI", "/_door/login", form, "POST", "token=wrong&next=/")
    assert status == 401
    assert "That is not the token" in text
    status, _, answer = ask(pod, "COMFYUI", "/_door/login", form, "POST", f"token={TOKEN}&next=%2Fview%3Fa%3D1")
    assert (status, answer.getheader("Location")) == (303, "/view?a=1")
    cookie = answer.getheader("Set-Cookie") or ""
    assert re.search(r"HttpOnly.*Path=/.*SameSite=Lax", cookie)
    assert TOKEN not in cookie
    value = cookie.partition(";")[0]
    assert ask(pod, "COMFYUI", "/system_stats", {"Cookie": value})[0] == 200
    got = json.loads(ask(pod, "XTTS", "/", {"Cookie": f"x=1; {value}; y=2"})[1])
    assert dict(got["headers"])["Cookie"] == "x=1; y=2"
    # A page of another site makes the browser send the cookie along; its Origin gives it away.
    foreign = {"Cookie": value, "Origin": "https://evil.example"}
    assert ask(pod, "XTTS", "/x", foreign, "POST", "{}")[0] == 401
    own = {"Cookie": value, "Origin": f"http://127.0.0.1:{pod.ports['XTTS']}"}
    assert ask(pod, "XTTS", "/x", own, "POST", "{}")[0] == 200
    assert ask(pod, "COMFYUI", "/system_stats", {"Cookie": value[:-1] + ("0" if value[-1] != "0" else "1")})[0] == 401


def test_every_route_without_the_token_gets_nothing(pod: GatedPod) -> None:
    asked = [("COMFYUI", *route) for route in routes()]
    assert len(asked) > 25
    asked += [("XTTS", *route) for route in ECHO] + [("STATUS", *route) for route in STATUS]
    for name, method, path in asked:
        status, text, _ = ask(pod, name, path, method=method, body="{}" if method == "POST" else "")
        assert status == 401, (name, method, path)
        assert method == "HEAD" or "this pod requires its token" in text


@pytest.mark.parametrize(
    "path",
    [
        "/_door/login/../../system_stats",
        "/_door/login/..%2f..%2fsystem_stats",
        "/_door/login%2f..%2f..%2fsystem_stats",
        "/_door/login/",
        "/_door/login;/../system_stats",
        "//system_stats",
        "/./_door/../system_stats",
        "/%2e%2e/system_stats",
        "/system_stats?/_door/login",
        "/system_stats%00/_door/login",
        "/_door/check",
        "/_door/refused",
        "/_door/down",
        "/_DOOR/login/../system_stats",
        "http://127.0.0.1/_door/login/../system_stats",
    ],
)
def test_no_spelling_of_a_path_gets_past(pod: GatedPod, path: str) -> None:
    for name in ("COMFYUI", "XTTS", "STATUS"):
        status, text, _ = ask(pod, name, path)
        assert status in (400, 401, 404), (path, status, text)
        assert "comfyui_version" not in text
        assert '"headers"' not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"X-Original-URI": "/_door/login"},
        {"X-Accel-Redirect": "/_door/login", "X-Forwarded-For": "127.0.0.1"},
        {"Host": "127.0.0.1", "X-Real-IP": "127.0.0.1", "X-Forwarded-Host": "localhost"},
        {"Cookie": f"hearmeman={TOKEN}"},
        {"Cookie": "hearmeman=99999999999.aa.bb; __Host-hearmeman=99999999999..", "Accept": "text/html"},
        {"Upgrade": "websocket", "Connection": "Upgrade"},
        {"Connection": "Authorization, Cookie, close"},
        {"Transfer-Encoding": "chunked, identity"},
    ],
)
def test_no_header_gets_past(pod: GatedPod, headers: dict[str, str]) -> None:
    status, text, _ = ask(pod, "COMFYUI", "/system_stats", headers)
    assert status in (400, 401, 501), text
    assert "comfyui_version" not in text


def test_two_requests_in_one_are_two_for_the_gate(pod: GatedPod) -> None:
    hidden = b"GET /system_stats HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /_door/login HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (len(hidden))
    for more in (b"", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"):
        with socket.create_connection(("127.0.0.1", pod.ports["COMFYUI"]), 10) as raw:
            raw.sendall(head + more + b"\r\n" + hidden + hidden)
            raw.settimeout(1.5)
            got = b""
            try:
                while part := raw.recv(65536):
                    got += part
            except TimeoutError:
                pass
        assert b"comfyui_version" not in got, more


def test_the_token_opens_and_goes_no_further(pod: GatedPod) -> None:
    assert ask(pod, "COMFYUI", "/system_stats", BEARER)[0] == 200
    assert ask(pod, "COMFYUI", "/system_stats", {"Authorization": f"bearer {TOKEN}"})[0] == 200
    status, text, _ = ask(pod, "XTTS", "/a%2fb/../c?d=%20e", {**BEARER, "Cookie": "a=1", "X-Mine": "kept"})
    assert status == 200
    got = json.loads(text)
    assert got["path"] == "/a%2fb/../c?d=%20e", "paths go through as they came"
    assert TOKEN not in text
    headers = {name.lower(): value for name, value in got["headers"]}
    assert (headers["cookie"], headers["x-mine"]) == ("a=1", "kept")
    assert "authorization" not in headers


def test_comfyui_itself_listens_on_loopback_only(pod: GatedPod) -> None:
    inner = f"{pod.ports['COMFYUI_INNER']:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines() + Path("/proc/net/tcp6").read_text().splitlines()
    listening = [fields[1] for line in lines if (fields := line.split())[3] == "0A" and fields[1].endswith(f":{inner}")]
    assert listening == [f"0100007F:{inner}"]


def test_behind_tls_the_cookie_is_for_this_host_only(pod: GatedPod) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", "X-Forwarded-Proto": "https"}
    _, _, answer = ask(pod, "STATUS", "/_door/login", form, "POST", f"token={TOKEN}")
    cookie = answer.getheader("Set-Cookie") or ""
    assert cookie.startswith("__Host-hearmeman=")
    assert "Secure" in cookie


@pytest.mark.parametrize("where", ["https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nX: y", "evil"])
def test_a_login_sends_nobody_elsewhere(pod: GatedPod, where: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    _, _, answer = ask(pod, "COMFYUI", "/_door/login", form, "POST", f"token={TOKEN}&next={quote(where, safe='')}")
    assert answer.getheader("Location") == "/"
    assert answer.getheader("X") is None


def test_websockets_pass_with_the_token_only(pod: GatedPod) -> None:
    async def talk(port: int, path: str, headers: dict[str, str]) -> object:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}{path}"
            async with session.ws_connect(url, headers=headers, max_msg_size=0) as ws:
                if path == "/ws?clientId=t":
                    return await ws.receive_json(timeout=PATIENCE)
                for size in (1, 70_000, 5_000_000):
                    await ws.send_bytes(b"x" * size)
                    assert len((await ws.receive(timeout=PATIENCE)).data) == size
                return "echoed"

    assert asyncio.run(talk(pod.ports["XTTS"], "/ws", BEARER)) == "echoed"
    first = asyncio.run(talk(pod.ports["COMFYUI"], "/ws?clientId=t", BEARER))
    assert isinstance(first, dict)
    assert first["type"] == "status"
    for name, path in (("COMFYUI", "/ws?clientId=t"), ("COMFYUI", "/api/ws"), ("XTTS", "/ws")):
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            asyncio.run(talk(pod.ports[name], path, {}))
        assert caught.value.status == 401


def test_a_large_upload_and_download_pass_whole(pod: GatedPod) -> None:
    size, block = 300 << 20, b"\x5a" * (1 << 20)

    async def both() -> tuple[dict[str, object], int]:
        async def body() -> AsyncIterator[bytes]:
            for _ in range(size >> 20):
                yield block

        async with aiohttp.ClientSession(headers=BEARER) as session:
            url = f"http://127.0.0.1:{pod.ports['XTTS']}"
            async with session.post(f"{url}/upload", data=body()) as answer:
                up = await answer.json()
            got = 0
            async with session.get(f"{url}/download?size={size}") as answer:
                async for part in answer.content.iter_chunked(1 << 18):
                    got += len(part)
            return up, got

    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(block)
    assert asyncio.run(both()) == ({"size": size, "sha256": digest.hexdigest()}, size)


def test_two_hundred_at_once(pod: GatedPod) -> None:
    async def one(session: aiohttp.ClientSession, number: int) -> tuple[bool, int]:
        allowed = number % 2 == 0
        url = f"http://127.0.0.1:{pod.ports['COMFYUI']}/object_info"
        async with session.get(url, headers=BEARER if allowed else {}) as answer:
            text = await answer.text()
            assert allowed == ("python_module" in text)
            return allowed, answer.status

    async def all_of_them() -> list[tuple[bool, int]]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            return await asyncio.gather(*(one(session, number) for number in range(200)))

    got = asyncio.run(all_of_them())
    assert set(got) == {(True, 200), (False, 401)}


def test_guessing_gets_slow_and_the_right_token_does_not(pod: GatedPod) -> None:
    async def guess() -> tuple[float, float, bool]:
        url = f"http://127.0.0.1:{pod.ports['COMFYUI']}/system_stats"
        loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def timed(token: str) -> float:
                began = loop.time()
                async with session.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
                    assert answer.status == (200 if token == TOKEN else 401)
                return loop.time() - began

            wrong = asyncio.gather(*(timed(f"guess-{number}") for number in range(20)))
            await asyncio.sleep(0.2)
            right = await timed(TOKEN)
            was_first = not wrong.done()
            return max(await wrong), right, was_first

    slowest, right, was_first = asyncio.run(guess())
    assert slowest > 2
    assert was_first and right < slowest


def test_while_comfyui_is_down_a_browser_is_told_so(pod: GatedPod) -> None:
    done = pod.ssh("hearmeman restart comfyui")
    assert done.stdout == "comfyui: restarted\n", done.stderr
    status, text, _ = ask(pod, "COMFYUI", "/", {**BEARER, "Accept": "text/html"})
    assert (status == 503 and "ComfyUI does not answer yet" in text) or status == 200
    assert ask(pod, "COMFYUI", "/", {"Accept": "text/html"})[0] == 401, "also then only with the token"
    pod.wait_for(lambda: ask(pod, "COMFYUI", "/system_stats", BEARER)[0] == 200, "ComfyUI")
    assert pod.ssh("hearmeman restart nothing").returncode == 2


def test_ssh_by_key_only_and_without_secrets(pod: GatedPod) -> None:
    for words in (("env",), ("bash", "-lc", "env"), ("bash", "-ic", "env")):
        done = pod.ssh(*words)
        assert done.returncode == 0, done.stderr
        assert f"COMFYUI_PORT={pod.ports['COMFYUI']}" in done.stdout
        assert "PATH=/opt/hearmeman/bin:/opt/env/runtime/bin:" in done.stdout
        for secret in (TOKEN, JUPYTER_TOKEN, "planted-secret"):
            assert secret not in done.stdout
    offered = GatedPod.ssh(pod, "true").stderr
    assert offered == ""
    with socket.create_connection(("127.0.0.1", pod.ports["SSH"]), PATIENCE) as raw:
        assert raw.recv(64).startswith(b"SSH-2.0-OpenSSH")
    assert "line 2 of PUBLIC_KEY is not an SSH public key" in pod.log()
    key = pod.volume / ".hearmeman/local/ssh/ssh_host_ed25519_key"
    assert key.stat().st_mode & 0o077 == 0
    status = pod.ssh("hearmeman status --json")
    assert json.loads(status.stdout)["ready"] in (True, False)
    assert pod.ssh("hearmeman workflows run smoke-image --json").returncode == 0


def test_a_workflow_is_run_from_outside_with_the_token(pod: GatedPod, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{pod.ports['COMFYUI']}"
    words = ["workflows", "run", "smoke-image", "--dir", str(ROOT / "workflows"), "--url", url, "--out", str(tmp_path)]
    assert main(words, {"ACCESS_TOKEN": "not-the-token-of-this-gate"}) == 1
    assert main([*words, "--set", "color=77"], {"ACCESS_TOKEN": TOKEN}) == 0
    assert [path.read_bytes()[:4] for path in tmp_path.rglob("*.png")] == [b"\x89PNG"]


def test_the_old_paths_still_lead_there(pod: GatedPod) -> None:
    done = pod.ssh("tail -n 1 /var/log/comfyui.log /var/log/download_models.log /var/log/jupyter.log")
    assert done.returncode == 0, done.stderr
    assert "GUI go to" in pod.ssh("cat /var/log/comfyui.log").stdout
    again = pod.ssh("/start.sh")
    assert again.returncode == 1
    assert f"COMFYUI_PORT={pod.ports['COMFYUI']}: another process listens" in again.stderr
    assert pod.ssh("DRY_RUN=true /download_models.sh").returncode == 0


def test_jupyter_asks_for_its_token(pod: GatedPod) -> None:
    assert ask(pod, "JUPYTER", "/api/kernelspecs")[0] == 403
    token = {"Authorization": f"token {JUPYTER_TOKEN}"}
    status, text, answer = ask(pod, "JUPYTER", "/api/kernelspecs", token)
    assert status == 200
    assert list(json.loads(text)["kernelspecs"]) == ["comfyui"]
    assert json.loads(text)["default"] == "comfyui"
    assert answer.getheader("Access-Control-Allow-Origin") in (None, "")
    cmdlines = []
    for pid, _ in members(pod):
        with contextlib.suppress(OSError):  # It has ended since.
            cmdlines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    assert any(b"jupyterlab" in line for line in cmdlines)
    assert not any(JUPYTER_TOKEN.encode() in line or TOKEN.encode() in line for line in cmdlines)


def test_no_answer_allows_other_origins(pod: GatedPod) -> None:
    for name, path in (("COMFYUI", "/system_stats"), ("STATUS", "/status"), ("COMFYUI", "/_door/login")):
        for headers in ({}, BEARER):
            _, _, answer = ask(pod, name, path, {**headers, "Origin": "https://evil.example"})
            assert answer.getheader("Access-Control-Allow-Origin") is None


def test_the_doors_are_told_in_plain_words(pod: GatedPod) -> None:
    assert f"door       {pod.ports['SSH']} SSH: anyone with a key in PUBLIC_KEY" in pod.log()
    text = ask(pod, "STATUS", "/status", BEARER)[1]
    assert "planted-secret" not in text
    assert TOKEN not in text
    found = json.loads(text)
    assert found["phases"]["comfyui_exec"] > 0
    assert {process["name"] for process in found["processes"]} - {"owners"} == {
        "comfyui",
        "models",
        "door",
        "gate",
        "sshd",
        "jupyter",
        "xtts",
    }
    assert ask(pod, "STATUS", "/readyz", BEARER)[0] in (200, 503)
    assert json.loads(ask(pod, "STATUS", "/healthz", BEARER)[1]) == {"alive": True}


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"any:{token}".encode()).decode()}


def test_clients_that_cannot_send_headers_use_basic_auth_or_a_link(pod: GatedPod) -> None:
    assert ask(pod, "COMFYUI", "/system_stats", basic(TOKEN))[0] == 200
    status, text, _ = ask(pod, "XTTS", "/x", basic(TOKEN))
    assert status == 200
    assert "authorization" not in {name.lower() for name, _ in json.loads(text)["headers"]}
    for wrong in (basic("wrong"), basic(""), {"Authorization": "Basic ???"}):
        assert ask(pod, "COMFYUI", "/system_stats", wrong)[0] == 401
    foreign = {**basic(TOKEN), "Origin": "https://evil.example"}
    assert ask(pod, "XTTS", "/x", foreign, "POST", "{}")[0] == 401
    status, _, answer = ask(pod, "COMFYUI", f"/_door/login?token={TOKEN}&next=/system_stats")
    assert (status, answer.getheader("Location")) == (303, "/system_stats")
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
    assert ask(pod, "COMFYUI", "/system_stats", {"Cookie": cookie})[0] == 200
    status, _, answer = ask(pod, "COMFYUI", "/_door/login?token=wrong&next=/system_stats")
    assert (status, answer.getheader("Set-Cookie")) == (401, None)


def test_that_the_pod_lives_can_be_asked_without_the_token(pod: GatedPod) -> None:
    status, text, _ = ask(pod, "STATUS", "/healthz")
    assert (status, json.loads(text)) == (200, {"alive": True})
    for name, path in (
        ("STATUS", "/healthz/x"),
        ("STATUS", "/healthzx"),
        ("COMFYUI", "/healthz"),
        ("XTTS", "/healthz"),
    ):
        assert ask(pod, name, path)[0] == 401


def raw(port: int, request: bytes, seconds: float = 20) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as made:
        made.sendall(request)
        made.settimeout(seconds)
        got = b""
        while part := made.recv(65536):
            got += part
        return got


def test_http_1_0_needs_no_host(pod: GatedPod) -> None:
    head = b"GET /system_stats HTTP/1.0\r\n"
    assert raw(pod.ports["COMFYUI"], head + b"\r\n").startswith(b"HTTP/1.1 401")
    assert raw(pod.ports["COMFYUI"], head + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()).startswith(
        b"HTTP/1.1 200"
    )


def test_half_a_header_is_not_waited_for(pod: GatedPod) -> None:
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        assert raw(pod.ports["COMFYUI"], b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", seconds=60) == b""
    assert time.monotonic() - began < 45


def kill(pod: GatedPod, name: str) -> None:
    """Kill a process of the pod as the kernel would."""
    report = f"/run/hearmeman/keep/{name}.json"
    killed = pod.ssh(f'kill -9 $(python3 -c \'import json; print(json.load(open("{report}"))["pid"])\')')
    assert killed.returncode == 0, killed.stderr


def test_while_the_door_restarts_the_answer_is_503_and_what_it_knew_stays(pod: GatedPod) -> None:
    ready = json.loads(pod.ssh("hearmeman status --json").stdout)["phases"]["comfyui_ready"]
    kill(pod, "door")
    seen, pages = set(), set()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        status, text, answer = ask(pod, "COMFYUI", "/system_stats", BEARER)
        seen.add(status)
        if status == 503:
            assert answer.getheader("Retry-After") == "2"
            assert "try again" in json.loads(text)["error"]
            for more, wanted in (({}, 503), ({"Cf-Ray": "8f-FRA"}, 200)):
                html = ask(pod, "COMFYUI", "/", {**BEARER, "Accept": "text/html,*/*", **more})
                if "The gate is starting" in html[1]:
                    pages.add((html[0], html[2].getheader("X-Hearmeman-State"), wanted))
        elif seen == {200, 503}:
            break
    assert seen == {200, 503}
    assert pages == {(503, "starting", 503), (200, "starting", 200)}
    assert ask(pod, "COMFYUI", "/_door/away/proxied", BEARER)[0] == 404
    pod.wait_for(lambda: json.loads(pod.ssh("hearmeman status --json").stdout)["ready"], "ready again")
    assert json.loads(pod.ssh("hearmeman status --json").stdout)["phases"]["comfyui_ready"] == ready


def test_cloudflare_does_not_hide_the_page_that_says_what_happens(pod: GatedPod) -> None:
    kill(pod, "comfyui")
    html = {**BEARER, "Accept": "text/html", "Cf-Ray": "8f-FRA"}

    def page() -> bool:
        status, text, answer = ask(pod, "COMFYUI", "/", html)
        return (status, answer.getheader("X-Hearmeman-State")) == (200, "starting") and "does not answer yet" in text

    pod.wait_for(page, "the page")
    pod.wait_for(lambda: ask(pod, "COMFYUI", "/system_stats", BEARER)[0] == 200, "ComfyUI")


def test_viewers_see_the_running_pod_as_it_is(pod: GatedPod) -> None:
    planned = pod.ssh("hearmeman boot --plan --image-file /workspace/image.json")
    assert planned.returncode == 0, planned.stderr
    assert "another process listens" not in planned.stdout
    assert "gets ACCESS_TOKEN" in planned.stdout
    shown = pod.ssh("hearmeman env")
    assert shown.returncode == 0, shown.stderr
    made = json.loads(pod.ssh("hearmeman env --template").stdout)["env"]
    assert made["HF_TOKEN"] == "{{ RUNPOD_SECRET_hf_token }}"
    assert TOKEN not in shown.stdout + planned.stdout


def test_the_page_and_its_stream_pass_the_gate_as_they_are(pod: GatedPod) -> None:
    page = {"Accept": "text/html", **BEARER}
    # A test before this one may have ended ComfyUI.
    pod.wait_for(lambda: ask(pod, "STATUS", "/readyz", BEARER)[0] == 200, "the pod to be ready")
    status, text, answer = ask(pod, "STATUS", "/", page)
    assert status == 200
    assert 'class="acts"' in text, "who passed the gate may act"
    assert answer.getheader("X-Hearmeman-State") == "ready"
    assert TOKEN not in text
    assert ask(pod, "STATUS", "/events")[0] == 401
    connection = HTTPConnection("127.0.0.1", pod.ports["STATUS"], timeout=PATIENCE)
    connection.request("GET", "/events", headers=BEARER)
    stream = connection.getresponse()
    assert (stream.getheader("Content-Type") or "").startswith("text/event-stream")
    while not stream.readline().startswith(b"event: sections"):
        pass
    connection.close()
    # A part of the pod is restarted, and another site's page may not ask for it.
    form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", **BEARER}
    foreign = {**form, "Origin": "https://evil.example"}
    assert ask(pod, "STATUS", "/actions/restart", foreign, "POST", "name=xtts")[0] == 403
    status, text, _ = ask(pod, "STATUS", "/actions/restart", form, "POST", "name=xtts")
    assert (status, json.loads(text)["message"]) == (200, "xtts was restarted.")
    pod.wait_for(lambda: ask(pod, "XTTS", "/", BEARER)[0] == 200, "the echo service again")
    pod.wait_line("page.acted action=restart process=xtts")
