"""The page over real HTTP: who is given what, that everything is escaped, and how changes are streamed."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fakes.comfyui import ComfyUI, comfyui
from hearmeman.door.server import Door, serve
from hearmeman.page import stream as stream_of_page
from hearmeman.page.comfyui import Job
from support.page import run_folder, served
from support.ports import free_port, listens
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

HTML = {"Accept": "text/html"}
EVIL = '<img src=x onerror="alert(1)">"\'&</script>\x1b[31m\u202e.png'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyUI]:
    with comfyui(tmp_path_factory.mktemp("comfyui")) as made:
        yield made


@pytest.fixture(scope="module")
def pod(running: ComfyUI, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Door, Path]]:
    run_dir = run_folder(tmp_path_factory.mktemp("pod"), running.url)
    with pytest.MonkeyPatch.context() as patch, served(run_dir) as (url, door):
        # So that a tab that went is noticed soon.
        patch.setattr(stream_of_page, "PING_SECONDS", 0.5)
        yield url, door, run_dir


def get(url: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> tuple[int, str, HTTPResponse]:
    asked = urllib.request.Request(url, headers=headers or {}, data=data)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode(), answer
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error  # type: ignore[return-value]


class Tags(HTMLParser):
    """Every element and attribute that a browser would make of a text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_browser_is_given_a_page_and_a_program_json(pod: tuple[str, Door, Path]) -> None:
    url = pod[0]
    status, text, answer = get(url, HTML)
    assert status == 200
    assert text.startswith("<!doctype html>")
    assert answer.headers["X-Hearmeman-State"] in ("starting", "failing", "ready")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for headers in ({}, {"Accept": "application/json"}, {"Accept": "*/*"}):
        found = json.loads(get(url, headers)[1])
        assert found["boot"]["pod"] == "p1"
        assert found["state"]["word"]
    assert json.loads(get(f"{url}/status", HTML)[1])["boot"]["pod"] == "p1"


def test_everything_comes_from_the_pod_itself_and_nothing_is_inline(pod: tuple[str, Door, Path]) -> None:
    url = pod[0]
    page = Tags(get(url, HTML)[1])
    for tag, attributes in page.seen:
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        for name in ("src", "href"):
            address = attributes.get(name) or ""
            if tag != "a" and address:
                assert not urlsplit(address).netloc, address
                assert get(url + address.partition("?")[0])[0] == 200
    assert "noscript" in [tag for tag, _ in page.seen]


def test_warnings_come_first_each_with_what_to_do(pod: tuple[str, Door, Path]) -> None:
    text = get(pod[0], HTML)[1]
    assert text.index('id="problems"') < text.index('id="comfyui"')
    found = json.loads(get(f"{pod[0]}/status")[1])["problems"]
    told = {one["what"]: one["fix"] for one in found}
    assert told["the volume is 97% full"] == "delete files"
    assert told["anyone who knows the address can use ComfyUI (8188)"] == "set ACCESS_TOKEN to require a token"


def test_an_end_that_comes_is_counted_down_on_the_page(running: ComfyUI, tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, running.url)
    shown = {"action": "stop", "uses": [], "ends_at": time.time() + 290, "why": "nobody used it for 20 minutes"}
    (run_dir / "idle").mkdir()
    (run_dir / "idle/idle.json").write_text(json.dumps({**shown, "unless_used": True, "warns": True, "problem": ""}))
    with served(run_dir) as (url, _):
        page = Tags(get(url, HTML)[1])
        found = json.loads(get(f"{url}/status")[1])
    assert re.search(r"stops in 4 min \d+ s unless it is used", page.text), page.text
    assert re.search(r"the pod is stopped in 4 min \d+ s: nobody used it", page.text, re.IGNORECASE)
    assert found["idle"]["warns"] and any("is stopped in" in one["what"] for one in found["problems"])


def test_names_lines_and_reasons_are_text_whatever_they_hold(running: ComfyUI, tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, running.url, warnings=[EVIL], pod=EVIL, failed={EVIL: EVIL})
    state = tmp_path / "state"
    row = {"to": EVIL, "state": "failed", "size": 5, "done": 1, "problem": EVIL}
    (state / "models.json").write_text(json.dumps({"state": "failed", "files": {EVIL: row}}))
    failing = [{"file": EVIL, "why": EVIL, "failures": 1, "since": 0}]
    (state / "sync.json").write_text(
        json.dumps(
            {"bucket": EVIL, "failing": failing, "failing_files": 1, "last_success_at": 1, "last_success_key": EVIL}
        )
    )
    (state / "machine.json").write_text(json.dumps({"findings": [{"name": EVIL, "ok": False, "what": EVIL}]}))
    (state / "logs/comfyui.log").write_text(f"2026-01-01T00:00:00.000Z {EVIL}\n")
    with served(run_dir) as (url, _):
        text = get(url, HTML)[1]
        parts = "".join(json.loads(get(f"{url}/sections")[1])["sections"].values())
    for made in (text, parts):
        page = Tags(made)
        assert not [tag for tag, attributes in page.seen if tag == "img" or "onerror" in attributes]
        assert len([tag for tag, _ in page.seen if tag == "script"]) == (1 if made is text else 0)
        assert page.text.count('<img src=x onerror="alert(1)">') >= 9
        assert not re.search("[\x1b\u202e]", made)


def events(answer: HTTPResponse) -> Iterator[dict[str, str]]:
    """Read a stream as a browser does."""
    event: dict[str, str] = {}
    while line := answer.readline().decode():
        name, _, value = line.rstrip("\n").partition(":")
        if line == "\n":
            if "data" in event:
                yield event
            event = {}
        elif name:
            event[name] = value.strip()


def sections(event: dict[str, str]) -> dict[str, str]:
    """The sections that an event brings."""
    found: dict[str, str] = json.loads(event["data"])["sections"]
    return found


def stream(url: str, path: str = "/events", headers: dict[str, str] | None = None) -> HTTPResponse:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    connection.request("GET", path, headers=headers or {})
    return connection.getresponse()


def test_a_stream_says_everything_then_what_changes_then_goes_on_after_a_break(pod: tuple[str, Door, Path]) -> None:
    url, _, run_dir = pod
    answer = stream(url)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "no-transform" in answer.headers["Cache-Control"]
    assert answer.headers["X-Accel-Buffering"] == "no"
    heard = events(answer)
    first = next(heard)
    assert first["event"] == "sections"
    assert {"top", "models", "logs"} <= set(sections(first))
    assert abs(json.loads(first["data"])["at"] - time.time()) < 60
    state = {"state": "fetching", "files": {}, "bytes_total": 10, "bytes_done": 4}
    (run_dir.parent / "state/models.json").write_text(json.dumps(state))
    changed = next(event for event in heard if "models" in sections(event))
    assert "4 of 10 B" in sections(changed)["models"]
    assert "about" not in sections(changed)
    answer.close()
    # Nothing is sent again to who has it, and everything to who was at another process.
    (run_dir.parent / "state/models.json").write_text(json.dumps({**state, "bytes_done": 7}))
    again = stream(url, headers={"Last-Event-ID": changed["id"]})
    parts = sections(next(event for event in events(again) if event["event"] == "sections"))
    assert "7 of 10 B" in parts.get("models", "") or "models" not in parts
    assert "about" not in parts
    again.close()
    other = stream(url, headers={"Last-Event-ID": "another-5"})
    assert "about" in sections(next(events(other)))
    other.close()


def test_an_open_tab_holds_up_no_stop(running: ComfyUI, tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, running.url)
    port = free_port()

    async def stopped_after() -> float:
        door = Door(run_dir, json.loads((run_dir / "boot.json").read_text()), None)
        serving = asyncio.create_task(serve(door, run_dir / "gate/door.sock", [("127.0.0.1", port)]))
        await asyncio.to_thread(wait_for, lambda: listens(port), "the page's port")
        answer = await asyncio.to_thread(stream, f"http://127.0.0.1:{port}")
        await asyncio.to_thread(answer.readline)
        begun = time.monotonic()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        answer.close()
        return time.monotonic() - begun

    # Within what the stop has for the doors, and what a busy machine adds; a tab stays open for ever.
    assert asyncio.run(stopped_after()) < 10


def test_one_reader_serves_every_tab_and_stops_with_the_last(pod: tuple[str, Door, Path]) -> None:
    url, door, _ = pod
    tabs = [stream(url) for _ in range(40)]
    for tab in tabs:
        next(events(tab))
    assert door.hub.streams >= 40
    looks: list[float] = []
    before = door.hub._look

    def counted() -> dict[str, object]:
        looks.append(1)
        return before()

    door.hub._look = counted
    try:
        next(events(tabs[0]))
        assert len(looks) < 40, "every tab has a reader of its own"
    finally:
        door.hub._look = before
        for tab in tabs:
            tab.close()
    wait_for(lambda: (door.hub.streams, door.hub._reading) == (0, None), "the last tab to be noticed")


def test_an_output_is_shown_and_nothing_else_is(running: ComfyUI, pod: tuple[str, Door, Path]) -> None:
    url = pod[0]
    name = "<img src=x onerror=alert(1)>.png"
    (running.output / name).write_bytes(b"picture")
    (running.output / "page.html").write_text("<script>alert(1)</script>")
    (running.base / "input").mkdir(exist_ok=True)
    (running.base / "input/secret.png").write_bytes(b"secret")
    status, text, answer = get(f"{url}/output/{urllib.request.quote(name)}")  # type: ignore[attr-defined]
    assert (status, text, answer.headers["Content-Type"]) == (200, "picture", "image/png")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    status, _, answer = get(f"{url}/output/page.html")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    for path in (
        "secret.png?type=input",
        "../input/secret.png",
        "%2e%2e/input/secret.png",
        "secret.png",
        "/etc/passwd",
    ):
        connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
        connection.request("GET", f"/output/{path}")
        answer = connection.getresponse()
        assert (answer.status, b"secret" in answer.read()) == (404, False), path
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Forwarded-For": "1.2.3.4"}, 403),
        ({"Cf-Ray": "1-FRA"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({}, 400),
    ],
)
def test_who_may_act_without_a_token(pod: tuple[str, Door, Path], headers: dict[str, str], status: int) -> None:
    # 400: it is let in, and there is no supervisord here that could restart anything.
    assert get(f"{pod[0]}/actions/restart", {**headers, "Accept": "application/json"}, b"name=comfyui")[0] == status
    assert get(f"{pod[0]}/actions/restart", headers)[0] == 405


def test_metrics_are_read_by_the_librarys_own_parser(running: ComfyUI, tmp_path: Path) -> None:
    run_dir = run_folder(tmp_path, running.url)
    (tmp_path / "state/sync.json").write_text(
        json.dumps({"uploaded_bytes": 500, "waiting_since": 1.0, "failures_by_kind": {"keys": 3}, "backlog_files": 2})
    )
    with served(run_dir) as (url, door):
        door.metrics.ended(Job("1", True, 1.0, 42.0, "", False, ()))
        text, answer = get(f"{url}/metrics")[1:]
    assert answer.headers["Content-Type"].startswith("text/plain")
    found = {
        (s.name, *sorted(s.labels.values())): s.value for m in text_string_to_metric_families(text) for s in m.samples
    }
    assert found["hearmeman_sync_bytes_total",] == 500
    assert found["hearmeman_sync_failures_total", "keys"] == 3
    assert found["hearmeman_sync_lag_seconds",] > 1e9
    assert found["hearmeman_comfyui_job_seconds_bucket", "60.0", "ok"] == 1
    # A rate cannot tell that a series appeared with its first job.
    assert found["hearmeman_comfyui_job_seconds_count", "failed"] == 0
    assert found["hearmeman_comfyui_queue", "waiting"] == 0
    assert sum(value for (name, *_), value in found.items() if name == "hearmeman_state") == 1


def test_every_metric_is_in_the_docs_and_in_no_other_spelling_on_the_dashboard(pod: tuple[str, Door, Path]) -> None:
    docs = (ROOT / "docs/metrics.md").read_text()
    dashboard = (ROOT / "docs/grafana.json").read_text()
    families = {m.name for m in text_string_to_metric_families(get(f"{pod[0]}/metrics")[1])}
    assert [name for name in families if name not in docs] == []
    json.loads(dashboard)
    named = set(re.findall(r"hearmeman_[a-z_]+", dashboard))
    known = set(re.findall(r"hearmeman_[a-z_]+", docs))
    assert named - {f"{name}{end}" for name in known for end in ("", "_total", "_bucket", "_count", "_sum")} == set()
