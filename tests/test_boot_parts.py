"""Boot's parts alone: users, doors, shells, logs, host keys, the verdict on a stop, the update of nodes."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from supervisor.options import UnhosedConfigParser

from fakes.comfyui import comfyui
from hearmeman import cli, output, settings, ssh_command
from hearmeman.boot import image as boot_image
from hearmeman.boot import plan
from hearmeman.boot.doors import doors, words
from hearmeman.boot.facts import Listen
from hearmeman.boot.image import Image, ImageError, read_image
from hearmeman.boot.shell import shell_file
from hearmeman.boot.supervise import verdict
from hearmeman.boot.supervisord_conf import configuration
from hearmeman.boot.users import BARE, DOOR, FETCH, ROOT, SYNC, USERS, why_not_separate, wrapped
from hearmeman.door import collect
from hearmeman.door.auth import Lock, SlowDown, without_ours
from hearmeman.door.collect import missing_nodes
from hearmeman.door.nginx import gate_conf
from hearmeman.door.pages import local_path
from hearmeman_build import fixups
from test_boot import IMAGE, TUNING, machine

ALL_CAPS = "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"
DOCKER_CAPS = "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n"
WHOLE_MAP = "         0          0 4294967295\n"


def test_the_image_knows_our_users() -> None:
    assert {user.name: user.uid for user in USERS} == fixups.USERS


@pytest.mark.parametrize(
    ("status", "uid_map", "setpriv", "why"),
    [
        (ALL_CAPS, WHOLE_MAP, True, ""),
        (DOCKER_CAPS, WHOLE_MAP, True, ""),
        (ALL_CAPS, "0 1000 1\n", True, "too few users"),
        (ALL_CAPS, "0 100000 65536\n", True, ""),
        ("Uid:\t1000\t1000\nCapEff:\t0\n", WHOLE_MAP, True, "does not run as root"),
        ("Uid:\t0\t0\nCapEff:\t0000000000000000\n", WHOLE_MAP, True, "lacks the capabilities chown"),
        (ALL_CAPS, WHOLE_MAP, False, "setpriv is not installed"),
        ("", "", True, "does not run as root"),
    ],
)
def test_whether_processes_can_have_users_of_their_own(status: str, uid_map: str, setpriv: bool, why: str) -> None:
    found = why_not_separate(status, uid_map, setpriv)
    assert (why in found) if why else found == ""


def test_only_what_holds_secrets_keeps_a_capability() -> None:
    assert wrapped(["x"], ROOT) == ("x",)
    bare = " ".join(wrapped(["x"], BARE))
    assert "--bounding-set -all --no-new-privs --pdeathsig KILL x" in bare
    for user in (DOOR, SYNC, FETCH):
        assert f"--reuid {user.uid} --regid 0" in " ".join(wrapped(["x"], user))


def test_without_users_of_their_own_all_run_as_they_are_and_boot_says_so() -> None:
    made = plan.make_plan(settings.load({}), machine(not_separate="it is so"), IMAGE, TUNING, {}, "/r", "python")
    assert {process.user for process in made.processes} == {ROOT}
    assert any("could read the pod's secrets" in warning for warning in made.warnings)


KEY = "ssh-ed25519 AAAAC3Nza me"


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


def processes(environ: dict[str, str], image: Image = IMAGE, **changes: Any) -> plan.BootPlan:
    return plan.make_plan(settings.load(environ), machine(**changes), image, TUNING, environ, "/r", "python")


def test_with_a_token_comfyui_listens_inside_only() -> None:
    made = processes({"ACCESS_TOKEN": "t" * 12})
    table = {process.name: process for process in made.processes}
    assert " --listen 127.0.0.1 --port 18188 " in " ".join(table["comfyui"].argv)
    assert made.comfyui_url == "http://127.0.0.1:18188"
    assert table["door"].secrets == {"ACCESS_TOKEN": "ACCESS_TOKEN"}
    assert all("ACCESS_TOKEN" not in p.secrets for name, p in table.items() if name != "door")
    assert "gate" not in {process.name for process in processes({}).processes}


def test_jupyter_is_never_without_a_token() -> None:
    image = Image("smoke", "abc", "/p", "/m", "12.8", jupyter_python="/j")
    assert "jupyter" not in {process.name for process in processes({}, image).processes}
    made = processes({"JUPYTER_PASSWORD": "j" * 12, "RUNPOD_POD_ID": "p1"}, image)
    jupyter = next(process for process in made.processes if process.name == "jupyter")
    assert jupyter.secrets == {"JUPYTER_PASSWORD": "JUPYTER_TOKEN"}
    assert "j" * 12 not in " ".join(jupyter.argv)
    assert "--ServerApp.allow_origin=https://p1-8888.proxy.runpod.net" in jupyter.argv
    assert not any("*" in word for word in jupyter.argv)
    assert "JUPYTER_TOKEN" in made.unset
    assert "carries no JupyterLab" in (processes({"JUPYTER_PASSWORD": "j" * 12}).failed or {})["jupyter"]


def test_voices_are_data() -> None:
    image = Image("consumer", "abc", "/p", "/m", "12.8", services={"xtts": ("/x", "--at", "{host}:{port}")})
    table = {process.name: process for process in processes({"ENABLE_XTTS": "true"}, image).processes}
    assert table["xtts"].argv == ("/x", "--at", "127.0.0.1:8020")
    assert table["xtts"].user is BARE
    gated = {"ENABLE_XTTS": "true", "ACCESS_TOKEN": "t" * 12, "ENABLE_CHATTERBOX": "true"}
    made = processes(gated, image)
    assert {p.name: p.argv for p in made.processes}["xtts"] == ("/x", "--at", "127.0.0.1:18020")
    assert "carries no chatterbox" in (made.failed or {})["chatterbox"]
    assert [door.service for door in made.doors] == ["ComfyUI", "status page", "XTTS"]


def test_a_taken_port_of_a_side_door_stops_only_that() -> None:
    listens = (Listen("0.0.0.0", 8188, ""), Listen("0.0.0.0", 22, "taken", "SSH_PORT", False))
    made = processes({"PUBLIC_KEY": KEY}, listens=listens)
    assert "sshd" not in {process.name for process in made.processes}
    assert (made.failed or {})["sshd"] == "SSH_PORT=22: another process listens there: set another port"


def test_persistent_storage_needs_a_volume() -> None:
    with pytest.raises(plan.BootError, match="STORAGE_MODE=persistent, and nothing is mounted at /workspace"):
        processes({"STORAGE_MODE": "persistent"}, volume_is_mount=False)
    assert not any("no volume" in w for w in processes({"STORAGE_MODE": "ephemeral"}, volume_is_mount=False).warnings)


def test_a_gpu_that_cannot_run_the_image_is_told_before_anything_starts() -> None:
    tuning = dataclasses.replace(TUNING, problems=("this host's NVIDIA driver runs CUDA up to 12.4",))
    with pytest.raises(plan.BootError, match="CUDA up to 12.4"):
        plan.make_plan(settings.load({}), machine(), IMAGE, tuning, {}, "/r", "python")


def test_a_person_s_command_has_the_secrets_of_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "env").mkdir()
    held = {"R2_ACCESS_KEY_ID": "held", "PATH": "/x", "R2_BUCKET": "b"}
    (tmp_path / "env" / "sync.json").write_text(json.dumps(held))
    monkeypatch.setattr(boot_image, "RUN_DIR", tmp_path)
    assert cli._environ("upload", {"A": "1"}) == {"A": "1", "R2_ACCESS_KEY_ID": "held"}
    assert cli._environ("upload", {"R2_ACCESS_KEY_ID": "own"}) == {"R2_ACCESS_KEY_ID": "own"}
    assert cli._environ("status", {"A": "1"}) == {"A": "1"}
    assert cli._environ("models", {"A": "1"}) == {"A": "1"}


def test_nodes_are_updated_before_comfyui_starts() -> None:
    made = processes({"UPDATE_NODES_ON_START": "true"}, volume_repositories=("/workspace/ComfyUI/custom_nodes/A",))
    table = {process.name: process for process in made.processes}
    assert table["comfyui"].after == ("nodes",)
    assert table["nodes"].user is BARE
    assert any("nothing to update" in warning for warning in processes({"UPDATE_NODES_ON_START": "true"}).warnings)


ANYTHING = st.fixed_dictionaries(
    {},
    optional={
        "ACCESS_TOKEN": st.just("planted-gate-token"),
        "JUPYTER_PASSWORD": st.just("planted-jupyter-token"),
        "HF_TOKEN": st.just("planted-hf"),
        "RUNPOD_API_KEY": st.just("planted-runpod"),
        "MY_OWN_SECRET": st.just("planted-unknown"),
        "HIDDEN_COPY": st.just("x planted-gate-token y"),
        "ENABLE_R2_SYNC": st.sampled_from(["true", "false"]),
        "R2_ENDPOINT": st.just("https://r2.example"),
        "R2_ACCESS_KEY_ID": st.just("planted-r2-id"),
        "R2_SECRET_ACCESS_KEY": st.just("planted-r2-key"),
        "ENABLE_XTTS": st.sampled_from(["true", "false"]),
        "ENABLE_CHATTERBOX": st.sampled_from(["true", "false"]),
        "UPDATE_NODES_ON_START": st.sampled_from(["true", "false"]),
        "WAIT_FOR_MODELS": st.sampled_from(["true", "false"]),
        "PUBLIC_KEY": st.sampled_from([KEY, "no key"]),
        "STOP_SECONDS": st.floats(1, 600).map(str),
        "SYNC_DRAIN_SECONDS": st.floats(0, 600).map(str),
        "COMFYUI_HOST": st.sampled_from(["0.0.0.0", "127.0.0.1", "0.0.0.0,::"]),
        "VOLUME_DIR": st.sampled_from(["/workspace", "/with space", "/per%cent ;semi #hash"]),
    },
)


@given(environ=ANYTHING, separate=st.booleans(), has_voices=st.booleans())
def test_whatever_is_asked_for_the_plan_holds_together(
    environ: dict[str, str], separate: bool, has_voices: bool
) -> None:
    if "ACCESS_TOKEN" not in environ:
        environ = {name: value for name, value in environ.items() if name != "HIDDEN_COPY"}
    given_settings, left, failed = settings.load_for_boot(environ)
    services = {"xtts": ("/x", "{port}"), "chatterbox": ("/c", "{port}")} if has_voices else {}
    image = Image("smoke", "abc", "/p", "/m", "12.8", jupyter_python="/j", services=services)
    here = machine(not_separate="" if separate else "so", volume_repositories=("/a",))
    made = plan.make_plan(given_settings, here, image, TUNING, left, "/r", "python", failed)
    names = [process.name for process in made.processes]
    assert len(names) == len(set(names))
    assert {"comfyui", "models", "door"} <= set(names)
    for process in made.processes:
        assert {*process.after, *process.needs} <= set(names) - {process.name}
        assert process.stop_seconds > 0
    # No secret in a command, a plain environment or a shell; each is given to one process at most.
    text = str([(p.argv, p.env) for p in made.processes]) + shell_file(made.shell or {}, made.unset)
    assert "planted" not in text
    owners = [name for process in made.processes for name in process.secrets]
    assert len(owners) == len(set(owners))
    assert set(owners) | set(made.withheld) >= {name for name, value in environ.items() if "planted" in value} - {
        "R2_ENDPOINT"
    }
    # The whole stop fits the budget, stage after stage.
    stages = {process.stop_stage for process in made.processes}
    whole = sum(max(p.stop_seconds for p in made.processes if p.stop_stage == stage) for stage in stages)
    assert whole <= made.stop_seconds
    # With a token, nothing but JupyterLab and SSH answers without the gate.
    if "ACCESS_TOKEN" in environ:
        assert {door.guard for door in made.doors} <= {"gate", "token", "keys"}
        assert "gate" in names
    parser = UnhosedConfigParser()
    parser.read_string(configuration(made, Path("/r"), Path("/l"), "python", 1.0, "pw", True))
    for process in made.processes:
        assert shlex.split(parser.saneget(f"program:{process.name}", "command"))[-1] == process.argv[-1]


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


@given(st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True), st.text(min_size=1), max_size=4))
def test_a_shell_reads_back_what_was_written(environ: dict[str, str]) -> None:
    clean = {f"X{name}": value.replace("\x00", "").replace("\r", "") for name, value in environ.items()}
    clean = {name: value for name, value in clean.items() if value.isprintable() or "\n" in value}
    text = shell_file(clean, ["SECRET", "not a name"])
    script = text + 'printf "%s" "$SECRET"; for n in "$@"; do printf "%s\\0" "${!n}"; done'
    command = ["bash", "--norc", "-c", script, "bash", *clean]
    done = subprocess.run(command, env={"SECRET": "s", "LC_ALL": "C.UTF-8"}, capture_output=True, check=True)
    assert done.stdout.decode("utf-8", "surrogateescape").split("\x00")[:-1] == [
        value.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape") for value in clean.values()
    ]


def test_the_verdict_on_a_stop() -> None:
    clean = {"name": "comfyui", "exit": -15, "killed": False}
    assert verdict([clean, {"name": "sync", "exit": 0}]) == (0, [])
    code, told = verdict([{**clean, "killed": True}, {"name": "sync", "exit": 3}])
    assert code == 3
    assert told[0] == "comfyui did not stop in time and was killed"
    assert told[1].startswith("sync ended with 3")


def test_logs_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "LOG_BYTES", 100)
    written = output.Output("p", tmp_path / "p.log")
    for number in range(60):
        written.write(f"line {number:02}".encode())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["p.log", "p.log.1", "p.log.2", "p.log.3"]
    assert "line 59" in (tmp_path / "p.log").read_text()
    assert all(path.stat().st_size <= 108 for path in tmp_path.iterdir())
    text = "".join((tmp_path / name).read_text() for name in reversed(names))
    kept = [int(line.split()[1]) for line in text.splitlines()]
    assert kept == list(range(kept[0], 60)), "nothing is lost between the files"


def test_a_host_key_is_made_once(tmp_path: Path) -> None:
    key = ssh_command.host_key(tmp_path / "ssh")
    content = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    assert ssh_command.host_key(tmp_path / "ssh").read_bytes() == content
    if os.geteuid() == 0:
        assert key.stat().st_uid == DOOR.uid
    (tmp_path / "file").write_text("")
    with pytest.raises(ssh_command.SshError, match="cannot be made"):
        ssh_command.host_key(tmp_path / "file" / "ssh")


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
    assert lock.judge(headers, {"hearmeman": lock.session(0)}, 1).passes is passes
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


@pytest.mark.parametrize(
    "wrong", [{"services": {"xtts": "run"}}, {"services": {"xtts": []}}, {"silent_nodes": "a"}, {"jupyter_python": 1}]
)
def test_an_image_s_wrong_table_is_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    facts = {"tier": "smoke", "comfyui_rev": "r", "comfyui_python": "p", "comfyui_main": "m", "cuda_floor": "12.8"}
    path = tmp_path / "image.json"
    path.write_text(json.dumps({**facts, **wrong}))
    with pytest.raises(ImageError, match=next(iter(wrong))):
        read_image(path)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_nodes_on_the_volume_are_pulled_and_failures_leave_them_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream, nodes = tmp_path / "upstream", tmp_path / "volume/ComfyUI/custom_nodes"
    upstream.mkdir()
    nodes.mkdir(parents=True)
    git(upstream, "init", "-q", "-b", "main")
    git(upstream, "commit", "-q", "--allow-empty", "-m", "one")
    for name in ("behind", "changed", "gone"):
        git(tmp_path, "clone", "-q", str(upstream), str(nodes / name))
    (nodes / "plain").mkdir()
    (nodes / "changed" / "mine").write_text("x")
    git(nodes / "changed", "add", "mine")
    git(nodes / "changed", "commit", "-q", "-m", "mine")
    mine = git(nodes / "changed", "rev-parse", "HEAD")
    git(nodes / "gone", "remote", "set-url", "origin", str(tmp_path / "nowhere"))
    git(upstream, "commit", "-q", "--allow-empty", "-m", "two")
    environ = {"VOLUME_DIR": str(tmp_path / "volume"), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert cli.main(["nodes", "update"], environ) == 3
    said = capsys.readouterr().err
    assert "node.updated name=behind" in said
    assert "node.failed name=gone" in said
    assert "node.failed name=changed" in said
    assert "2 of 3 custom nodes stay as they were: changed, gone" in said
    assert git(nodes / "behind", "rev-parse", "HEAD") == git(upstream, "rev-parse", "HEAD")
    assert git(nodes / "changed", "rev-parse", "HEAD") == mine
