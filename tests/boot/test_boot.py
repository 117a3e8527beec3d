"""Boot: real processes under a real supervisord, in a folder of its own."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import process as fake_process
from hearmeman import cli, settings
from hearmeman.boot import execute, plan
from hearmeman.image import Image
from hearmeman.state_file import read_json
from support.planning import IMAGE, SECRET, SYNC, TUNING, machine
from support.ports import free_port
from support.waiting import PATIENCE, wait_for

SOURCE = str(Path(cli.__file__).parents[1])


@pytest.fixture
def pod() -> Iterator["Pod"]:
    # A short path: a unix socket's name has 108 bytes.
    with tempfile.TemporaryDirectory(prefix="pod") as folder:
        made = Pod(Path(folder))
        yield made
        made.end()


class Pod:
    """A pod in a folder, with stand-ins for its processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)  # The door runs as a user of its own.
        self.run_dir = root / "run"
        self.events = root / "events"
        self.events.touch()
        self.events.chmod(0o666)
        self.port, self.status_port = free_port(), free_port()
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": SOURCE,
            "VOLUME_DIR": str(root / "volume"),
            "COMFYUI_HOST": "127.0.0.1",
            "COMFYUI_PORT": str(self.port),
            "STATUS_HOST": "127.0.0.1",
            "STATUS_PORT": str(self.status_port),
            "ENABLE_CONTROLNET": "false",
            "FAKE_EVENTS": str(self.events),
        }
        self.image = root / "image.json"
        image = Image("smoke", "abc", sys.executable, fake_process.__file__, "12.8")
        self.image.write_text(json.dumps({**dataclasses.asdict(image), "env": {"MODELS": ""}}))
        self.supervisord: subprocess.Popen[str] | None = None

    def boot_command(self, *words: str) -> list[str]:
        files = [
            "--run-dir",
            str(self.run_dir),
            "--image-file",
            str(self.image),
            "--nodes-dir",
            str(self.root / "nodes"),
        ]
        return [sys.executable, "-m", "hearmeman", "boot", *files, *words]

    def boot(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = self.boot_command(*words)
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def start(self, command: list[str]) -> None:
        out = (self.root / "out").open("w")
        self.supervisord = subprocess.Popen(command, env=self.environ, stdout=out, stderr=out, text=True)
        out.close()

    def start_planned(self, environs: dict[str, dict[str, str]]) -> None:
        """Run the real plan with stand-ins for every process; `environs` are their further variables."""
        loaded = settings.load(self.environ)
        made = plan.make_plan(loaded, machine(), IMAGE, TUNING, self.environ, str(self.run_dir), sys.executable)
        processes = tuple(
            dataclasses.replace(
                process,
                argv=(sys.executable, fake_process.__file__),
                env={**process.env, "FAKE_NAME": process.name, **environs.get(process.name, {})},
            )
            for process in made.processes
            if process.name != "owners"
        )
        started = time.clock_gettime(time.CLOCK_BOOTTIME)
        made = dataclasses.replace(made, processes=processes)
        config = execute.prepare(made, self.run_dir, self.environ, sys.executable, started)
        self.start([sys.executable, "-m", "hearmeman.boot.supervise", "-n", "-c", str(config)])

    def wait(self, done: Callable[[], Any]) -> Any:
        wait_for(done, "it", over=self._is_over, said=lambda: f"{self.said()}\n{self.happened()}")
        return done()

    def _is_over(self) -> bool:
        return self.supervisord is not None and self.supervisord.poll() is not None

    def happened(self) -> list[str]:
        return [text.split(" ", 1)[1] for text in self.events.read_text().splitlines()]

    def times(self, event: str) -> list[float]:
        return [float(text.split()[0]) for text in self.events.read_text().splitlines() if text.endswith(event)]

    def said(self) -> str:
        return (self.root / "out").read_text()

    def pid(self, name: str) -> int:
        """The process's own word that it has started may come before its wrapper's."""
        return int(self.wait(lambda: read_json(self.run_dir / "keep" / f"{name}.json").get("pid")))

    def end(self) -> int:
        if self.supervisord is None:
            return 0
        self.supervisord.send_signal(signal.SIGTERM)
        return self.supervisord.wait(PATIENCE)


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_plan_starts_and_writes_nothing(pod: Pod) -> None:
    done = pod.boot("--plan")
    assert done.returncode == 0, done.stderr
    assert "process    comfyui" in done.stdout
    assert "no GPU found" in done.stdout
    pod.environ["HF_TOKEN"] = "hf-secret"
    done = pod.boot("--plan", "--json")
    assert json.loads(done.stdout)["plan"]["processes"][0]["name"] == "comfyui"
    assert "hf-secret" not in done.stdout
    assert not pod.run_dir.exists()
    assert not (pod.root / "volume").exists()


def test_a_command_runs_in_place_of_the_pod_with_its_options(pod: Pod) -> None:
    done = pod.boot("sh", "-c", "echo $0; exit 7", "--plan")
    assert (done.returncode, done.stdout) == (7, "--plan\n"), done.stderr
    assert not pod.run_dir.exists()
    for words, said in ((["workr"], "workr"), (["worker", "--plan"], "put options before it")):
        done = pod.boot(*words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    assert pod.boot("--plan", "worker").returncode == 0


def test_bad_settings_and_arguments_are_told_together(pod: Pod) -> None:
    pod.environ |= {"COMFYUI_PORT": "x", "GPU_TIER": "huge", "COMFYUI_ARGS": "--nonsense --listen"}
    done = pod.boot()
    assert done.returncode == 2
    for part in ("COMFYUI_PORT='x'", "GPU_TIER='huge'", "--nonsense is not a flag", "use COMFYUI_HOST"):
        assert part in done.stderr
    assert not pod.run_dir.exists()


def test_a_taken_port_stops_the_boot(pod: Pod) -> None:
    with socket.create_server(("127.0.0.1", pod.port)):
        done = pod.boot()
    assert done.returncode == 1
    assert f"COMFYUI_PORT={pod.port}: another process listens" in done.stderr
    assert not (pod.root / "volume").exists()


def test_a_volume_that_is_a_file_stops_the_boot(pod: Pod) -> None:
    (pod.root / "volume").write_text("")
    done = pod.boot()
    assert done.returncode == 1
    assert "volume cannot be written" in done.stderr
    assert not pod.run_dir.exists()


@pytest.mark.alone
def test_a_real_boot(pod: Pod) -> None:
    (pod.root / "nodes" / "Baked").mkdir(parents=True)
    pod.environ |= {**SECRET, "ENABLE_R2_SYNC": "false"}
    began = time.monotonic()
    pod.start(pod.boot_command())
    pod.wait(lambda: "comfyui started" in pod.happened())
    assert time.monotonic() - began < 5
    assert "process.started name=comfyui seconds=" in pod.wait(lambda: pod.said() if "says hello" in pod.said() else "")
    environ = Path(f"/proc/{pod.pid('comfyui')}/environ").read_bytes().decode()
    assert "FAKE_EVENTS" in environ
    for secret in ("key-secret", "key-id-secret", "hf-secret", "rp-secret"):
        assert secret not in environ
        assert secret not in pod.said()
    assert pod.supervisord is not None
    assert b"secret" not in Path(f"/proc/{pod.supervisord.pid}/environ").read_bytes()
    assert (pod.run_dir / "nodes" / "Baked").readlink() == pod.root / "nodes" / "Baked"
    for path in (pod.run_dir / "env").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    state = pod.root / "volume/.hearmeman/local"
    boot = json.loads((state / "boot.json").read_text())
    assert boot["image"]["comfyui_rev"] == "abc"
    assert list(boot["phases"]) == ["settings", "gpu", "storage", "plan", "prepared"]
    assert "says hello" in (state / "logs/comfyui.log").read_text()
    words = [sys.executable, "-m", "hearmeman", "status", "--json", "--run-dir", str(pod.run_dir)]
    status = json.loads(
        subprocess.run(words, env=pod.environ, capture_output=True, timeout=PATIENCE, check=True).stdout
    )
    names = {process["name"] for process in status["processes"]}
    assert names == {"comfyui", "models", "door"} | ({"owners"} if os.geteuid() == 0 else set())
    assert pod.end() == 0


def test_a_second_boot_in_the_same_container(pod: Pod) -> None:
    # A container that is restarted keeps its /run.
    for _ in range(2):
        pod.start(pod.boot_command())
        pod.wait(lambda: "says hello" in pod.said())
        pod.wait(lambda: (pod.run_dir / "gate/door.sock").exists())
        assert pod.end() == 0
    assert pod.happened().count("comfyui started") == 2


@pytest.mark.alone
def test_comfyui_stops_before_the_sync(pod: Pod) -> None:
    pod.environ |= SYNC
    pod.start_planned({"models": {"FAKE_EXIT": "3"}})
    pod.wait(lambda: {f"{name} started" for name in ("comfyui", "sync", "models", "door")} <= set(pod.happened()))
    began = time.monotonic()
    assert pod.end() == 0
    assert time.monotonic() - began < 5
    assert pod.happened()[-6:] == [
        f"{name} {word}" for name in ("comfyui", "sync", "door") for word in ("stopping", "stopped")
    ]
    assert pod.happened().count("models started") == 1


def test_a_dying_process_is_started_again_with_a_growing_pause(pod: Pod) -> None:
    pod.start_planned({"comfyui": {"FAKE_CRASHES": "2"}, "models": {"FAKE_EXIT": "0"}})
    first, second, third = pod.wait(lambda: found if len(found := pod.times("comfyui started")) == 3 else None)
    # No less: how much later Python itself begins is the machine's affair.
    assert second - first > 0.9 and third - second > 1.9
    pauses = [line.rpartition("again_in=")[2] for line in pod.said().splitlines() if "again_in=" in line]
    assert pauses == ["1", "2"]


def test_a_killed_wrapper_takes_its_process_along(pod: Pod) -> None:
    pod.start_planned({"models": {"FAKE_EXIT": "0"}})
    pod.wait(lambda: "comfyui started" in pod.happened())
    child = pod.pid("comfyui")
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    assert Path(f"/proc/{parent}/comm").read_text() == "keep comfyui\n", "as ps and top name it"
    report = pod.run_dir / "keep/comfyui.json"
    start = pod.wait(lambda: read_json(report).get("exec_seconds"))
    os.kill(parent, signal.SIGKILL)
    pod.wait(lambda: pod.happened().count("comfyui started") == 2)
    assert json.loads(report.read_text())["exec_seconds"] == start, "of the pod's start, which was before"
    # Its parent is gone, so whoever is PID 1 here decides how long it stays a zombie; one has no command line.
    pod.wait(lambda: not command_line(child))


def test_a_wrapper_shares_its_memory_with_supervisord(pod: Pod) -> None:
    """An interpreter of its own would hold 10 MB that nobody shares."""
    pod.start_planned({"models": {"FAKE_EXIT": "0"}})
    pod.wait(lambda: "comfyui started" in pod.happened())
    parent = int(Path(f"/proc/{pod.pid('comfyui')}/stat").read_text().rpartition(")")[2].split()[1])
    rollup = Path(f"/proc/{parent}/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
    assert kib["Private_Dirty"] < 7_000 < 10_000 < kib["Rss"]


def test_output_in_a_file_is_not_overwritten(pod: Pod) -> None:
    pod.start(pod.boot_command())
    pod.wait(lambda: "says hello" in pod.said())
    pod.end()
    assert "[comfyui] comfyui says hello\n" in pod.said()
    assert "process.started name=comfyui seconds=" in pod.said()


def test_comfyui_waits_for_the_models(pod: Pod) -> None:
    pod.environ["WAIT_FOR_MODELS"] = "true"
    pod.start_planned({"models": {"FAKE_EXIT": "0", "FAKE_CRASHES": "1"}})
    pod.wait(lambda: "comfyui started" in pod.happened())
    assert [event for event in pod.happened() if "door" not in event] == [
        "models started",
        "models started",
        "comfyui started",
    ]


def test_a_fetch_that_lacks_files_for_a_passing_cause_starts_again_with_growing_pauses(pod: Pod) -> None:
    pod.start_planned({"models": {"FAKE_EXIT": "75"}})
    pod.wait(lambda: pod.happened().count("models started") >= 3)
    assert "process.unfinished exit=75" in pod.said()
    assert "again_in=2" in pod.said()


def test_comfyui_is_not_started_when_models_are_missing(pod: Pod) -> None:
    pod.environ["WAIT_FOR_MODELS"] = "true"
    pod.start_planned({"models": {"FAKE_EXIT": "3"}})
    pod.wait(lambda: 'why="models ended with 3"' in pod.said())
    assert "comfyui started" not in pod.happened()
