"""A pod ends itself when nobody uses it or its time is over, warns before, and never because of an old count."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.runpod import KEY, RunPod
from hearmeman.cli import main
from hearmeman.idle import rest
from hearmeman.idle.activity import Activity, Places, measures, to_send
from hearmeman.idle.rules import Clock, Limits, Look, judge, moved
from hearmeman.idle.watch import Orders, Watch, World
from hearmeman.status import collect
from support.ctrl_c import ctrl_c
from support.ports import free_port

BODY = {"name": "p", "image": "r/i@sha256:" + "0" * 64, "gpu": {"id": "NVIDIA L40S", "count": 1}}


class Time:
    """A clock that moves when somebody sleeps; what is planned for a time happens then."""

    def __init__(self, until: float = 10_000) -> None:
        self.now, self.until = 1000.0, 1000.0 + until
        self.planned: list[tuple[float, Callable[[], None]]] = []

    def sleep(self, seconds: float) -> bool:
        self.now += seconds
        for one in [one for one in self.planned if one[0] <= self.now - 1000]:
            self.planned.remove(one)
            one[1]()
        return self.now >= self.until


@dataclasses.dataclass
class Case:
    """A pod on the loopback RunPod, with a watch."""

    runpod: RunPod
    folder: Path
    time: Time = dataclasses.field(default_factory=Time)
    seen: Look = dataclasses.field(default_factory=Look)
    asked: list[float] = dataclasses.field(default_factory=list)
    clocks: list[bool] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.pod = self.runpod.made(BODY, "RUNNING")

    def watch(self, idle: float = 0, longest: float = 0, action: str = "stop", boot: str = "b", **more: Any) -> Watch:
        orders = Orders(Limits(idle, longest), action, self.folder, self.folder, more.get("network", False), boot)
        return Watch(orders, World(lambda: self.seen, self._act, lambda: self.time.now, lambda: 5e9, self._sleep))

    def _act(self, action: str) -> None:
        self.asked.append(self.time.now - 1000)
        self.clocks.append((self.folder / "clock.json").exists())
        rest.act(self.runpod.url, self.pod, KEY, action)

    def _sleep(self, seconds: float) -> bool:
        # RunPod ends the container of a pod that is stopped.
        return self.time.sleep(seconds) or not self.runpod.live

    def write(self, name: str, **content: object) -> None:
        (self.folder / name).write_text(json.dumps(content))

    @property
    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "idle.json").read_text())
        return found

    @property
    def status(self) -> str:
        return self.runpod.pods[self.pod].status


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with RunPod() as runpod:
        yield Case(runpod, tmp_path)
        assert runpod.invalid == []


@pytest.mark.parametrize(("action", "ends"), [("stop", "EXITED"), ("terminate", "TERMINATED")])
def test_an_unused_pod_is_ended_and_its_count_is_cleared_before(case: Case, action: str, ends: str) -> None:
    case.watch(idle=600, action=action).run()
    assert case.status == ends
    assert 600 <= case.asked[0] < 630
    assert case.clocks == [False]


def test_a_resumed_pod_begins_its_count_anew(case: Case) -> None:
    case.watch(longest=600).run()
    assert case.status == "EXITED"
    case.runpod.pods[case.pod].status = "RUNNING"
    case.time = Time()
    case.time.now = 1000.0 + 90_000
    assert case.watch(longest=600).step().seconds_left == 600


def test_a_restart_of_the_process_goes_on_counting_and_another_machine_does_not(case: Case) -> None:
    case.watch(longest=600).step()
    case.time.now += 400
    assert case.watch(longest=600).step().seconds_left == 200
    assert case.watch(longest=600, boot="other").step().seconds_left == 600


def test_a_pod_in_use_runs_until_its_longest_time(case: Case) -> None:
    case.seen = Look(("a job of ComfyUI",))
    case.watch(idle=60, longest=3600).run()
    assert 3600 <= case.asked[0] < 3630


def test_a_use_puts_the_stop_off(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.time.planned = [(550, lambda: setattr(case, "seen", Look((), {"a job of ComfyUI": 1})))]
    case.seen = Look((), {"a job of ComfyUI": 0})
    case.watch(idle=600).run()
    assert case.asked[0] >= 1150
    log = capsys.readouterr().err
    assert log.count("idle.warning") == 2
    assert 'idle.in_use what="a job of ComfyUI"' in log


def test_a_person_is_warned_five_minutes_before(case: Case) -> None:
    watch = case.watch(idle=1200)
    watch.step()
    assert not case.shown["warns"]
    case.time.now += 901
    watch.step()
    assert case.shown["warns"]
    told = "the pod is stopped in 4 min 59 s: nobody used it for 20 minutes; use it to postpone that"
    assert collect.ending(case.shown, 5e9) == [told]
    assert collect.countdown(case.shown, 5e9) == "stops in 4 min 59 s unless it is used"
    assert collect.countdown(case.shown, 5e9 + 60) == "stops in 3 min 59 s unless it is used"


def test_a_stop_that_runpod_refuses_is_tried_again_and_reported(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.runpod.key = "another"
    problems: list[str] = []
    case.time.planned = [
        (700, lambda: problems.append(case.shown["problem"])),
        (900, lambda: setattr(case.runpod, "key", KEY)),
    ]
    case.watch(idle=600).run()
    assert case.status == "EXITED"
    pauses = [after - before for before, after in zip(case.asked, case.asked[1:], strict=False)]
    assert pauses[:3] == [10, 30, 60]
    assert "401" in problems[0] and "costs money" in problems[0]
    assert KEY not in capsys.readouterr().err


def test_a_pod_that_can_only_be_terminated_is_so_as_the_refusal_advises(case: Case) -> None:
    case.runpod.actions.extend(["409"] * 9)
    problems: list[str] = []
    case.time.planned = [(700, lambda: problems.append(case.shown["problem"]))]
    case.time.until = 1800
    case.watch(idle=600).run()
    assert case.status == "RUNNING"
    [action] = re.findall(r"can only be terminated: set IDLE_ACTION=(\w+)", problems[0])
    case.runpod.actions.clear()
    case.time.until = 10_000
    case.watch(idle=600, action=action).run()
    assert case.status == "TERMINATED"


def test_outputs_on_their_way_are_sent_before_the_stop(case: Case) -> None:
    case.write("sync.json", backlog_files=3, failing_files=0)
    case.time.planned = [(700, lambda: case.write("sync.json", backlog_files=0))]
    case.watch(longest=600, action="terminate").run()
    assert case.status == "TERMINATED"
    assert case.asked[0] >= 700


@pytest.mark.parametrize(("network", "ends"), [(False, "EXITED"), (True, "TERMINATED")])
def test_a_pod_with_outputs_that_cannot_be_sent_is_not_deleted_with_them(case: Case, network: bool, ends: str) -> None:
    case.write("sync.json", backlog_files=3, failing_files=3)
    case.watch(idle=600, action="terminate", network=network).run()
    assert case.status == ends


def test_a_process_that_is_ended_leaves_no_count(case: Case) -> None:
    case.time.until = 1100
    case.watch(idle=6000).run()
    assert case.asked == []
    assert not (case.folder / "clock.json").exists()


@given(
    idle=st.floats(0, 1e6),
    longest=st.floats(1, 1e6),
    started=st.floats(0, 1e6),
    more=st.floats(0, 1e6),
    now=st.floats(0, 1e6),
)
def test_no_pod_outlives_its_longest_time(idle: float, longest: float, started: float, more: float, now: float) -> None:
    verdict = judge(Limits(idle, longest), Clock(started, started + more), started + longest + now + 1)
    assert verdict.due and verdict.warn


def test_a_counter_that_moved_between_two_looks_is_a_use_and_the_first_look_is_none() -> None:
    assert moved(None, Look((), {"x": 1})) == ()
    assert moved(Look((), {"x": 1}), Look((), {"x": 2})) == ("x",)
    assert moved(Look((), {}), Look((), {"x": 2})) == ()


class _Parts(BaseHTTPRequestHandler):
    answers: dict[str, object]
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        self.asked.append(self.path)
        found = self.answers.get(self.path.partition("?")[0])
        body = found.encode() if isinstance(found, str) else json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def parts() -> Iterator[tuple[str, type[_Parts]]]:
    bound = type("Bound", (_Parts,), {"answers": {}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", bound
    server.shutdown()
    server.server_close()


def test_jobs_speech_sessions_fetches_and_uploads_are_uses(parts: tuple[str, type[_Parts]], tmp_path: Path) -> None:
    url, server = parts
    (tmp_path / "dev").mkdir()
    places = Places(url, {"xtts": url}, url, "t", tmp_path, tmp_path / "proc", tmp_path / "dev")
    activity = Activity(places, 600, wall=lambda: 1000.0)
    quiet = {"/prompt": {"exec_info": {"queue_remaining": 0}}, "/history": {}, "/metrics": "voice_in_flight 0.0\n"}
    server.answers |= {**quiet, "/api/status": {"connections": 0, "last_activity": "a"}}
    assert activity.look().uses == ()
    first = activity.look()
    server.answers |= {"/history": {"id": {}}, "/metrics": "voice_characters_total 5.0\n"}
    server.answers["/api/status"] = {"connections": 0, "last_activity": "b"}
    (tmp_path / "dev/3").touch()
    names = {"a job of ComfyUI", "a request to xtts", "a JupyterLab session", "a terminal"}
    assert set(moved(first, activity.look())) == names
    server.answers |= {"/prompt": {"exec_info": {"queue_remaining": 1}}, "/metrics": "voice_waiting 1.0\n"}
    server.answers["/api/status"] = {"connections": 1, "last_activity": "b"}
    (tmp_path / "models.json").write_text(json.dumps({"state": "fetching", "updated": 990}))
    (tmp_path / "sync.json").write_text(json.dumps({"backlog_files": 2, "pid": 8}))
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/8").mkdir()
    (tmp_path / "proc/8/cmdline").write_bytes(b"python\0-m\0hearmeman\0sync\0")
    (tmp_path / "proc/7/cmdline").write_bytes(b"sshd: root@notty\0\0")
    names = (names - {"a terminal"}) | {"an SSH session", "a model fetch", "an upload"}
    assert set(activity.look().uses) == names
    assert all("no_track_activity=1" in path for path in server.asked if path.startswith("/api/status"))


def test_what_only_knocks_died_or_fails_is_no_use(tmp_path: Path) -> None:
    places = Places("http://127.0.0.1:9", {}, "", "", tmp_path, tmp_path / "proc", tmp_path)
    activity = Activity(places, 600, wall=lambda: 1000.0)
    (tmp_path / "proc/7").mkdir(parents=True)
    (tmp_path / "proc/7/cmdline").write_bytes(b"sshd: root [priv]\0")
    (tmp_path / "models.json").write_text(json.dumps({"state": "fetching", "updated": 100}))
    (tmp_path / "sync.json").write_text(json.dumps({"backlog_files": 2, "failing_files": 2, "uploading": 1, "pid": 7}))
    assert activity.look().uses == ()
    # What a sync of an earlier start left on the volume, whose pid is another's now.
    (tmp_path / "sync.json").write_text(json.dumps({"backlog_files": 2, "pid": 7}))
    assert activity.look().uses == ()
    assert to_send({"backlog_files": 5, "problem": "the bucket refuses"}) == 0


def test_a_part_that_takes_questions_and_answers_none_is_busy_for_a_while_and_then_stuck(tmp_path: Path) -> None:
    now, port = [0.0], free_port()
    url = f"http://127.0.0.1:{port}"
    with socket.create_server(("127.0.0.1", port)):
        places = Places(url, {"xtts": url}, "", "", tmp_path, tmp_path / "proc", tmp_path / "dev")
        activity = Activity(places, 600, clock=lambda: now[0], timeout=0.1)
        names = ("ComfyUI, which is too busy to answer", "xtts, which is too busy to answer")
        assert activity.look().uses == names
        now[0] = 600.0
        assert activity.look().uses == names
        now[0] = 601.0
        assert activity.look().uses == ()
    # It was started again: the new one has time to begin.
    assert activity.look().uses == ()
    with socket.create_server(("127.0.0.1", port)):
        assert activity.look().uses == names


def test_a_comfyui_that_never_answers_does_not_keep_the_pod(case: Case, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        places = Places(url, {}, "", "", tmp_path, tmp_path / "proc", tmp_path / "dev")
        look = Activity(places, 600, clock=lambda: case.time.now, timeout=0.01).look
        (tmp_path / "sync.json").write_text(json.dumps({"backlog_files": 2, "pid": 8}))
        (tmp_path / "proc/8").mkdir(parents=True)
        (tmp_path / "proc/8/cmdline").write_bytes(b"python\0-m\0hearmeman\0sync\0")
        case.time.planned = [(900, lambda: case.write("sync.json", backlog_files=0, pid=8))]
        watch = case.watch(idle=600)
        watch._world = dataclasses.replace(watch._world, look=look)
        watch.run()
    assert case.status == "EXITED"
    # An upload that went on until 900 s, and then ten minutes of nothing.
    assert 1485 <= case.asked[0] < 1530


def test_measures_with_labels_are_left_out() -> None:
    assert measures('# HELP x\nx 1.0\ny{a="b c"} 2.0\n') == {"x": 1.0}


def test_the_key_never_travels_in_the_open() -> None:
    with pytest.raises(rest.StopError, match="not https"):
        rest.act("http://api.example", "p", KEY, "stop")


def test_the_process_asks_for_limits_and_a_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words, environ = ["idle", "--run-dir", str(tmp_path)], {"STATE_DIR": str(tmp_path / "state")}
    assert main(words, environ) == 1
    [names] = re.findall(r"no limit is set: set (\w+ or \w+)", capsys.readouterr().err)
    pod = {"RUNPOD_POD_ID": "a", "RUNPOD_API_KEY": KEY}
    before = signal.getsignal(signal.SIGTERM)
    try:
        for name in names.split(" or "):
            assert main(words, environ | {name: "9"}) == 1
            assert "RunPod gives it RUNPOD_POD_ID and RUNPOD_API_KEY" in capsys.readouterr().err
            shown = tmp_path / "idle/idle.json"
            shown.unlink(missing_ok=True)
            with ctrl_c(shown.exists, number=signal.SIGTERM):
                assert main(words, environ | pod | {name: "9"}) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
