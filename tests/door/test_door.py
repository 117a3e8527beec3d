"""The doors: who is told what, and who is let in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.comfyui import comfyui
from hearmeman import settings
from hearmeman.door.auth import Lock, SlowDown, without_ours
from hearmeman.door.nginx import gate_conf
from hearmeman.door.pages import local_path
from hearmeman.door.ports import doors, words
from hearmeman.status import collect
from hearmeman.status.collect import missing_nodes
from support.planning import KEY


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, ["8188 ComfyUI: EVERYBODY", "19123 status page: EVERYBODY"]),
        ({"ACCESS_TOKEN": "t" * 12}, ["8188 ComfyUI: whoever has ACCESS_TOKEN", "19123 status page: whoever has ACC"]),
        ({"COMFYUI_HOST": "127.0.0.1", "STATUS_HOST": "::1"}, ["8188 ComfyUI: from inside", "19123 status page: from"]),
        ({"ENABLE_XTTS": "true"}, ["8188", "19123", "8020 XTTS: from inside the pod only"]),
        ({"ENABLE_XTTS": "true", "ACCESS_TOKEN": "t" * 12}, ["8188", "19123", "8020 XTTS: whoever has ACCESS_TOKEN"]),
        (
            {"PUBLIC_KEY": KEY, "JUPYTER_PASSWORD": "j" * 12},
            ["8188", "19123", "8888 JupyterLab: whoever has JUPYTER_PASSWORD", "22 SSH: whoever has a key"],
        ),
    ],
)
def test_who_can_reach_what_in_plain_words(environ: dict[str, str], said: list[str]) -> None:
    found = words(doors(settings.load(environ)))
    assert len(found) == len(said)
    for sentence, part in zip(found, said, strict=True):
        assert sentence.startswith(part)


def test_the_gate_listens_where_it_is_told() -> None:
    text = gate_conf(doors(settings.load({"ACCESS_TOKEN": "t" * 12, "COMFYUI_HOST": "0.0.0.0,::"})), Path("/r"))
    assert "listen 0.0.0.0:8188;\n    listen [::]:8188;" in text
    assert "server 127.0.0.1:18188;" in text
    assert text.count("auth_request /_door/check;") == 2
    assert text.count("{") == text.count("}")
    assert "listen" not in gate_conf(doors(settings.load({})), Path("/r"))


@given(token=st.text(min_size=12), other=st.text(), now=st.floats(0, 4e9))
def test_a_lock_opens_for_its_own_token_only(token: str, other: str, now: float) -> None:
    lock = Lock(token.encode("utf-8", "replace").decode())
    session = lock.session(now)
    assert lock.is_session(session, now + 60)
    assert not lock.is_session(session, now + 31 * 24 * 3600)
    assert not lock.is_session(other, now)
    assert lock.fits(other) is (other == token.encode("utf-8", "replace").decode())
    assert token not in session
    for at in range(0, len(session), 7):
        changed = session[:at] + ("0" if session[at] != "0" else "1") + session[at + 1 :]
        assert not lock.is_session(changed, now)


PAGE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none", **PAGE}, True),
        ({"Sec-Fetch-Site": "cross-site", **PAGE}, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),
        ({"X-Method": "POST", "Host": "h:1", "Origin": "http://h:1"}, True),
        ({"X-Method": "POST", "Host": "h:1", "Origin": "http://h:2"}, False),
        ({"X-Method": "POST", "Host": "h:1", "Origin": "null"}, False),
        ({"X-Method": "POST", "Host": "10.0.0.1:8188", "Origin": "https://p1-8188.proxy.runpod.net"}, True),
        ({"X-Method": "GET", "X-Upgrade": "websocket", "Host": "h:1", "Origin": "https://evil.example"}, False),
        ({"X-Method": "GET", "Host": "h:1", "Origin": "https://evil.example"}, True),
    ],
)
def test_a_cookie_does_not_work_for_other_sites_pages(headers: dict[str, str], passes: bool) -> None:
    lock = Lock("t" * 12, ("p1-8188.proxy.runpod.net",))
    verdict = lock.judge(headers, {"hearmeman": lock.session(0)}, 1)
    assert (verdict.passes, verdict.why.endswith("open the pod's own page")) == (passes, not passes)
    # A token in a header is never sent by a browser on its own.
    assert lock.judge({**headers, "Authorization": "Bearer " + "t" * 12}, {}, 1).passes


def test_failures_slow_down_and_are_forgotten() -> None:
    slow = SlowDown()
    pauses = [slow.failed(float(second)) for second in range(12)]
    assert pauses[:3] == [0, 0, 0]
    assert pauses == sorted(pauses)
    assert max(pauses) == SlowDown.LONGEST
    assert slow.failed(10_000) == 0


@pytest.mark.parametrize(
    ("header", "left"),
    [
        ("", ""),
        ("hearmeman=x", ""),
        ("a=1; hearmeman=x; b=2", "a=1; b=2"),
        ("__Host-hearmeman=x;a=1;hearmeman=y;hearmeman=z", "a=1"),
        ("hearmemanx=1; xhearmeman=2", "hearmemanx=1; xhearmeman=2"),
    ],
)
def test_our_cookie_goes_no_further(header: str, left: str) -> None:
    assert without_ours(header) == left


@pytest.mark.parametrize(
    ("text", "path"),
    [("/a?b=c", "/a?b=c"), ("//x", "/"), ("/\\x", "/"), ("https://x", "/"), ("/a\nb", "/"), ("/_door/login", "/")],
)
def test_after_a_login_only_to_this_host(text: str, path: str) -> None:
    assert local_path(text) == path


def test_expected_nodes_are_looked_for_by_module() -> None:
    classes = {
        "A": {"python_module": "custom_nodes.ComfyUI-A.nodes"},
        "B": {"python_module": "nodes"},
        "C": {"python_module": "custom_nodes.websocket_image_save"},
    }
    expected = ["ComfyUI-A", "ComfyUI-B", "websocket_image_save.py"]
    assert missing_nodes(classes, expected) == ["ComfyUI-B"]


def test_readiness_is_asked_of_a_real_server(tmp_path: Path) -> None:
    with comfyui(tmp_path) as running:
        boot = {"comfyui_url": running.url, "expected_nodes": []}
        ready = collect.readiness(boot, 7)
        assert (ready.ready, ready.why) == (True, "")
        assert collect.readiness(boot, 7, ready) is ready
        lacking = collect.readiness({**boot, "expected_nodes": ["ComfyUI-X"]}, 7)
        assert not lacking.ready
        assert "answers without the nodes ComfyUI-X" in lacking.why
    gone = collect.readiness(boot, 7, ready)
    assert not gone.ready
    assert "does not answer" in gone.why
