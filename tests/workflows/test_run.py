"""The runner: a pod far away, one's own graphs, what is said of it, and how it is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fakes.comfyui import ComfyUI
from fakes.remote_pod import RemotePod, remote_pod
from fakes.serving import Stored
from fakes.web import Web
from hearmeman.cli import main
from hearmeman.errors import UsageError
from hearmeman.workflows import advice, answers, library, prepare, run_command, schema, shown
from support.fetching import Case
from support.media import film, picture, sound
from support.repository import ROOT
from support.waiting import PATIENCE, wait_for

FOLDER = ROOT / "workflows"
WORKFLOWS = library.load(FOLDER)


def words(url: str, *more: str, name: str = "smoke-image") -> list[str]:
    return ["workflows", "run", name, "--dir", str(FOLDER), "--url", url, *more]


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_pod_far_away_is_used_with_its_token(
    pod: RemotePod, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"ACCESS_TOKEN": pod.token}
    assert main(words(pod.url, "--out", str(tmp_path), "--json", "--set", "color=11"), environ) == 0
    said = capsys.readouterr()
    assert pod.token not in said.out + said.err
    steps = [event for event in events(said.out) if event["event"] == "progress"]
    assert {"node", "class_type", "step", "steps", "eta_seconds"} <= set(steps[-1]) and steps[-1]["step"] == 16
    [made] = [event for event in events(said.out) if event["event"] == "output"]
    assert Path(str(made["saved"])).read_bytes().startswith(b"\x89PNG")
    assert "GET /ws" in pod.seen


def test_a_batch_goes_to_a_pod_far_away(pod: RemotePod, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("width,color\n64,12\n65,12\n")
    command = ["workflows", "batch", "smoke-image", str(tmp_path / "jobs.csv"), "--out", str(tmp_path / "out")]
    assert main([*command, "--dir", str(FOLDER), "--url", pod.url], {"ACCESS_TOKEN": pod.token}) == 0
    assert len(list((tmp_path / "out").glob("row-*"))) == 2


def test_list_says_what_a_pod_far_away_is_ready_for(pod: RemotePod, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"ACCESS_TOKEN": pod.token}
    assert main(["workflows", "list", "--dir", str(FOLDER), "--url", pod.url, "--json"], environ) == 0
    lacks = {entry["name"]: entry["lacks"] for entry in json.loads(capsys.readouterr().out)}
    assert lacks["smoke-image"] == [] and "node KSampler" in lacks["z-image-turbo"]


@pytest.mark.parametrize(("token", "said"), [("", "requires a token"), ("wrong-token-12", "rejects this ACCESS_TOKEN")])
def test_a_wrong_token_is_said_and_nothing_is_sent(
    pod: RemotePod, token: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(pod.url), {"ACCESS_TOKEN": token}) == 1
    assert said in capsys.readouterr().err
    assert pod.seen == []


@pytest.mark.parametrize("sockets", ["refuse", "drop"])
def test_an_end_that_no_event_told_is_found(server: ComfyUI, tmp_path: Path, sockets: str) -> None:
    with remote_pod(server.url, sockets=sockets) as pod:
        environ = {"ACCESS_TOKEN": pod.token}
        color = {"refuse": 21, "drop": 22}[sockets]
        assert main(words(pod.url, "--out", str(tmp_path), "--set", f"color={color}"), environ) == 0
    assert len(list(tmp_path.rglob("*.png"))) == 1


def test_a_proxy_that_fails_for_a_moment_ends_no_run(pod: RemotePod, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), "ACCESS_TOKEN": pod.token}
    command = words(pod.url, "--json", "--set", "count=20", "--set", "color=23", "--out", str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "hearmeman", *command], env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"submitted"' in line:
            pod.failing = 3
    assert process.wait(PATIENCE) == 0
    assert len(list(tmp_path.rglob("*.png"))) == 20 and pod.failing < 3


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://pod.example:8188", "ACCESS_TOKEN would go there unencrypted"),
        ("https://any:secret@pod.example", "leave the token out of the address"),
        ("https://pod.example/?token=secret", "leave the token out of the address"),
        ("ftp://pod.example", "it takes an address like"),
        ("http://[::1", "it takes an address like"),
    ],
)
def test_an_address_that_would_leak_the_token_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        run_command.address(url, {"ACCESS_TOKEN": "the-token-of-this-pod"})
    assert "any:secret" not in str(refused.value)


def test_the_own_comfyui_is_shown_no_token() -> None:
    assert run_command.address("", {"ACCESS_TOKEN": "t" * 12, "COMFYUI_PORT": "9"}) == ("http://127.0.0.1:9", "")
    assert run_command.address("http://localhost:9", {"ACCESS_TOKEN": "t" * 12})[1] == "t" * 12


def test_ctrl_c_stops_the_run_in_comfyui(server: ComfyUI) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")}
    command = words(server.url, "--json", "--set", "count=4000", "--set", "color=24")
    process = subprocess.Popen(
        [sys.executable, "-m", "hearmeman", *command], env=environ, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert '"submitted"' in line
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and '"stopped"' in rest
    prompt_id = json.loads(line)["prompt_id"]

    def is_gone() -> bool:
        with urllib.request.urlopen(f"{server.url}/queue") as answer:
            return prompt_id not in answer.read().decode()

    # Its files would take longer than the wait.
    wait_for(is_gone, "the prompt to leave the queue")


def test_a_graph_of_ones_own_runs_by_its_path(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = json.loads((FOLDER / "smoke-image.json").read_text())
    (tmp_path / "mine.json").write_text(json.dumps(graph))
    command = words(server.url, "--out", str(tmp_path), "--set", "1.width=72", name=str(tmp_path / "mine.json"))
    assert main(command, {}) == 0
    assert len(list(tmp_path.rglob("*.png"))) == 1
    capsys.readouterr()
    assert main([*command, "--set", "1.widht=3"], {}) == 2
    assert "did you mean 1.width?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"nodes": [], "links": [], "version": 0.4}, "in the editor's format, which ComfyUI cannot run"),
        ({"prompt": {}}, "is a complete request"),
        ({}, "is empty"),
        ([], "is not a workflow"),
        ({"1": {"inputs": {}}}, "since '1' is not a node with a class_type"),
        ({"1": {"class_type": "SaveImage"}}, "since node 1 has no inputs"),
        ("", "is not JSON"),
        (None, "No such file"),
    ],
)
def test_what_is_no_graph_is_refused_with_the_way(
    tmp_path: Path, content: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert main(words("http://127.0.0.1:9", name=str(path)), {}) == 1
    assert said in capsys.readouterr().err


def test_a_node_that_the_image_lacks_names_its_pack(server: ComfyUI, tmp_path: Path) -> None:
    graph = json.loads((FOLDER / "smoke-image.json").read_text())
    nodes = schema.read(FOLDER / schema.FILE)
    graph["3"] = {"class_type": "WanVideoSampler", "inputs": {}}
    (tmp_path / "mine.json").write_text(json.dumps(graph))
    done = subprocess.run(
        [sys.executable, "-m", "hearmeman", *words(server.url, "--json", name=str(tmp_path / "mine.json"))],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    [failed] = events(done.stdout)
    assert failed["event"] == "failed" and failed["class_type"] == "WanVideoSampler"
    assert "WanVideoSampler comes with ComfyUI-WanVideoWrapper" in str(failed["message"])
    strange = answers.RefusedError("refused", "NoSuchNode")
    assert "no pack of the image has NoSuchNode" in advice.for_refusal(strange, nodes, [])


def test_image_is_the_picture_of_a_workflow(tmp_path: Path) -> None:
    path = str(picture(tmp_path))
    assert prepare.picture_setting(WORKFLOWS["wan22-i2v"], path, FOLDER) == f"image={path}"
    assert prepare.picture_setting(WORKFLOWS["steadydancer"], path, FOLDER) == f"image={path}"
    with pytest.raises(UsageError, match="takes no picture"):
        prepare.picture_setting(WORKFLOWS["z-image-turbo"], path, FOLDER)
    with pytest.raises(UsageError, match="more than one picture: give each by its name") as caught:
        prepare.picture_setting(WORKFLOWS["wan22-flf2v"], path, FOLDER)
    ways = re.findall(r"--set (\w+)=FILE", str(caught.value))
    _, files = prepare.prepared(WORKFLOWS["wan22-flf2v"], [f"{way}={path}" for way in ways], FOLDER, {})
    assert len(files) == 2


def test_a_file_of_another_kind_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("I am no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for path, said in (
        (tmp_path / "text.png", "not a kind of file"),
        (tmp_path / "empty.png", "the file is empty"),
        (tmp_path, "cannot be read"),
        (sound(tmp_path), "it takes a picture, but this is a sound"),
        (film(tmp_path), "it takes a picture, but this is a sound or video"),
    ):
        with pytest.raises(UsageError, match=said):
            prepare.prepared(WORKFLOWS["wan22-i2v"], [f"image={path}"], FOLDER, {})
    with pytest.raises(UsageError, match="it takes a video, but this is a picture"):
        prepare.prepared(WORKFLOWS["vace-v2v"], [f"video={picture(tmp_path)}"], FOLDER, {})


@pytest.mark.parametrize("kind", ["torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError", "MemoryError"])
def test_memory_that_runs_out_says_what_to_lower(kind: str) -> None:
    workflow = WORKFLOWS["wan21-t2v-14b"]
    said = advice.for_failure(answers.RunFailedError("x", "sampler", kind), workflow, library.graph(workflow))
    assert "lower frames (now 33), width (now 832) or height (now 480)" in said
    assert "the pod's disk is full" in advice.for_failure(
        answers.RunFailedError("OSError: [Errno 28] No space left on device"), workflow, {}
    )
    assert advice.for_failure(answers.RunFailedError("ValueError: x"), workflow, {}) == ""


def test_memory_that_runs_out_in_comfyui_is_advised_on(server: ComfyUI, capsys: pytest.CaptureFixture[str]) -> None:
    large = ("--set", "width=16384", "--set", "height=16384", "--set", "count=4096")
    assert main(words(server.url, *large), {}) == 1
    assert "Memory ran out: lower width (now 16384), height (now 16384) or count (now 4096)" in capsys.readouterr().err


def test_the_time_left_is_measured_from_the_second_step() -> None:
    now = 0.0
    pace = shown.Pace(lambda: now)

    def step(value: float, at: float) -> float | None:
        nonlocal now
        now = at
        return pace.eta(answers.Progress("3", "KSampler", value, 10))

    assert [step(0, 0), step(1, 60), step(2, 62), step(3, 64)] == [None, None, 16.0, 14.0]


def test_fetch_brings_what_is_missing_first(server: ComfyUI, tmp_path: Path) -> None:
    content = os.urandom(1000)
    library_folder = tmp_path / "workflows"
    library_folder.mkdir()
    for name in ("smoke-image.json", schema.FILE):
        (library_folder / name).write_bytes((FOLDER / name).read_bytes())
    index = '[[workflow]]\nname = "mine"\ntitle = "mine"\nfile = "smoke-image.json"\nmodels = ["tiny"]\n'
    (library_folder / "index.toml").write_text(index)
    with Web({"tiny.bin": Stored(content)}) as web:
        case = Case(tmp_path / "volume")
        case.volume.mkdir()
        source = {"kind": "url", "url": f"{web.url}/tiny.bin"}
        place = case.add("tiny", source, size=len(content), sha256=Stored(content).sha256)
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "python"), **case.environ(MODELS="")}
        environ |= {"HOME": str(tmp_path), "COMFYUI_PORT": str(server.port)}
        command = [
            sys.executable,
            "-m",
            "hearmeman",
            "workflows",
            "run",
            "mine",
            "--dir",
            str(library_folder),
            "--json",
        ]
        shows = [*command[:4], "show", "mine", *command[6:]]
        before = subprocess.run(shows, env=environ, capture_output=True, text=True, timeout=120)
        assert json.loads(before.stdout)["missing"] == ["tiny"], before.stderr
        done = subprocess.run([*command, "--fetch"], env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert place.read_bytes() == content
        assert [event["event"] for event in events(done.stdout)][-1] == "done"
        after = subprocess.run(shows, env=environ, capture_output=True, text=True, timeout=120)
        assert json.loads(after.stdout)["missing"] == []
        place.unlink()
        (web.files.pop("tiny.bin"))
        done = subprocess.run([*command, "--fetch"], env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and "tiny could not be fetched, so nothing was sent" in done.stderr


def test_models_are_fetched_as_show_and_run_advise(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another machine lacks is fetched there."""
    folder, content = tmp_path / "workflows", b"0" * 100
    folder.mkdir()
    for name in ("smoke-image.json", schema.FILE):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    index = '[[workflow]]\nname = "mine"\ntitle = "mine"\nfile = "smoke-image.json"\nmodels = ["tiny"]\n'
    (folder / "index.toml").write_text(index)
    case, shows = Case(tmp_path / "volume"), ["workflows", "show", "mine", "--dir", str(folder)]
    case.volume.mkdir()
    with Web({"tiny.bin": Stored(content)}) as web:
        source = {"kind": "url", "url": f"{web.url}/tiny.bin"}
        place = case.add("tiny", source, size=len(content), sha256=Stored(content).sha256)
        environ = case.environ(MODELS="")
        order = ["workflows", "run", "mine", "--dir", str(folder), "--url", server.url, "--out", str(tmp_path / "out")]
        for words, pattern in (
            (shows, "missing: tiny; fetch: hearmeman (models fetch tiny)"),
            ([*order, "--fetch"], "run `hearmeman (models fetch tiny)` there, and this without --fetch"),
        ):
            place.unlink(missing_ok=True)
            assert main(words, environ) == (0 if words == shows else 2)
            said = capsys.readouterr()
            [command] = re.findall(pattern, " ".join((said.out + said.err).split()))
            done = case.run(*command.split()[1:], MODELS="")
            assert done.code == 0 and place.read_bytes() == content, done.err
    assert main(shows, environ) == 0
    assert "all its models are here" in capsys.readouterr().out
    assert main(order, environ) == 0


def test_a_workflow_without_models_is_run_without_fetch(server: ComfyUI, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(server.url, "--fetch"), {}) == 2
    assert "leave out --fetch" in capsys.readouterr().err
    assert main(words(server.url), {}) == 0


def test_an_out_folder_that_cannot_be_written_is_said(
    server: ComfyUI, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(words(server.url, "--out", str(tmp_path / "file/below"), "--set", "color=31"), {}) == 1
    assert "cannot write to the folder given with --out" in capsys.readouterr().err
