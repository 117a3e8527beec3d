"""NOTIFY_URL: what is said and when, in the form that each receiver reads, and never with a secret."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fakes.serving import Handler, Host
from hearmeman import redact
from hearmeman.idle.rules import Limits, Look
from hearmeman.idle.watch import Orders, Watch, World
from hearmeman.page.notify import Message, News, Notifier, request
from hearmeman.state_file import read_json, write_json
from support.waiting import PATIENCE

FOUND: dict[str, Any] = {
    "boot": {"pod": "p1"},
    "state": {"word": "starting"},
    "phases": {"comfyui_ready": 42.0},
    "problems": [],
    "comfyui": {"answers": True, "running": None, "waiting": 0, "ended": 0, "failed": 0},
    "idle": {},
}


def comfyui(**changes: object) -> dict[str, Any]:
    return {**FOUND, "comfyui": {**FOUND["comfyui"], **changes}}


def events(news: News, found: dict[str, Any], now: float) -> list[str]:
    return [message.event for message in news.look(found, now)]


def test_ready_is_said_once() -> None:
    news = News()
    assert events(news, FOUND, 0) == []
    ready = {**FOUND, "state": {"word": "ready"}}
    (message,) = news.look(ready, 1)
    assert (message.event, message.text) == ("ready", "ComfyUI on p1 is ready 42 s after its start.")
    assert events(news, FOUND, 2) == events(news, ready, 3) == []


def test_a_failure_is_said_when_it_begins_and_not_again_while_it_flaps() -> None:
    news = News()
    broken = {**FOUND, "problems": [{"level": "error", "what": "sync: it ended", "fix": "restart it"}]}
    assert events(news, broken, 0) == ["failed"]
    assert events(news, broken, 4) == events(news, FOUND, 8) == events(news, broken, 12) == []
    assert events(news, FOUND, 700) == []
    assert events(news, broken, 704) == ["failed"]


def test_a_batch_is_over_when_nothing_ran_for_a_while() -> None:
    news = News()
    assert events(news, comfyui(running={"id": "1"}, waiting=2), 0) == []
    assert events(news, comfyui(ended=1), 2) == []
    assert events(news, comfyui(running={"id": "2"}, ended=1), 4) == []
    assert events(news, comfyui(ended=3, failed=1), 8) == []
    (message,) = news.look(comfyui(ended=3, failed=1), 12)
    assert (message.event, message.text, message.urgent) == ("batch_done", "3 jobs ended in 4 s, 1 failed.", True)
    # One short job is no batch.
    news.look(comfyui(running={"id": "4"}, ended=3), 20)
    assert events(news, comfyui(ended=4), 40) == []


def idle(folder: Path, used: float) -> dict[str, Any]:
    """What the idle watch itself writes at second 600 of a pod that was used last at `used`, and may idle for 600."""
    write_json(folder / "clock.json", {"boot_id": "", "started": 1.0, "used": used})
    world = World(Look, lambda action: None, lambda: 600.0, lambda: 900.0, lambda _: True)
    Watch(Orders(Limits(600.0, 0.0), "stop", folder, folder, False), world).step()
    return {**FOUND, "idle": read_json(folder / "idle.json")}


def test_a_stop_is_said_once_before_it_comes_and_again_when_it_comes_again(tmp_path: Path) -> None:
    news, near, far = News(), idle(tmp_path, 100.0), idle(tmp_path, 600.0)
    assert (near["idle"]["warns"], far["idle"]["warns"]) == (True, False)
    assert events(news, far, 300) == []
    (message,) = news.look(near, 880)
    assert message.text == "p1 stops in 2 min unless it is used: nobody used it for 10 minutes."
    assert [events(news, found, now) for found, now in ((near, 884), (far, 890), (near, 990))] == [
        [],
        [],
        ["idle_stop"],
    ]


def test_the_words_hold_no_secret_and_no_control_characters() -> None:
    with redact.guarded_streams():
        redact.learn({"HF_TOKEN": "hf_planted-secret"})
        message = Message("failed", "x", "\x1b[31mhf_planted-secret\x1b[0m")
        for url in ("https://hooks.example/T0/secret", "ntfys://ntfy.example/topic"):
            assert "planted" not in str(request(url, message, "p1", 0.0)[1:])
            assert "\x1b" not in str(request(url, message, "p1", 0.0)[1:])


class Receiver(Handler):
    """Takes messages; the first is answered with 503."""

    bodies: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.bodies.append((dict(self.headers), body))
        self.send(503 if len(self.bodies) == 1 else 200, {})


def test_it_arrives_at_a_webhook_and_at_ntfy_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hearmeman.page.notify._TRIES", (0.0, 0.0))
    Receiver.bodies = []
    message = Message("ready", "p1 is ready", "ComfyUI can be used.")

    async def found() -> dict[str, Any]:
        return FOUND

    with Host([(Receiver, 0)]) as host:
        address = host.address() + "/secret-topic"
        assert asyncio.run(Notifier(address, "p1", found).send(message))
        assert asyncio.run(Notifier(address.replace("http", "ntfy"), "p1", found).send(message))
    assert asyncio.run(Notifier(address, "p1", found).send(message)) is False
    told = json.loads(Receiver.bodies[1][1])
    assert (told["event"], told["pod"], told["message"]) == ("ready", "p1", "ComfyUI can be used.")
    assert told["text"] == told["content"]
    headers, body = Receiver.bodies[2]
    assert (headers["Title"], body) == ("p1 is ready", b"ComfyUI can be used.")
    assert "secret-topic" not in capsys.readouterr().err


class Hanging(Handler):
    """Takes a message and says nothing."""

    asked: ClassVar[list[str]] = []
    free: ClassVar[threading.Event] = threading.Event()

    def answer(self) -> None:
        self.asked.append(self.path)
        self.free.wait(PATIENCE)


def test_a_receiver_that_hangs_holds_up_neither_the_looks_nor_the_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Notifier, "LOOK_SECONDS", 0.01)
    looks = 0

    async def found() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        return {**FOUND, "state": {"word": "ready"}}

    async def watched(url: str) -> float:
        watching = asyncio.create_task(Notifier(url, "p1", found).watch())
        async with asyncio.timeout(PATIENCE):
            while not Hanging.asked or looks < 20:
                await asyncio.sleep(0.01)
        begun = time.monotonic()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        return time.monotonic() - begun

    Hanging.asked, Hanging.free = [], threading.Event()
    with Host([(Hanging, 0)]) as host:
        try:
            assert asyncio.run(watched(host.address() + "/secret-topic")) < 10
        finally:
            Hanging.free.set()
    assert len(Hanging.asked) == 1, "ready is said once"
    assert "secret-topic" not in capsys.readouterr().err


class Refusing(Handler):
    """Wants nothing of this."""

    asked: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.asked.append(self.path)
        self.send(404, {})


def test_a_receiver_that_refuses_is_not_asked_again_and_a_look_that_fails_ends_no_later_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Notifier, "LOOK_SECONDS", 0.01)
    looks = 0

    async def found() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise OSError("the run folder cannot be read")
        return {**FOUND, "state": {"word": "ready"}}

    async def watched(url: str) -> None:
        watching = asyncio.create_task(Notifier(url, "p1", found).watch())
        async with asyncio.timeout(PATIENCE):
            while not Refusing.asked or looks < 20:
                await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    Refusing.asked = []
    with Host([(Refusing, 0)]) as host:
        asyncio.run(watched(host.address() + "/secret-topic"))
    assert len(Refusing.asked) == 1
    said = capsys.readouterr().err
    assert "notify.look_failed" in said and "secret-topic" not in said
    assert 'means="check NOTIFY_URL"' in said
    Receiver.bodies = [({}, b"an earlier one")]
    with Host([(Receiver, 0)]) as host:
        assert asyncio.run(Notifier(host.address(), "p1", found).send(Message("ready", "p1", "It is ready.")))
